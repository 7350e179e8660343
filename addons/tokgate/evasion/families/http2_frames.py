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
_HARMLESS: Final = "www.example.org"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, body: bytes = b"", flags: int = 0, stream: int = 1) -> bytes:
    """A frame (RFC 9113 §4.1)."""
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


_SETTLED: Final = _frame(_SETTINGS, stream=0)


def _fields(name: str | None, *extra: tuple[str, str], **pseudo: str | None) -> Fields:
    """The fields of a request; `pseudo` replaces, and None leaves out."""
    known = {"method": "GET", "scheme": "http", "authority": name, "path": "/"} | pseudo
    return [*((f":{key}", value) for key, value in known.items() if value is not None), *extra]


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
    first, second = (encoder.encode(_fields(each)) for each in (_HARMLESS, name))
    ends = _END_STREAM | _END_HEADERS
    return [_PREFACE + _SETTLED + _frame(_HEADERS, first, ends), _frame(_HEADERS, second, ends, 3)]


def _begun(*frames: bytes) -> list[bytes]:
    return [_PREFACE + _SETTLED + b"".join(frames)]


def _never(field: tuple[str, str]) -> tuple[str, str]:
    return NeverIndexedHeaderTuple(*field)  # type: ignore[return-value]


def _request(*extra: tuple[str, str], **pseudo: str | None) -> Frames:
    """A request with these fields, in which NAME stands for the target's name."""

    def frames(name: str) -> list[bytes]:
        return _begun(_asked([(key, value.replace("NAME", name)) for key, value in _fields("NAME", *extra, **pseudo)]))

    return frames


_FRAMES: Final[dict[str, tuple[str, Frames]]] = {
    "plain": ("frames as they should be", lambda n: _begun(_asked(_fields(n)))),
    "continuation": ("a head in CONTINUATION frames of an octet", lambda n: _begun(_continued(n, 1))),
    "continuations-empty": ("fifty empty CONTINUATION frames", lambda n: _begun(_continued(n, 9, empty=50))),
    "octet-by-octet": ("a segment for each octet", lambda n: [bytes((o,)) for o in _begun(_asked(_fields(n)))[0]]),
    "second-stream": (
        "a harmless request, and the banned one in another stream",
        lambda n: _begun(_asked(_fields(_HARMLESS)), _asked(_fields(n), stream=3)),
    ),
    "indexed": ("the second request takes from the table what the first put there", _indexed),
    "never-indexed": (":authority never to be indexed", lambda n: _begun(_asked([*map(_never, _fields(n))]))),
    "padded": (
        "padding and a priority",
        lambda n: _begun(
            _frame(_HEADERS, b"\x20\0\0\0\0\x10" + Encoder().encode(_fields(n)) + bytes(32), 5 | _PADDED | _PRIORITIZED)
        ),
    ),
    "unknown-frames": (
        "frames of unknown types first",
        lambda n: _begun(_frame(0x2A, b"x" * 9, 0, 0), _frame(0xFE, b"", 0xFF, 7), _asked(_fields(n))),
    ),
    "goaway-first": ("GOAWAY first", lambda n: _begun(_frame(_GOAWAY, bytes(8), 0, 0), _asked(_fields(n)))),
    "without-settings": ("no SETTINGS first", lambda n: [_PREFACE + _asked(_fields(n))]),
    "settings-behind": ("SETTINGS behind the request", lambda n: [_PREFACE + _asked(_fields(n)) + _SETTLED]),
    "even-stream": ("a stream of the server's", lambda n: _begun(_asked(_fields(n), stream=2))),
    "connect": ("CONNECT", _request(method="CONNECT", scheme=None, path=None, authority="NAME:80")),
    "extended-connect": (
        "CONNECT for WebSocket",
        _request(("sec-websocket-version", "13"), method="CONNECT", protocol="websocket"),
    ),
    "odd-method": ("a method with a bracket", _request(method="GE[T")),
    "odd-scheme": ("a scheme that is none", _request(scheme="x y")),
    "https-scheme": ("https without TLS", _request(scheme="https")),
    "no-scheme": ("no :scheme", _request(scheme=None)),
    "no-path": ("no :path", _request(path=None)),
    "late-authority": (":authority behind other fields", _request(("x", "y"), (":authority", "NAME"), authority=None)),
    "authority-in-trailers": (
        "the name in trailers",
        lambda n: _begun(_asked(_fields(_HARMLESS, method="POST"), _END_HEADERS), _asked([(":authority", n)])),
    ),
    "upgrade-inside": ("Upgrade inside HTTP/2", _request(("connection", "upgrade"), ("upgrade", "websocket"))),
    "two-prefaces": ("the preface twice", lambda n: [_PREFACE + _begun(_asked(_fields(n)))[0]]),
    "request-behind": (
        "HTTP/1 behind the preface",
        lambda n: [_PREFACE + _SETTLED + b"GET / HTTP/1.1\r\nHost: " + n.encode() + b"\r\nConnection: close\r\n\r\n"],
    ),
    "long-head": (
        "fields of 40,000 octets",
        lambda n: _begun(_continued(n, 16000, *((f"x{number}", "\xff" * 1000) for number in range(20)))),
    ),
}
_STREAMS: Final = {"second-stream": 3, "indexed": 3, "even-stream": 2}
"""In which stream the request is, where that isn't the first."""

