"""mitmproxy's HTTP/1 with what it leaves out: trailers, 1xx, the framing of what came over HTTP/2, heads without sense.

mitmproxy raises NotImplementedError at trailers, takes a 1xx for the answer, sends a body of unknown length from HTTP/2
without any framing, so that it could be read as further requests, tells nobody of a head that it can't read, refuses
answers that every client reads alike, and decodes A-labels by IDNA 2003, which refuses names that are registered.
These classes do; `http.Talk` makes them for our connections.
"""
# mypy: disallow-untyped-calls=False

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import h11
from mitmproxy.connection import ConnectionState
from mitmproxy.http import Headers, Response
from mitmproxy.net import check
from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.net.http.http1.assemble import assemble_response
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http1 as original
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from tokgate.mitm.layers.failures import FailedExchange, failure
from tokgate.mitm.layers.tls import EndOfData
from tokgate.wire.host_names import is_host_name

_INTERIM: Final = range(100, 200)
_SWITCHING: Final = 101
_LAST_CHUNK: Final = b"0\r\n\r\n"
_WITHOUT_BODY: Final = (204, 304)
_NO_TRAILERS: Final = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer"),
        *(b"expect", b"authorization", b"cookie", b"set-cookie", b"content-type", b"content-encoding"),
        *(b"proxy-authorization", b"proxy-connection", b"keep-alive", b"content-range", b"max-forwards"),
    }
)
"""What no trailer may say (RFC 9110 §6.5.1): some servers merge them into the fields that they have decided by."""


class EndOfDirection(HttpEvent):
    """The other side has said all, and may still be told something."""


@dataclass
class UnreadableRequestHook(commands.StartHook):
    """A request was refused because its head is malformed; with its connection, which may have a destination."""

    data: Context


class _TrailersKept:
    """A reader of bodies (h11's), which keeps the trailers back from mitmproxy."""

    def __init__(self, reader: Any) -> None:
        self._reader: Final = reader
        self.read_eof: Final[Callable[[], object]] = reader.read_eof
        self.trailers = Headers()

    def __call__(self, buf: object) -> object:
        event = self._reader(buf)
        if isinstance(event, h11.EndOfMessage) and event.headers:
            fields = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
            self.trailers = Headers([field for field in fields if field[0].lower() not in _NO_TRAILERS])
            return h11.EndOfMessage()
        return event


class _Heads(original.ReceiveBuffer):  # type: ignore[name-defined,misc]  # h11's, by mitmproxy's name of it
    """The buffer of a connection, in which heads are edited before mitmproxy reads them."""

    edit: Callable[[list[bytearray]], None] | None = None
    """Edits the lines of a head; None while a body is read."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        lines: list[bytearray] | None = super().maybe_extract_lines()
        if lines and self.edit is not None:
            self.edit(lines)
        return lines


class _Http1(original.Http1Connection):
    """Takes trailers in, and sends what came from the other side's; ends one direction where the other goes on."""

    broke_off = False
    """The peer has ended the connection before it had said all."""
    cut_short = False
    """The other side has, and what came of it is not all that there was to be sent."""
    _to_send = Headers()

    def __init__(self, context: Context) -> None:
        super().__init__(context)  # type: ignore[call-arg] # the next class's, which knows the connection
        self.buf = self._heads = _Heads()

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, with trailers directly before the end of the message."""
        if not isinstance(self.body_reader, _TrailersKept):
            self.body_reader = _TrailersKept(self.body_reader)  # type: ignore[assignment]
        reader: Any = self.body_reader
        for command in super().read_body(event):
            if isinstance(command, ReceiveHttp) and reader.trailers:
                match command.event:
                    case RequestEndOfMessage(stream_id):
                        yield ReceiveHttp(RequestTrailers(stream_id, reader.trailers))
                    case ResponseEndOfMessage(stream_id):
                        yield ReceiveHttp(ResponseTrailers(stream_id, reader.trailers))
            yield command

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy does; trailers go with the last chunk, and nowhere if there are no chunks."""
        ends = isinstance(event, EndOfDirection)
        if isinstance(event, RequestProtocolError | ResponseProtocolError) and not self.cut_short:
            # The other side of a protocol that was switched to has said all: mitmproxy would end both.
            upgraded = self.response is not None and self.response.status_code == _SWITCHING
            ends = upgraded and event.code is ErrorCode.PASSTHROUGH_CLOSE
        if ends:
            yield EndOfData(self.conn, half_close=True)
            return
        if isinstance(event, RequestTrailers | ResponseTrailers):
            self._to_send = Headers([field for field in event.trailers.fields if field[0].lower() not in _NO_TRAILERS])
            return
        trailers = self._to_send
        for command in super().send(event):
            if trailers and isinstance(command, commands.SendData) and command.data == _LAST_CHUNK:
                command.data = b"0\r\n" + bytes(trailers) + b"\r\n"
                trailers = Headers()
            yield command
        if isinstance(event, RequestEndOfMessage | ResponseEndOfMessage):
            self._to_send = Headers()


