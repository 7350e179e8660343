"""mitmproxy's HTTP with what a filter at the front has to add: bounded buffers, and tunnels that are not HTTP any more.

mitmproxy keeps a tunnel inside the HTTP stream that asked for it, where the end of one direction closes both; it
buffers heads and pipelined requests without limit; it takes a 1xx for the answer, and says 100 in a server's place; it
tells a client of the end of an answer only once its request has ended: one that is refused an upload (413) would wait.
`Talk` is mitmproxy's HTTP layer with classes of ours inside.
"""
# mypy: disallow-untyped-calls=False

import contextlib
from dataclasses import dataclass
from typing import Final

from h2.errors import ErrorCodes
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http, tls
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    RequestProtocolError,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._http1 import Http1Connection

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.layers.failures import CLIENT_CERTIFICATE, WANT_CERTIFICATES, told
from tokgate.mitm.layers.http1 import EndOfDirection, Http1Client, Http1Server, is_interim, readable
from tokgate.mitm.layers.http2 import GetHttpConnection, Http2Client, Http2Server, MayGoOn, Reset
from tokgate.mitm.layers.relay import RefusalLayer
from tokgate.mitm.layers.tls import ServerTLSLayer, is_orderly
from tokgate.traffic.limits import Limits

GONE: Final = "tokgate-gone"
"""In a flow's metadata, once its client has reset the stream while a hook was asked."""
_CONTINUE: Final = 100
HALF_CLOSED: Final = Limits().half_closed
"""Seconds without an octet after which a client that has said all is taken for gone."""
_GOAWAY: Final = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")
"""The frame that lets no stream begin and ends none: NO_ERROR, last stream 2^31-1 (RFC 9113 §6.8)."""


@dataclass(repr=False)
class TakeOver(commands.Command):
    """Asks the HttpConnectionLayer to put `layer` in its own place; `replay` are the events that it begins with.

    More of them may be added until the event at hand has been dealt with.
    """

    layer: layer.Layer
    replay: list[events.Event]


class HttpStream(http.HttpStream):
    """mitmproxy's, with interim answers passed on, and the end of an answer where it comes early."""

    _expecting: tuple[tuple[bytes, bytes], ...] | None = None
    """The fields of a request that expects a 100, if its server is to say whether it wants the body; until it does."""

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; hooks can tell that nobody waits for their answer."""
        if isinstance(event, RequestProtocolError) and self._paused and hasattr(self, "flow"):
            self.flow.metadata[GONE] = True
        for command in super().handle_event(event):
            if isinstance(command, http.SendHttp) and isinstance(command.event, ResponseProtocolError):
                flow = getattr(self, "flow", None)
                if flow is not None and flow.server_conn in WANT_CERTIFICATES:
                    command.event.message = CLIENT_CERTIFICATE
                request = None if flow is None else flow.request
                command.event = told(command.event, request, self.context.client.id)
            yield command

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """As mitmproxy's, which says 100 itself: not where the body passes as it comes (RFC 9110 §10.1.1).

        A request to the proxy that names its host in the Host field alone goes there, also by an A-label.
        """
        request, secure = event.request, self.context.client.tls
        by_field = self.mode is HTTPMode.regular and not request.host
        if by_field and (found := readable((request.host_header or "").encode())):
            request.data.host, request.data.port = found[0], found[1] or (443 if secure else 80)
            request.data.scheme = b"https" if secure else b"http"
        going_on, reply = super().state_wait_for_request_headers(event), None
        with contextlib.suppress(StopIteration):
            while True:
                command = going_on.send(reply)
                interim = isinstance(command, http.SendHttp) and isinstance(command.event, ResponseHeaders)
                if interim and is_interim(command.event.response) and self.flow.request.stream and not event.end_stream:
                    self._expecting, reply = self.flow.request.headers.fields, None
                else:
                    reply = yield command

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, and none that its server leaves."""
        request, server = self.flow.request, self.flow.server_conn
        target, secure = (request.host, request.port), request.scheme == "https"
        connection, error = yield GetHttpConnection(target, secure, server.via, server.transport_protocol)
        if error:
            failed = ResponseProtocolError(self.stream_id, error, ErrorCode.CONNECT_FAILED)
            yield from self.handle_protocol_error(failed)
            return False
        self.context.server = self.flow.server_conn = connection
        return True

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """As mitmproxy's, with the expectation that it has removed."""
        if self._expecting is not None:
            self.flow.request.headers.fields = self._expecting
        yield from super().start_request_stream()

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> layer.CommandGenerator[None]:
        """As mitmproxy's; a 1xx goes to the client, and the answer is still waited for."""
        if is_interim(event.response):
            if event.response.status_code == _CONTINUE:
                self._expecting = None
            yield http.SendHttp(ResponseHeaders(self.stream_id, event.response), self.context.client)
        else:
            yield from super().state_wait_for_response_headers(event)

    def send_response(self, already_streamed: bool = False) -> layer.CommandGenerator[None]:
        """As mitmproxy's; the end comes again with that of the request, and then changes nothing.

        A server of HTTP/1 that has not said 100 wants no body (RFC 9110 §10.1.1). Once its connection has ended a
        client of HTTP/2 hears so: curl would send the body all the same, and fail.
        """
        yield from super().send_response(already_streamed)
        if self._is_answered_early:
            yield http.SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
            client, server = self.context.client, self.context.server
            if self._expecting is not None and client.alpn == b"h2" != server.alpn:
                unwanted = RequestProtocolError(self.stream_id, "no body is wanted", ErrorCode.CANCEL)
                yield http.SendHttp(unwanted, server)

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """As mitmproxy's; of a server that has answered, the client hears that it wants no more of the request."""
        if isinstance(event, ResponseProtocolError) and self._is_answered_early:
            event = Reset(self.stream_id, ErrorCodes.NO_ERROR)
        yield from super().handle_protocol_error(event)

    @property
    def _is_answered_early(self) -> bool:
        early = (self.state_consume_request_body, self.state_stream_request_body)
        return self.server_state == self.state_done and self.client_state in early


