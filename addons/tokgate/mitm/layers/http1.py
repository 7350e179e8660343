"""mitmproxy's HTTP/1 with what it leaves out: trailers, 1xx, the framing of what came over HTTP/2, heads without sense.

mitmproxy raises NotImplementedError at trailers, takes a 1xx for the answer, sends a body of unknown length from HTTP/2
without any framing, so that it could be read as further requests, tells nobody of a head that it can't read, refuses
answers that every client reads alike, and decodes A-labels by IDNA 2003, which refuses names that are registered.
Importing this module puts these classes and functions in the place of mitmproxy's own, which it finds by their names.
"""
# mypy: disallow-untyped-calls=False

import re
from dataclasses import dataclass
from typing import Any, Final

import h11
from h11._readers import ChunkedReader, Http10Reader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.connection import Client
from mitmproxy.http import Headers, Response
from mitmproxy.net import check
from mitmproxy.net.http import http1, url
from mitmproxy.net.http.http1 import read
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers import http
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

from tokgate.mitm.closing import EndOfData
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
class UnreadableRequest:
    """A head that could not be read, and whose it is. It has been answered with 400."""

    client: Client
    destination: tuple[str, int] | None
    """The destination of the connection; None if the request was to name it."""


@dataclass
class UnreadableRequestHook(commands.StartHook):
    """A request was refused because its head is malformed."""

    data: UnreadableRequest


