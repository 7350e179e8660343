"""Plain HTTP whose bodies end elsewhere for a lenient server than for the proxy: a request hidden in another."""

from collections.abc import Iterator
from functools import partial
from typing import Final

from tokgate.evasion.attempt import Attempt, Family, Opens, SentPieces, Target, filled
from tokgate.evasion.families.http_heads import asked

_HEAD: Final = b" / HTTP/1.1\r\nHost: www.example.org\r\n"
_HEAD_1_0: Final = b"POST / HTTP/1.0\r\nHost: www.example.org\r\n"
_HIDDEN: Final = b"GET / HTTP/1.1\r\nHost: NAME\r\nConnection: close\r\n\r\n"


def _with_body(method: bytes, field: bytes) -> SentPieces:
    """A harmless request whose body is another. LENGTH is the body's."""

    def pieces(target: Target) -> list[bytes]:
        body = target.fill(_HIDDEN)
        return [method + _HEAD + field.replace(b"LENGTH", b"%d" % len(body)) + b"\r\n\r\n" + body]

    return pieces


def _chunked(fields: bytes = b"Transfer-Encoding: chunked", end: bytes = b"0\r\n\r\n") -> SentPieces:
    """A harmless request with a chunked body behind which another begins."""
    return filled(b"POST" + _HEAD + fields + b"\r\n\r\n" + end + _HIDDEN)


_CHUNKS: Final[dict[str, tuple[str, bytes]]] = {
    "chunk-extension": ("a chunk with an extension", b"0;a=b\r\n\r\n"),
    "chunk-bare-lf": ("chunks that end with LF", b"0\n\n"),
    "chunk-0x": ("a size in hexadecimal", b"0x0\r\n\r\n"),
    "chunk-zeros": ("a size of twenty zeros", b"0" * 20 + b"\r\n\r\n"),
    "chunk-cr-cr": ("a size that ends with CR CR LF", b"0\r\r\n\r\n"),
    "chunk-tab": ("a tab behind the size", b"0\t\r\n\r\n"),
    "chunk-cr-extension": ("an extension with CR", b"0;a\rb\r\n\r\n"),
    "chunk-empty-size": ("no size", b"\r\n\r\n"),
    "chunk-half-end": ("half an end", b"0\r\n\r"),
    "trailer-line-feeds": ("trailers that end with LF", b"0\r\nX: a\n\n"),
    "trailer-space-first": ("a trailer with a space first", b"0\r\n X: a\r\n\r\n"),
    "trailer-without-colon": ("a trailer without a colon", b"0\r\nX\r\n\r\n"),
    "trailer-nul": ("a trailer with a NUL", b"0\r\nX: a\0\r\n\r\n"),
    "trailer-cr": ("a trailer that ends with CR", b"0\r\nX: a\r\r\n"),
    "chunk-overflow": ("a size that overflows", b"10000000000000000\r\n\r\n"),
    "chunk-spaces": ("spaces behind a size", b"0   \r\n\r\n"),
    "chunk-quoted-extension": ("an extension with a line inside quotes", b'0;a="\r\n\r\n"\r\n\r\n'),
    "chunk-lf-extension": ("LF in an extension", b"0;\n\r\n\r\n"),
    "chunk-long-size": ("a size of 100 zeros", b"0" * 100 + b"\r\n\r\n"),
    "chunk-data-too-long": ("a chunk longer than its size", b"1\r\nxyz\r\n0\r\n\r\n"),
    "trailer-host": ("Host for a trailer", b"0\r\nHost: x.example.org\r\n\r\n"),
}
"""By the end of a body in chunks, behind which the hidden request comes."""