_HOSTS: Final[dict[str, tuple[str, Frames]]] = {
    "host": ("a harmless Host beside :authority", _request(("host", _HARMLESS))),
    "authority": ("the name in Host, and a harmless :authority", _request(("host", "NAME"), authority=_HARMLESS)),
    "path": ("a URL for :path, and a harmless :authority", _request(path="http://NAME/", authority=_HARMLESS)),
    "userinfo": ("a user name in :authority", _request(authority="www.example.org@NAME")),
    "port": ("a dot and a port in :authority", _request(authority="NAME.:80")),
    "uppercase": ("capitals", lambda n: _begun(_asked(_fields(n.upper())))),
    "percent": ("an encoded dot", lambda n: _begun(_asked(_fields(n.replace(".", "%2e", 1))))),
    "slash": ("a slash in :authority", _request(authority="NAME/")),
    "backslash": ("a backslash", _request(authority="www.example.org\\@NAME")),
    "space": ("a space in :authority", _request(authority=" NAME")),
    "tab": ("a tab behind :authority", _request(authority="NAME\t")),
    "nul": ("a NUL", _request(authority="NAME\0")),
    "two-names": ("two names", _request(authority="www.example.org,NAME")),
    "empty-authority": ("the name in Host, and an empty :authority", _request(("host", "NAME"), authority="")),
    "two-hosts": ("two fields Host", _request(("host", _HARMLESS), ("host", "NAME"), authority=_HARMLESS)),
    "capital-host": ("Host in capitals", _request(("HOST", "NAME"), authority=_HARMLESS)),
    "two-authorities": ("two :authority", _request((":authority", "NAME"), authority=_HARMLESS)),
    "path-slashes": ("//NAME/ for :path", _request(path="//NAME/", authority="")),
    "path-https": ("an https URL for :path", _request(path="https://NAME/", authority=_HARMLESS)),
    "path-authority": ("an authority for :path", _request(path="NAME:80", authority=_HARMLESS)),
}
"""By the spelling and the place of the name."""


def _played(frames: Frames, number: int, stream: Stream, target: Target) -> ServerReply:
    """Send the frames, and read what comes in the stream of that number."""
    http = h2.connection.H2Connection(h2.config.H2Configuration())
    http.initiate_connection()
    for each in {1, number}:
        if each % 2:
            http.send_headers(each, _fields(_HARMLESS), end_stream=True)
    http.data_to_send()  # `frames` are sent in place of that
    return _answer(http, number, stream, frames(target.name))


def _upgraded(stream: Stream, target: Target) -> ServerReply:
    """A harmless request that offers HTTP/2 (RFC 7540 §3.2); where a server takes it, one for the target's name."""
    http = h2.connection.H2Connection(h2.config.H2Configuration())
    settings = http.initiate_upgrade_connection() or b""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: " + settings + b"\r\n"
    try:
        stream.send(b"GET / HTTP/1.1\r\n" + offer + b"Host: www.example.org\r\n\r\n")
        said = stream.receive()
        if not said.startswith(b"HTTP/1.1 101"):
            return ServerReply(Result.REFUSED if said else Result.CLOSED, "the offer was not taken", said)
        http.receive_data(said.partition(b"\r\n\r\n")[2])
    except (OSError, h2.exceptions.ProtocolError):
        return ServerReply(Result.CLOSED)
    http.send_headers(3, _fields(target.name), end_stream=True)
    return _answer(http, 3, stream, [http.data_to_send()])


def _answer(http: h2.connection.H2Connection, number: int, stream: Stream, pieces: Sequence[bytes]) -> ServerReply:
    """Send the pieces, and read until the stream of that number ends."""
    status, said = b"", bytearray()
    try:
        for piece in pieces:
            stream.send(piece)
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
    except h2.exceptions.ProtocolError:
        return judge(bytes(said))
    except OSError as error:
        return ServerReply(Result.REFUSED, "no answer in the stream", bytes(said)) if said else broken(error)
    return ServerReply(Result.CLOSED, "", bytes(said))


_ORDINARY: Final = frozenset({"plain", "continuation", "octet-by-octet", "second-stream", "indexed", "unknown-frames"})


def attempts() -> Iterator[Attempt]:
    """Attempts by the frames of HTTP/2, and by the name in them."""
    attempt = partial(Attempt, family=Family.HTTP2_FRAMES, opens=Opens.HTTP, is_http2=True)
    for name, (what, frames) in _FRAMES.items():
        play = partial(_played, frames, _STREAMS.get(name, 1))
        yield attempt(f"http2-frames-{name}", what, play, innocent=name in _ORDINARY)
    for name, (what, frames) in _HOSTS.items():
        yield attempt(f"http2-{name}", f"HTTP/2 with {what}", partial(_played, frames, 1))
    plain = partial(_played, _request(), 1)
    yield attempt("http2", "HTTP/2 with prior knowledge", plain, innocent=True)
    yield attempt("h2c-smuggled", "HTTP/2 inside a harmless connection that was upgraded", _upgraded)
