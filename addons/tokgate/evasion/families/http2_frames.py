"""HTTP/2 with prior knowledge whose frames, compression or order are odd, for a name that is spelled plainly."""
# mypy: disallow-untyped-calls=False

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hpack import Encoder, NeverIndexedHeaderTuple

from tokgate.evasion.attempt import Attempt, Family, Opens, Result, ServerReply, Stream, Target, broken
from tokgate.evasion.replies import judge

type Fields = list[tuple[str, str]]
type Frames = Callable[[str], Sequence[bytes]]

_HEADERS, _PRIORITY, _SETTINGS, _GOAWAY, _CONTINUATION = 1, 2, 4, 7, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITIZED = 1, 4, 8, 0x20
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, body: bytes = b"", flags: int = 0, stream: int = 1) -> bytes:
    """A frame (RFC 9113 §4.1)."""
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


_SETTLED: Final = _frame(_SETTINGS, stream=0)


def _fields(name: str, *extra: tuple[str, str], **pseudo: str) -> Fields:
    """The fields of a request; `pseudo` replaces, and leaves out what is empty."""
    known = {"method": "GET", "scheme": "http", "authority": name, "path": "/"} | pseudo
    return [*((f":{key}", value) for key, value in known.items() if value), *extra]


def _asked(fields: Fields, flags: int = _END_STREAM | _END_HEADERS, stream: int = 1) -> bytes:
    return _frame(_HEADERS, Encoder().encode(fields), flags, stream)


def _continued(name: str, size: int, *extra: tuple[str, str], empty: int = 0) -> bytes:
    """A head in CONTINUATION frames of so many octets, the first of them empty."""
    block = Encoder().encode(_fields(name, *extra))
    parts = [block[at : at + size] for at in range(0, len(block), size)]
    rest = [b""] * empty + parts[1:]
    flags = [0] * (len(rest) - 1) + [_END_HEADERS]
    return _frame(_HEADERS, parts[0], _END_STREAM) + b"".join(
        _frame(_CONTINUATION, part, flag) for part, flag in zip(rest, flags, strict=True)
    )


def _indexed(name: str) -> list[bytes]:
    """A harmless request whose fields go into the table, and one that takes all but its name from there."""
    encoder = Encoder()
    first, second = (encoder.encode(_fields(each)) for each in ("www.example.org", name))
    ends = _END_STREAM | _END_HEADERS
    return [_PREFACE + _SETTLED + _frame(_HEADERS, first, ends), _frame(_HEADERS, second, ends, 3)]


def _begun(*frames: bytes) -> list[bytes]:
    return [_PREFACE + _SETTLED + b"".join(frames)]


def _never(field: tuple[str, str]) -> tuple[str, str]:
    return NeverIndexedHeaderTuple(*field)  # type: ignore[return-value]