class HttpConnectionLayer(layer.Layer):
    """mitmproxy's HTTP layer, until a layer inside takes the connection over. It doesn't show in the stack.

    A client of HTTP/2 whose connection is to close is told so here; over HTTP/1 `Connection: close` says it.
    """

    def __init__(self, context: Context, mode: HTTPMode, connection: ClientConnection) -> None:
        super().__init__(context)
        self._connection: Final = connection
        self._has_sent_goaway = False
        self._cut: Connection | None = None
        """This side sent more than may wait; what else it sends is thrown away until it notices."""
        context.layers.remove(self)
        self._talk: Final = Talk(context, mode, connection)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection is self._cut:
            return
        if isinstance(event, events.ConnectionClosed):
            self._note_end(event)
        successor: TakeOver | None = None
        for command in self._talk.handle_event(event):
            if isinstance(command, TakeOver):
                successor = command
            elif not self._breaks_off(command):
                yield command
        yield from self._keep_pace()
        client = self._talk.connections.get(self.context.client)
        if self._connection.closes_next and isinstance(client, Http2Server) and not self._has_sent_goaway:
            self._has_sent_goaway = True
            yield commands.SendData(self.context.client, _GOAWAY)
        if self._connection.smuggled is not None:
            successor = yield from self._cut_off(self._connection.smuggled)
        if successor is not None:
            self._handle_event = successor.layer.handle_event  # type: ignore[method-assign]
            self._connection.budgets.unread.release(self._connection.id)
            for replayed in successor.replay:
                yield from successor.layer.handle_event(replayed)
        elif isinstance(event, events.DataReceived) and not self._may_wait(event.connection):
            self._cut = event.connection
            # A command would cancel mitmproxy's task, which then may leave the socket open.
            if not self._connection.sockets.reset(event.connection):
                yield commands.CloseConnection(event.connection)

    def _cut_off(self, answer: bytes) -> layer.CommandGenerator[TakeOver]:
        """Nothing of the request that hid in a body has gone on, and nothing more will."""
        client = self._talk.connections.get(self.context.client)
        for end in self._talk.connections:
            if end is not self.context.client and end.state is not ConnectionState.CLOSED:
                yield commands.CloseConnection(end)
        answerable = isinstance(client, Http1Server) and client.response is None
        return TakeOver(RefusalLayer(self.context, answer if answerable else b""), [events.Start()])

    def _note_end(self, event: events.ConnectionClosed) -> None:
        """Tell who speaks HTTP/1 how a side has ended."""
        talk = self._talk
        talker = _talker(talk, event.connection)
        if not isinstance(talker, Http1Server | Http1Client):
            return
        layers = (*self.context.layers, *_layers(talk, event.connection))
        talker.broke_off = not is_orderly(event.connection, layers, self._connection.sockets)
        if isinstance(talker, Http1Server):
            self._connection.sockets.end_when_quiet(HALF_CLOSED)
        for other in (_talker(talk, end) for end in talk.connections if end is not event.connection):
            if isinstance(other, Http1Server | Http1Client) and talker.request is not None:
                other.cut_short = talker.broke_off

    def _breaks_off(self, command: commands.Command) -> bool:
        """Break the client's connection off in the place of an end that would mean, over TCP, that this is all."""
        end = self.context.client
        if type(command) is not commands.CloseConnection or command.connection != end or end.tls:
            return False
        client = _talker(self._talk, end)
        if not isinstance(client, Http1Server) or client.response is None or client.response_done:
            return False
        return client.cut_short and self._connection.sockets.reset(end)

    def _keep_pace(self) -> layer.CommandGenerator[None]:
        """Have each side send only what the other takes, and end where the other has ended."""
        talk, client = self._talk, _talker(self._talk, self.context.client)
        if any(end.alpn == b"h2" for end in talk.connections):  # else TCP sees to it
            yield from self._open_windows()
        if not isinstance(client, Http1Server) or not client.ended or client.buf:
            return
        for end, its_layer in list(talk.connections.items()):  # the server says whether it answers all the same
            talker = _talker(talk, end)
            if isinstance(talker, Http1Client) and talker.request_done and end.state is ConnectionState.OPEN:
                yield from talk.event_to_child(its_layer, EndOfDirection(client.stream_id))

    def _open_windows(self) -> layer.CommandGenerator[None]:
        """Let senders go on where the other side has taken what they sent: over HTTP/1 they are read on from."""
        talk, client = self._talk, _talker(self._talk, self.context.client)

        def client_has_room(stream: int) -> bool:
            return not isinstance(client, Http2Server) or client.h2_conn.has_room(stream)

        def server_has_room(stream: int) -> bool:
            server = _talker(talk, talk.streams[stream].context.server) if stream in talk.streams else None
            return not isinstance(server, Http2Client) or server.has_room(stream)

        paused = set()
        for end, its_layer in list(talk.connections.items()):
            talker = _talker(talk, end)
            has_room = server_has_room if end is self.context.client else client_has_room
            if isinstance(talker, Http1Connection):
                waits = talker.stream_id is not None and not has_room(talker.stream_id)
            else:
                waits = isinstance(talker, Http2Server) and talker.is_behind
            if waits:
                paused.add(end)
            elif isinstance(talker, Http2Server | Http2Client) and talker.h2_conn.waits:
                yield from talk.event_to_child(its_layer, MayGoOn(has_room))
        self._connection.sockets.pause(paused)

    def _may_wait(self, end: Connection) -> bool:
        """Whether what one side has sent, and HTTP/1 has not yet made sense of, may wait for that."""
        talker, unread = _talker(self._talk, end), self._connection.budgets.unread
        octets = len(talker.buf) if isinstance(talker, Http1Connection) else 0  # HTTP/2 has limits of its own
        if end is not self.context.client:
            return octets <= unread.limits.response_head
        return octets <= unread.limits.head and unread.hold(self._connection.id, self._connection.client.ip, octets)