class _TrailersKept(ChunkedReader):
    """Reads chunks, and keeps the trailers back from mitmproxy."""

    def __init__(self) -> None:
        super().__init__()
        self.trailers = Headers()

    def __call__(self, buf: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        event = super().__call__(buf)
        if isinstance(event, h11.EndOfMessage) and event.headers:
            fields = [(bytes(name), bytes(value)) for name, value in event.headers.raw_items()]
            self.trailers = Headers([field for field in fields if field[0].lower() not in _NO_TRAILERS])
            return h11.EndOfMessage()
        return event


class _Http1(original.Http1Connection):
    """Takes trailers in, and sends what came from the other side's; ends one direction where the other goes on."""

    broke_off = False
    """The peer has ended the connection before it had said all."""
    cut_short = False
    """The other side has, and what came of it is not all that there was to be sent."""
    _to_send = Headers()

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's, with trailers directly before the end of the message."""
        if type(self.body_reader) is ChunkedReader:
            self.body_reader = _TrailersKept()
        reader = self.body_reader
        for command in super().read_body(event):
            if isinstance(command, ReceiveHttp) and isinstance(reader, _TrailersKept) and reader.trailers:
                match command.event:
                    case RequestEndOfMessage(stream_id):
                        yield ReceiveHttp(RequestTrailers(stream_id, reader.trailers))
                    case ResponseEndOfMessage(stream_id):
                        yield ReceiveHttp(ResponseTrailers(stream_id, reader.trailers))
            yield command

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy does; trailers go with the last chunk, and nowhere if there are no chunks."""
        if isinstance(event, EndOfDirection) or self._ends_upgraded(event):
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

    def _ends_upgraded(self, event: HttpEvent) -> bool:
        """Whether the other side of a protocol that was switched to has said all: mitmproxy would end both."""
        if not isinstance(event, RequestProtocolError | ResponseProtocolError) or self.cut_short:
            return False
        upgraded = self.response is not None and self.response.status_code == _SWITCHING
        return upgraded and event.code is ErrorCode.PASSTHROUGH_CLOSE


class Http1Server(_Http1, original.Http1Server):
    """mitmproxy's HTTP/1 server side; reports heads that can't be read, and answers who says no more."""

    ended = False
    """The client has said all, and waits for the answer."""

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        """As mitmproxy's; a 1xx is not yet the answer, what has no body has no last chunk, and an end comes once."""
        if isinstance(event, ResponseHeaders) and is_interim(event.response):
            if self.request is not None and self.request.http_version != "HTTP/1.0":  # RFC 9110 §15.2
                yield from super().send(event)
            self.response = None
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
            unread = len(self.buf)
            for command in super().read_headers(event):
                if self.request is None and isinstance(command, commands.SendData):
                    yield UnreadableRequestHook(UnreadableRequest(self.context.client, self.context.server.address))
                yield command
            if self.state != self.read_headers or len(self.buf) in (0, unread):
                return

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
            for command in super().read_headers(event):
                match command:
                    case ReceiveHttp(event=ResponseHeaders(response=response)) if is_interim(response):
                        yield command
                        self.response = None
                        break
                    case ReceiveHttp(event=ResponseHeaders()):
                        self._has_answered = True
                    case ReceiveHttp(event=ResponseProtocolError() as error) if self._closes_when_asked(event):
                        error.code = ErrorCode.PASSTHROUGH_CLOSE
                yield command
            else:
                return

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; a body that lasts until the end is not whole if the server broke off (RFC 9112 §8)."""
        if self.broke_off and isinstance(self.body_reader, Http10Reader) and self.stream_id is not None:
            problem = "the server broke the connection off"
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, problem, ErrorCode.PASSTHROUGH_CLOSE))
        else:
            yield from super().read_body(event)

    def _closes_when_asked(self, event: events.ConnectionEvent) -> bool:
        return isinstance(event, events.ConnectionClosed) and self._has_answered and not self.buf


def is_interim(response: Response) -> bool:
    """Whether another answer to the same request follows."""
    return response.status_code in _INTERIM and response.status_code != _SWITCHING


_read_request_line: Final[Any] = read._read_request_line  # noqa: SLF001
_URL_LINE: Final = re.compile(rb"(\S+\s+(?i:https?)://[^\s/?#]+)([/?]\S*)(\s+\S+)")


def read_request_line(line: bytes) -> tuple[object, ...]:
    """As mitmproxy does; the host in a URL ends at `?` as well (RFC 3986 §3.2), and what follows may be any octets."""
    url_line = _URL_LINE.fullmatch(line)
    if url_line is None:
        return tuple(_read_request_line(line))
    before, path, after = url_line.groups()
    *first, _, version = _read_request_line(before + b"/" + after)
    return (*first, path if path.startswith(b"/") else b"/" + path, version)


_read_response_head: Final[Any] = http1.read_response_head


def read_response_head(lines: list[bytes]) -> Response:
    """As mitmproxy does, and makes unambiguous what every client reads alike; mitmproxy would refuse it."""
    response: Response = _read_response_head(lines)
    fields = [(name.rstrip(b" \t"), value) for name, value in response.headers.fields]  # RFC 9112 §5.1
    headers = response.headers = Headers(fields)
    if headers.get("transfer-encoding", "").strip().lower() == "identity":  # RFC 2616 §3.6
        del headers["transfer-encoding"]
    lengths = {each.strip() for each in headers.get("content-length", "").split(",")}
    if "transfer-encoding" in headers:  # RFC 9112 §6.3
        headers.pop("content-length", None)
    elif len(headers.get_all("content-length")) and len(lengths) == 1:  # RFC 9110 §8.6
        headers["content-length"] = lengths.pop()
    return response


_parse_authority: Final[Any] = url.parse_authority
_is_valid_host: Final[Any] = check.is_valid_host


def parse_authority(authority: bytes | str, check: bool) -> tuple[str, int | None]:
    """As mitmproxy does, but A-labels stay as they are: policy, resolver and origin read those (RFC 5890 §2.3.2.1)."""
    if isinstance(authority, bytes) and authority.isascii():
        authority = authority.decode("ascii")
    found: tuple[str, int | None] = _parse_authority(authority, check)
    return found


def is_valid_host(host: bytes | str) -> bool:
    """As mitmproxy does, and A-labels that IDNA 2003 does not know are valid, too."""
    name = host.encode("utf-8", "surrogateescape") if isinstance(host, str) else host
    return is_host_name(name) or bool(_is_valid_host(host))


read._read_request_line = read_request_line  # type: ignore[assignment] # noqa: SLF001
http1.read_response_head = read_response_head
url.parse_authority = parse_authority
url.is_valid_host = check.is_valid_host = is_valid_host  # type: ignore[attr-defined]
http.Http1Server = Http1Server  # type: ignore[attr-defined]
http.Http1Client = Http1Client  # type: ignore[attr-defined]