_SHAPES: Final[dict[str, tuple[str, Frames, int]]] = {
    "plain": ("frames as they should be", lambda n: _begun(_asked(_fields(n))), 1),
    "continuation": ("a head in CONTINUATION frames of an octet", lambda n: _begun(_continued(n, 1)), 1),
    "continuations-empty": ("fifty empty CONTINUATION frames", lambda n: _begun(_continued(n, 9, empty=50)), 1),
    "octet-by-octet": (
        "a segment for each octet",
        lambda n: [bytes((octet,)) for octet in _begun(_asked(_fields(n)))[0]],
        1,
    ),
    "second-stream": (
        "a harmless request, and the banned one in another stream",
        lambda n: _begun(_asked(_fields("www.example.org")), _asked(_fields(n), stream=3)),
        3,
    ),
    "indexed": ("the second request takes from the table what the first put there", _indexed, 3),
    "never-indexed": (
        ":authority never to be indexed",
        lambda n: _begun(_asked([*map(_never, _fields(n))])),
        1,
    ),
    "padded": (
        "padding and a priority",
        lambda n: _begun(
            _frame(_HEADERS, b"\x20\0\0\0\0\x10" + Encoder().encode(_fields(n)) + bytes(32), 5 | _PADDED | _PRIORITIZED)
        ),
        1,
    ),
    "unknown-frames": (
        "frames of unknown types first",
        lambda n: _begun(_frame(0x2A, b"x" * 9, 0, 0), _frame(0xFE, b"", 0xFF, 7), _asked(_fields(n))),
        1,
    ),
    "priority-first": (
        "PRIORITY of other streams first",
        lambda n: _begun(_frame(2, bytes(5), 0, 9), _asked(_fields(n))),
        1,
    ),
    "goaway-first": ("GOAWAY first", lambda n: _begun(_frame(_GOAWAY, bytes(8), 0, 0), _asked(_fields(n))), 1),
    "without-settings": ("no SETTINGS first", lambda n: [_PREFACE + _asked(_fields(n))], 1),
    "settings-behind": ("SETTINGS behind the request", lambda n: [_PREFACE + _asked(_fields(n)) + _SETTLED], 1),
    "even-stream": ("a stream of the server's", lambda n: _begun(_asked(_fields(n), stream=2)), 2),
    "high-stream": ("a high stream", lambda n: _begun(_asked(_fields(n), stream=0x7FFFFFFF)), 0x7FFFFFFF),
    "connect": ("CONNECT", lambda n: _begun(_asked(_fields(f"{n}:80", method="CONNECT", scheme="", path=""))), 1),
    "extended-connect": (
        "CONNECT for WebSocket",
        lambda n: _begun(_asked(_fields(n, ("sec-websocket-version", "13"), method="CONNECT", protocol="websocket"))),
        1,
    ),
    "odd-method": ("a method with a bracket", lambda n: _begun(_asked(_fields(n, method="GE[T"))), 1),
    "odd-scheme": ("a scheme that is none", lambda n: _begun(_asked(_fields(n, scheme="x y"))), 1),
    "https-scheme": ("https without TLS", lambda n: _begun(_asked(_fields(n, scheme="https"))), 1),
    "no-scheme": ("no :scheme", lambda n: _begun(_asked(_fields(n, scheme=""))), 1),
    "no-path": ("no :path", lambda n: _begun(_asked(_fields(n, path=""))), 1),
    "late-authority": (
        ":authority behind other fields",
        lambda n: _begun(_asked([*_fields("", ("x", "y")), (":authority", n)])),
        1,
    ),
    "authority-in-trailers": (
        "the name in trailers",
        lambda n: _begun(_asked(_fields("www.example.org", method="POST"), _END_HEADERS), _asked([(":authority", n)])),
        1,
    ),
    "upgrade-inside": (
        "Upgrade inside HTTP/2",
        lambda n: _begun(_asked(_fields(n, ("connection", "upgrade"), ("upgrade", "websocket")))),
        1,
    ),
    "two-prefaces": ("the preface twice", lambda n: [_PREFACE + _begun(_asked(_fields(n)))[0]], 1),
    "request-behind": (
        "HTTP/1 behind the preface",
        lambda n: [_PREFACE + _SETTLED + b"GET / HTTP/1.1\r\nHost: " + n.encode() + b"\r\nConnection: close\r\n\r\n"],
        1,
    ),
    "long-head": (
        "fields of 40,000 octets",
        lambda n: _begun(_continued(n, 16000, *((f"x{number}", "\xff" * 1000) for number in range(20)))),
        1,
    ),
}


def _played(frames: Frames, number: int, stream: Stream, target: Target) -> ServerReply:
    """Send the frames, and read what comes in the stream of that number."""
    http = h2.connection.H2Connection(h2.config.H2Configuration())
    http.initiate_connection()
    for each in {1, number}:
        if each % 2:
            http.send_headers(each, _fields("www.example.org"), end_stream=True)
    http.data_to_send()  # `frames` are sent in place of that
    said = bytearray()
    try:
        for piece in frames(target.name):
            stream.send(piece)
        return _answer(http, number, stream, said)
    except h2.exceptions.ProtocolError:
        return judge(bytes(said))
    except OSError as error:
        return ServerReply(Result.REFUSED, "no answer in the stream", bytes(said)) if said else broken(error)


def _answer(http: h2.connection.H2Connection, number: int, stream: Stream, said: bytearray) -> ServerReply:
    """Read until the stream of that number ends; all that came is in `said`."""
    status = b""
    while data := stream.receive():
        said += data
        for event in http.receive_data(data):
            match event:
                case h2.events.ResponseReceived(stream_id=one) if one == number:
                    status = dict(event.headers or []).get(b":status", b"")
                case h2.events.StreamEnded(stream_id=one) if one == number:
                    return judge(b"HTTP/2 " + status + b"\r\n\r\n" + said)
                case h2.events.StreamReset(stream_id=one) if one == number:
                    return ServerReply(Result.REFUSED, "the stream was reset", bytes(said))
        stream.send(http.data_to_send())
    return ServerReply(Result.CLOSED, "", bytes(said))


_attempt = partial(Attempt, family=Family.HTTP2_FRAMES, opens=Opens.HTTP, is_http2=True)
_ORDINARY: Final = frozenset({"plain", "continuation", "octet-by-octet", "second-stream", "indexed", "unknown-frames"})


def attempts() -> Iterator[Attempt]:
    """Attempts by the frames of HTTP/2."""
    for name, (what, frames, number) in _SHAPES.items():
        yield _attempt(f"http2-frames-{name}", what, partial(_played, frames, number), innocent=name in _ORDINARY)