class Http1Server(_Http1, original.Http1Server):
    """mitmproxy's HTTP/1 server side; reports heads that can't be read, and answers who says no more."""

    ended = False
    """The client has said all, and waits for the answer."""

    _target: "_Target | None" = None
    """What the request line at hand names, where mitmproxy got a placeholder."""

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's; a 1xx is not yet the answer, what has no body has no last chunk, and an end comes once."""
        if isinstance(event, ResponseHeaders) and is_interim(event.response):
            if self.request is not None and self.request.http_version != "HTTP/1.0":  # RFC 9110 §15.2
                yield from super().send(event)
            self.response = None
            return
        if isinstance(event, FailedExchange) and self.response is None and self.conn.state & ConnectionState.CAN_WRITE:
            yield commands.SendData(self.conn, _closing(event.response))
            yield commands.CloseConnection(self.conn)
            return
        is_end = isinstance(event, ResponseEndOfMessage)
        if is_end and (self.response_done or event.stream_id != self.stream_id):
            return  # it was early, and the next request may have come
        has_no_body = self.response is not None and self.response.status_code in _WITHOUT_BODY
        for command in super().send(event):
            if not (is_end and has_no_body and isinstance(command, commands.SendData)):
                yield command

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's; a head that can't be read also triggers UnreadableRequestHook.

        Empty lines before a request are ignored (RFC 9112 §2.2): mitmproxy would wait for more behind each.
        """
        while True:
            unread, self._heads.edit = len(self.buf), self._take_target
            for command in super().read_headers(event):
                self._heads.edit = None
                if isinstance(command, ReceiveHttp) and isinstance(command.event, RequestHeaders) and self._target:
                    data, target, self._target = command.event.request.data, self._target, None
                    data.authority, data.host, data.port = target.authority, target.host, target.port or data.port
                    data.path = target.path
                if isinstance(command, commands.SendData):  # mitmproxy's 400
                    problem = "it can't be told where its body ends"
                    if self.request is None:
                        problem = "its head can't be read"
                        yield UnreadableRequestHook(self.context)
                    command.data = _closing(failure("client", 400, problem, self.context.client.id, self.request))
                yield command
            if self.state != self.read_headers or len(self.buf) in (0, unread):
                return

    def _take_target(self, lines: list[bytearray]) -> None:
        line = _VERSION_BEHIND.sub(lambda version: version[0].upper(), bytes(lines[0]))
        self._target, lines[0] = _target_of(line)
        lengths = [line for line in lines[1:] if line[:15].lower() == b"content-length:"]
        if len({bytes(length[15:]).strip() for length in lengths}) == 1:  # RFC 9110 §8.6; mitmproxy refuses all
            for again in lengths[1:]:
                lines.remove(again)

    def wait(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, which takes the end of what a client says for the end of its interest."""
        if isinstance(event, events.ConnectionClosed) and not self.broke_off:
            self.ended = True
        else:
            yield from super().wait(event)

    def mark_done(self, *, request: bool = False, response: bool = False) -> layer.CommandGenerator[None]:
        """As mitmproxy's; the client learns from the end of the connection that the answer was whole."""
        for command in super().mark_done(request=request, response=response):
            yield EndOfData(self.conn) if isinstance(command, commands.CloseConnection) else command
        if self.ended and self.state == self.read_headers:
            self.state = self.done
            yield EndOfData(self.conn)


class Http1Client(_Http1, original.Http1Client):
    """mitmproxy's HTTP/1 client side; uses chunks for bodies without a length."""

    _has_answered = False
    """The connection has served a request before."""

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's; an HTTP/2 body without a length is sent in chunks (RFC 9112 §6.3)."""
        if isinstance(event, RequestHeaders) and not event.end_stream:
            request = event.request
            if (request.is_http2 or request.is_http3) and "content-length" not in request.headers:
                request.headers["transfer-encoding"] = "chunked"
        yield from super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's; after a 1xx goes on to the answer (RFC 9110 §15.2).

        A server may close a connection that it has kept at the moment of a request. Clients know that and ask again
        (RFC 9112 §9.3.1), but not after a 502: then theirs is closed, too.
        """
        while True:
            unread, self._heads.edit = len(self.buf), _make_clear
            is_over = isinstance(event, events.ConnectionClosed) and self._has_answered and not self.buf
            for command in super().read_headers(event):
                self._heads.edit = None
                match command:
                    case ReceiveHttp(event=ResponseHeaders(response=response)) if is_interim(response):
                        yield command
                        self.response = None
                        break
                    case ReceiveHttp(event=ResponseHeaders()):
                        self._has_answered = True
                    case ReceiveHttp(event=ResponseProtocolError() as error) if is_over:
                        error.code = ErrorCode.PASSTHROUGH_CLOSE
                yield command
            else:
                if self.state != self.read_headers or len(self.buf) in (0, unread):
                    return  # else an empty line came before the head, and more behind it

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; a body that lasts until the end is not whole if the server broke off (RFC 9112 §8)."""
        lasts = self.request is not None and expected_http_body_size(self.request, self.response) == -1
        if self.broke_off and lasts and self.stream_id is not None:
            problem = "the server broke the connection off"
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, problem, ErrorCode.PASSTHROUGH_CLOSE))
        else:
            yield from super().read_body(event)