def _talker(talk: HttpLayer, end: Connection) -> layer.Layer | None:
    """The layer that speaks HTTP with one side: within one that encrypts, where it has one."""
    return next(reversed(_layers(talk, end)), None)


def _layers(talk: HttpLayer, end: Connection) -> list[layer.Layer]:
    found: list[layer.Layer] = []
    inner: layer.Layer | None = talk.connections.get(end)
    while inner is not None:
        found.append(inner)
        inner = getattr(inner, "child_layer", None)
    return found


class HttpClient(http.HttpClient):
    """mitmproxy's, which opens a connection to a server, with our protocols on it."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        server = self.context.server
        error = None if server.connected else (yield commands.OpenConnection(server))
        if not error:
            self.child_layer = _client_of(self.context)
            self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]
            yield from self._handle_event(event)
        yield http.RegisterHttpConnection(server, error)


class Talk(HttpLayer):
    """mitmproxy's HTTP layer, with our classes for connections and streams in the place of those that it makes."""

    def __init__(self, context: Context, mode: HTTPMode, connection: ClientConnection) -> None:
        super().__init__(context, mode)
        self._connection: Final = connection

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        client, server = self.context.client, self.context.server
        if isinstance(event, events.Start):
            fork = self.context.fork()
            talker = Http2Server(fork, self._connection) if client.alpn == b"h2" else Http1Server(fork)
            self.connections.setdefault(client, talker)
        elif isinstance(event, events.DataReceived) and event.connection == server and server not in self.connections:
            self.connections[server] = _client_of(self.context.fork())
            yield from self.event_to_child(self.connections[server], events.Start())
        yield from super()._handle_event(event)

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """As mitmproxy's, of our class."""
        self.streams[stream_id] = HttpStream(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def event_to_child(self, child: layer.Layer, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; `get_connection` plans a connection's layers itself, and begins them by this: ours begin."""
        if isinstance(event, events.Start) and type(child) in (tls.ServerTLSLayer, http.HttpClient):
            context, stack = child.context, tunnel.LayerStack()
            del context.layers[context.layers.index(child) :]
            if isinstance(child, tls.ServerTLSLayer):
                stack /= ServerTLSLayer(context)
            stack /= HttpClient(context)
            child = self.connections[context.server] = stack[0]
        yield from super().event_to_child(child, event)


def _client_of(context: Context) -> layer.Layer:
    return (Http2Client if context.server.alpn == b"h2" else Http1Client)(context)