_ENCODINGS: Final[dict[str, tuple[str, bytes]]] = {
    "length-and-chunks": ("a length and chunks", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    "odd-encoding": ("an encoding that is nearly chunked", b"Content-Length: 5\r\nTransfer-Encoding: xchunked"),
    "tab-encoding": ("a tab before chunked", b"Content-Length: 5\r\nTransfer-Encoding:\tchunked"),
    "encoding-chunked-twice": ("chunked twice", b"Transfer-Encoding: chunked, chunked"),
    "encoding-identity": ("identity, and a length", b"Content-Length: 5\r\nTransfer-Encoding: identity"),
    "encoding-nul": ("a NUL behind chunked", b"Content-Length: 5\r\nTransfer-Encoding: chunked\0"),
    "encoding-empty": ("an empty encoding", b"Content-Length: 5\r\nTransfer-Encoding:"),
    "encoding-empty-first": ("an empty encoding first", b"Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
    "encoding-in-connection": (
        "an encoding named by Connection",
        b"Connection: transfer-encoding\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    ),
    "length-in-connection": ("a length named by Connection", b"Connection: content-length\r\nContent-Length: 5"),
    "encodings-two": ("two codings", b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: 5"),
    "encoding-list": ("a list of encodings", b"Transfer-Encoding: identity, chunked\r\nContent-Length: 5"),
    "encoding-gzip": ("gzip, chunked", b"Transfer-Encoding: gzip, chunked"),
    "encoding-vertical-tab": ("a vertical tab before chunked", b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5"),
    "encoding-space": ("a space before its colon", b"Transfer-Encoding : chunked\r\nContent-Length: 5"),
    "encoding-lf": ("chunked behind a lone LF", b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: 5"),
    "encoding-cr": ("chunked behind a lone CR", b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 5"),
    "encoding-parameter": ("chunked with a parameter", b"Transfer-Encoding: chunked;q=1"),
}
"""By the fields of a request whose body is one empty chunk for some servers."""

_LENGTHS: Final[dict[str, tuple[str, bytes, bytes]]] = {
    "get-with-body": ("GET with a body that is a request", b"GET", b"Content-Length: LENGTH"),
    "head-with-body": ("HEAD with one", b"HEAD", b"Content-Length: LENGTH"),
    "two-lengths": ("two lengths", b"POST", b"Content-Length: LENGTH\r\nContent-Length: 0"),
    "plus-length": ("a length with a plus", b"POST", b"Content-Length: +LENGTH"),
    "spaced-length": ("a space before the colon", b"POST", b"Content-Length : LENGTH"),
    "options-with-body": ("OPTIONS with one", b"OPTIONS", b"Content-Length: LENGTH"),
    "unknown-with-body": ("an unknown method with one", b"FROB", b"Content-Length: LENGTH"),
    "length-empty": ("an empty length", b"POST", b"Content-Length:"),
    "length-float": ("a length with a dot", b"POST", b"Content-Length: 0.0"),
    "length-space": ("a length with a space inside", b"POST", b"Content-Length: 0 LENGTH"),
    "length-overflow": ("a length that overflows", b"POST", b"Content-Length: 18446744073709551616"),
    "length-folded": ("a folded length", b"POST", b"Content-Length:\r\n 0"),
    "length-tab": ("a length behind a tab, and another", b"POST", b"Content-Length:\t0\r\nContent-Length: LENGTH"),
    "length-underscore": ("Content_Length", b"GET", b"Content_Length: LENGTH\r\nContent-Length: 0"),
    "length-nul": ("a length with a NUL", b"POST", b"Content-Length: 0\0"),
    "expect-and-request": (
        "a body that is not waited for, and a request in it",
        b"POST",
        b"Expect: 100-continue\r\nContent-Length: LENGTH",
    ),
}
"""By method and length of a request whose body is the hidden one. LENGTH is its length."""

_OTHERS: Final[dict[str, tuple[str, bytes]]] = {
    "encoding-1.0": (
        "chunked in HTTP/1.0",
        _HEAD_1_0 + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "upgrade-and-request": (
        "an upgrade that nobody knows, and a request behind it",
        b"GET" + _HEAD + b"Connection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ),
    "websocket-and-request": (
        "an offer of WebSocket with a wrong version, and a request behind it",
        b"GET" + _HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 999\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    ),
}
_ORDINARY: Final[dict[str, tuple[str, bytes]]] = {
    "body": ("a request with a body", b"Content-Length: 5\r\n\r\nhello"),
    "chunked-body": ("a body in chunks", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    "chunked-trailers": (
        "a body in chunks, and fields behind it",
        b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "expect-continue": ("a body that waits for nothing", b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
}
"""What ordinary clients do with bodies."""


def attempts() -> Iterator[Attempt]:
    """Attempts that hide a request in a body."""
    hiding: dict[str, tuple[str, SentPieces]] = {
        **{name: (what, _chunked(end=end)) for name, (what, end) in _CHUNKS.items()},
        **{name: (what, _chunked(fields)) for name, (what, fields) in _ENCODINGS.items()},
        **{name: (what, _with_body(method, length)) for name, (what, method, length) in _LENGTHS.items()},
        **{name: (what, filled(before + _HIDDEN)) for name, (what, before) in _OTHERS.items()},
    }
    attempt = partial(Attempt, family=Family.HTTP_BODIES, opens=Opens.HTTP)
    for name, (what, pieces) in hiding.items():
        yield attempt(name, what, partial(asked, pieces, wanted=2))
    for name, (what, rest) in _ORDINARY.items():
        head = b"POST / HTTP/1.1\r\nHost: NAME\r\nConnection: close\r\n"
        yield attempt(name, what, partial(asked, filled(head + rest)), innocent=True)