def _closing(response: Response) -> bytes:
    response.headers["Connection"] = "close"
    octets: bytes = assemble_response(response)
    return octets


def is_interim(response: Response) -> bool:
    """Whether another answer to the same request follows."""
    return response.status_code in _INTERIM and response.status_code != _SWITCHING


PLACE: Final = b"tokgate.invalid"
"""Stands for a host where mitmproxy is to read all but the host, which it would read by IDNA 2003 or refuse."""
_URL_LINE: Final = re.compile(rb"(\S+)(\s+)([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#]+)([/?]?\S*)(\s+\S+)")
"""The host in a URL ends at `?` as well (RFC 3986 §3.2)."""
_CONNECT_LINE: Final = re.compile(rb"(CONNECT\s+)(\S+)(\s+\S+)")
_AUTHORITY: Final = re.compile(r"([^:]+|\[.+\])(?::([0-9]+))?")
_LAST_PORT: Final = 65535


def readable(authority: bytes) -> tuple[str, int | None] | None:
    """The host and port of an authority; A-labels stay as policy and origin read them (RFC 5890 §2.3.2.1)."""
    found = _AUTHORITY.fullmatch(authority.decode("ascii")) if authority.isascii() else None
    if found is None:
        return None
    host, port = found[1].removeprefix("[").removesuffix("]"), None if found[2] is None else int(found[2])
    valid = is_host_name(host.encode("ascii")) or check.is_valid_host(host)
    return (host, port) if valid and (port is None or port <= _LAST_PORT) else None


@dataclass(frozen=True, slots=True)
class _Target:
    """What a request line names."""

    authority: bytes
    host: str
    port: int | None
    path: bytes


def _target_of(line: bytes) -> tuple[_Target | None, bytearray]:
    """The target of a request line that names a host, and the line with a placeholder for the host."""
    if connect := _CONNECT_LINE.fullmatch(line):
        before, authority, after = connect.groups()
        found = readable(authority)
        if found is not None and found[1]:
            return _Target(authority, *found, b""), bytearray(b"%b%b:%d%b" % (before, PLACE, found[1], after))
    elif url := _URL_LINE.fullmatch(line):
        method, space, scheme, authority, path, after = url.groups()
        found = readable(authority)
        if found is not None:
            port = b"" if found[1] is None else b":%d" % found[1]
            target = _Target(authority, *found, path if path.startswith(b"/") else b"/" + path)
            return target, bytearray(b"%b%b%b://%b%b/%b" % (method, space, scheme, PLACE, port, after))
    return None, bytearray(line)


_VERSION_BEHIND: Final = re.compile(rb"(?i:http)/1\.[01]$")
_STATUS_LINE: Final = re.compile(rb"(?i:(http/1\.[01])|icy)([ \t].*)")
"""As some servers write it; ICY is SHOUTcast's, which all browsers and curl take for HTTP/1.0."""


def _make_clear(lines: list[bytearray]) -> None:
    """Make a response's head unambiguous where every client reads it alike; mitmproxy would refuse it."""
    if status := _STATUS_LINE.fullmatch(lines[0]):
        lines[0] = bytearray((status[1] or b"HTTP/1.0").upper() + status[2])
    fields = [tuple(map(bytes, line.partition(b":"))) for line in lines[1:]]
    names = [b"" if name[:1] in b" \t" else name.rstrip(b" \t").lower() for name, _, _ in fields]  # RFC 9112 §5.1

    def values(wanted: bytes) -> list[bytes]:
        return [value for name, (_, _, value) in zip(names, fields, strict=True) if name == wanted]

    codings = b",".join(values(b"transfer-encoding")).strip().lower()
    lengths = {each.strip() for value in values(b"content-length") for each in value.split(b",")}
    cleared, said = [], False
    for name, (raw, colon, value) in zip(names, fields, strict=True):
        if name == b"transfer-encoding" and codings == b"identity":  # RFC 2616 §3.6
            continue
        if name == b"content-length":
            if codings not in (b"", b"identity") or (said and len(lengths) == 1):  # RFC 9112 §6.3, RFC 9110 §8.6
                continue
            said, value = True, b" " + min(lengths) if len(lengths) == 1 else value
        cleared.append(bytearray((raw.rstrip(b" \t") if name else raw) + colon + value))
    lines[1:] = cleared
