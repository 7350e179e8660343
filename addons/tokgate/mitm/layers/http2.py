"""mitmproxy's HTTP/2 with what it leaves out: flow control, 1xx, servers that leave, and streams they don't take up.

mitmproxy takes two gigabytes from a side whatever the other side takes, ends all that is under way at GOAWAY, which
servers send after so many requests, and answers with 502 what clients would ask again. `http.Talk` makes these classes
for our connections.
"""
# mypy: disallow-untyped-calls=False

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakSet

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame
from mitmproxy.connection import Connection
from mitmproxy.http import Response
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http2 as original
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestHeaders, ResponseHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from tokgate.mitm.layers.http1 import PLACE, readable

STREAM_WINDOW: Final = 1 << 20
"""Octets of a stream that one side may send before the other side takes them (RFC 9113 §5.2)."""
CONNECTION_WINDOW: Final = 16 << 20
"""The same of all streams of a connection."""
_WAITING: Final = STREAM_WINDOW // 4
"""Octets of a stream that wait for the other side, from which on its sender's window stays as it is."""
_LEAVING: Final[WeakSet[Connection]] = WeakSet()
"""Connections to servers that take no more requests on them."""


class GetHttpConnection(http.GetHttpConnection):
    """mitmproxy's request for a connection; one that its server leaves is none to use again."""

    def connection_spec_matches(self, connection: Connection) -> bool:
        return connection not in _LEAVING and super().connection_spec_matches(connection)


class NotTakenUp(ResponseProtocolError):
    """A server has done nothing about a request: the client may ask again, whatever it was (RFC 9113 §8.7)."""

    def __init__(self, stream_id: int) -> None:
        super().__init__(stream_id, "the server did not take up the request", ErrorCode.PASSTHROUGH_CLOSE)


class _ServerLeaves(h2.events.Event):
    """GOAWAY, which hyper-h2 would take for the end of all streams."""

    def __init__(self, last_stream_id: int) -> None:
        self.last_stream_id: Final = last_stream_id


class FlowControl(BufferedH2Connection):
    """mitmproxy's state of a connection, with windows that open as the other side takes what came."""

    def __init__(self, config: h2.config.H2Configuration) -> None:
        super().__init__(config)
        self.local_settings.initial_window_size = STREAM_WINDOW
        self.local_settings.acknowledge()
        self._owed: Final[Counter[int]] = Counter()
        """Octets by stream that came and were not acknowledged yet."""

    def initiate_connection(self) -> None:
        h2.connection.H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Only note it: `acknowledge` does it."""
        self._owed[stream_id] += acknowledged_size

    @property
    def waits(self) -> bool:
        """Whether there is something to acknowledge."""
        return bool(self._owed)

    def acknowledge(self, has_room: Callable[[int], bool]) -> bytes:
        """Open the windows of streams for which the other side has room; the frames that say so, if any."""
        for stream in [each for each in self._owed if has_room(each)]:
            super().acknowledge_received_data(self._owed.pop(stream), stream)
        return bytes(self.data_to_send())

    def has_room(self, stream_id: int) -> bool:
        """Whether little of a stream waits for the peer to take it."""
        return sum(len(each.data) for each in self.stream_buffers.get(stream_id, ())) < _WAITING


class MayGoOn(HttpEvent):
    """The peer of a connection may send more on streams for which the other side has room, by the client's numbers."""

    def __init__(self, has_room: Callable[[int], bool]) -> None:
        super().__init__(0)
        self.has_room: Final = has_room


class Http2Server(original.Http2Server):
    """mitmproxy's HTTP/2 server side; tells clients what was not taken up."""

    h2_conn: FlowControl

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.h2_conn = FlowControl(self.h2_conf)

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, with the authority as it was sent."""
        fields = dict(event.headers or ()) if isinstance(event, h2.events.RequestReceived) else {}
        authority = bytes(fields.get(b":authority", b""))
        found = readable(authority) if authority else None
        if found is None or not isinstance(event, h2.events.RequestReceived):
            return (yield from super().handle_h2_event(event))
        event.headers = [(name, PLACE if name == b":authority" else value) for name, value in event.headers or ()]
        going_on = super().handle_h2_event(event)
        while True:
            try:
                command = next(going_on)
            except StopIteration as end:
                return bool(end.value)
            if isinstance(command, ReceiveHttp) and isinstance(command.event, RequestHeaders):
                data = command.event.request.data
                data.authority, data.host, data.port = authority, found[0], found[1] or data.port
            yield command

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, NotTakenUp):
            if not self.is_closed(event.stream_id):
                self.h2_conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        elif isinstance(event, MayGoOn):
            if opened := self.h2_conn.acknowledge(event.has_room):
                yield commands.SendData(self.conn, opened)
        else:
            yield from super()._handle_event(event)


class Http2Client(original.Http2Client):
    """mitmproxy's HTTP/2 client side; finishes what a server that leaves has taken up (RFC 9113 §6.8)."""

    h2_conn: FlowControl

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.h2_conn = FlowControl(self.h2_conf)
        self.h2_conn.local_settings.enable_push = 0  # as mitmproxy's
        self.h2_conn.local_settings.acknowledge()
        self._not_taken_up: list[int] = []
        dispatch: dict[Any, Any] = self.h2_conn._frame_dispatch_table  # noqa: SLF001
        dispatch[GoAwayFrame] = lambda frame: ([], [_ServerLeaves(frame.last_stream_id)])

    def has_room(self, stream_id: int) -> bool:
        """Whether little of a request waits for the server; `stream_id` is the client's."""
        ours = self.our_stream_id.get(stream_id)
        return stream_id not in self.stream_queue if ours is None else self.h2_conn.has_room(ours)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, MayGoOn):
            opened = self.h2_conn.acknowledge(lambda ours: event.has_room(self.their_stream_id[ours]))
            if opened:
                yield commands.SendData(self.conn, opened)
            return
        yield from super()._handle_event(event)
        while self._not_taken_up:
            yield ReceiveHttp(NotTakenUp(self._not_taken_up.pop()))

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, with what it swallows or takes for an error."""
        match event:
            case _ServerLeaves(last_stream_id=last):
                _LEAVING.add(self.conn)
                self._not_taken_up += [self.their_stream_id[ours] for ours in self.streams if ours > last]
                self._not_taken_up += self.stream_queue
                self.streams = {ours: state for ours, state in self.streams.items() if ours <= last}
                self.stream_queue.clear()
                return False
            case h2.events.StreamReset(error_code=ErrorCodes.REFUSED_STREAM) if event.stream_id in self.streams:
                self.streams.pop(event.stream_id)
                self._not_taken_up.append(self.their_stream_id[event.stream_id])
                return False
            case h2.events.InformationalResponseReceived():
                status, headers = original.parse_h2_response_headers(event.headers)
                now = time.time()
                interim = Response(b"HTTP/2.0", status, b"", headers, None, None, now, None)
                yield ReceiveHttp(ResponseHeaders(event.stream_id, interim, end_stream=False))
                return False
        is_over: bool = yield from super().handle_h2_event(event)
        if isinstance(event, h2.events.StreamEnded):  # what follows is about the rest of the request, which is nobody's
            self.streams.pop(event.stream_id, None)
        return is_over
