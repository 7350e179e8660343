"""mitmproxy's HTTP/2 with what it leaves out: flow control, 1xx, servers that leave, and streams they don't take up.

mitmproxy takes two gigabytes from a side whatever the other side takes, ends all that is under way at GOAWAY, which
servers send after so many requests, and answers with 502 what clients would ask again. `http.Talk` makes these classes
for our connections.
"""
# mypy: disallow-untyped-calls=False

import time
from collections import Counter
from collections.abc import Buffer, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, PingFrame, PriorityFrame, SettingsFrame
from mitmproxy.connection import Client, Connection
from mitmproxy.http import Response
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http2 as original
from mitmproxy.proxy.layers.http._base import HttpEvent, ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, RequestHeaders, ResponseHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.layers.failures import FailedExchange
from tokgate.mitm.layers.http1 import PLACE, readable

STREAM_WINDOW: Final = 1 << 20
"""Octets of a stream that one side may send before the other side takes them (RFC 9113 §5.2)."""
CONNECTION_WINDOW: Final = 16 << 20
"""The same of all streams of a connection."""
_WAITING: Final = STREAM_WINDOW // 4
"""Octets of a stream that wait for the other side, from which on its sender's window stays as it is."""
AT_ONCE: Final = 32
"""Frames of a client that are read in a turn: nobody can stop hyper-h2 before it has read all that it is given."""
_PREFACE: Final = 24
"""Octets before the first frame of a client (RFC 9113 §3.4)."""
_FRAME_HEAD: Final = 9
_DATA: Final = 0
_IDLE: Final = frozenset({PriorityFrame.type, SettingsFrame.type, PingFrame.type})
_END_OR_ACK: Final = 0x01
"""END_STREAM of DATA; ACK of SETTINGS and PING, which only answers ours."""
_GOING_AWAY: Final[WeakSet[Connection]] = WeakSet()
"""Connections to servers that take no more requests on them."""


class GetHttpConnection(http.GetHttpConnection):
    """mitmproxy's request for a connection; one that its server leaves is none to use again."""

    def connection_spec_matches(self, connection: Connection) -> bool:
        return connection not in _GOING_AWAY and super().connection_spec_matches(connection)


class Reset(ResponseProtocolError):
    """A server wants no more of a request, and its client hears why: it was not taken up, or is answered already.

    REFUSED_STREAM: the client may ask again, whatever it was (RFC 9113 §8.7). NO_ERROR: the answer is whole (§8.1).
    """

    def __init__(self, stream_id: int, reason: int) -> None:
        super().__init__(stream_id, "the server has reset the stream", ErrorCode.PASSTHROUGH_CLOSE)
        self.reason: Final = reason


class _GoAway(h2.events.Event):
    """GOAWAY, which hyper-h2 would take for the end of all streams."""

    def __init__(self, last_stream_id: int) -> None:
        self.last_stream_id: Final = last_stream_id


@dataclass
class FramesTurnHook(commands.StartHook):
    """More frames of a client have come than are read in a turn."""

    data: Client


class Frames:
    """Cuts what a client sends into pieces of a few frames, whatever is in them (RFC 9113 §4.1)."""

    def __init__(self) -> None:
        self._head = bytearray()
        """The beginning of a frame whose length has not come whole."""
        self._left = _PREFACE
        """Octets until the next frame begins."""
        self.idle = 0
        """Frames that ask for nothing and bring nothing, until somebody has counted them."""

    def cut(self, data: bytes) -> Iterator[bytes]:
        at = begun = frames = 0
        while at < len(data):
            passed = min(self._left, len(data) - at)
            self._left -= passed
            at += passed
            if self._left or at == len(data):
                break
            if frames == AT_ONCE:
                yield data[begun:at]
                begun, frames = at, 0
            came = data[at : at + _FRAME_HEAD - len(self._head)]
            self._head += came
            at += len(came)
            if len(self._head) == _FRAME_HEAD:
                self._left, frames = int.from_bytes(self._head[:3]), frames + 1
                kind, ends = self._head[3], self._head[4] & _END_OR_ACK
                self.idle += not ends and (kind in _IDLE or (kind == _DATA and not self._left))
                self._head.clear()
        yield data[begun:]


class FlowControl(BufferedH2Connection):
    """mitmproxy's state of a connection, with windows that open as the other side takes what came."""

    def __init__(self, config: h2.config.H2Configuration) -> None:
        super().__init__(config)
        self.local_settings.initial_window_size = STREAM_WINDOW
        self.local_settings.acknowledge()
        self._owed: Final[Counter[int]] = Counter()
        """Octets by stream that came and were not acknowledged yet."""
        self.reset = self.dropped = 0
        """Streams that the peer has reset of late, and those of them of which nobody has heard."""

    def initiate_connection(self) -> None:
        h2.connection.H2Connection.initiate_connection(self)
        self.increment_flow_control_window(CONNECTION_WINDOW - self.inbound_flow_control_window)

    def acknowledge_received_data(self, acknowledged_size: int, stream_id: int) -> None:
        """Note it only: `acknowledge` does it."""
        self._owed[stream_id] += acknowledged_size

    def receive_data(self, data: Buffer) -> list[h2.events.Event]:
        """As mitmproxy's, without the streams that begin and are reset in it: nobody has to hear of them."""
        events: list[h2.events.Event] = super().receive_data(data)
        reset = {each.stream_id for each in events if isinstance(each, h2.events.StreamReset)}
        self.reset += len(reset)
        gone = reset & {each.stream_id for each in events if isinstance(each, h2.events.RequestReceived)}
        if not gone:
            return events
        self.dropped += len(gone)
        for each in events:
            if isinstance(each, h2.events.DataReceived) and each.stream_id in gone:
                super().acknowledge_received_data(each.flow_controlled_length, each.stream_id)
        return [each for each in events if getattr(each, "stream_id", None) not in gone]

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
    """mitmproxy's HTTP/2 server side; tells clients what was not taken up, and ends those that flood."""

    h2_conn: FlowControl
    is_behind = False
    """Frames that have come wait for the client's turn."""

    def __init__(self, context: Context, connection: ClientConnection) -> None:
        super().__init__(context)
        self.h2_conn = FlowControl(self.h2_conf)
        self._connection: Final = connection
        self._frames: Final = Frames()

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
        if isinstance(event, Reset):
            if not self.is_closed(event.stream_id):
                self.h2_conn.reset_stream(event.stream_id, event.reason)
                yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        elif isinstance(event, MayGoOn):
            if opened := self.h2_conn.acknowledge(event.has_room):
                yield commands.SendData(self.conn, opened)
        elif (
            isinstance(event, FailedExchange)
            and self.is_open_for_us(event.stream_id)
            and not self.h2_conn.streams[event.stream_id].state_machine.headers_sent
        ):
            fields = [(name.lower(), value) for name, value in event.response.headers.fields]
            self.h2_conn.send_headers(event.stream_id, [(b":status", b"%d" % event.response.status_code), *fields])
            self.h2_conn.send_data(event.stream_id, event.response.raw_content or b"", end_stream=True)
            yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        elif isinstance(event, events.DataReceived):
            for number, piece in enumerate(self._frames.cut(event.data)):
                if number:
                    self.is_behind = True
                    yield FramesTurnHook(self.context.client)
                    self.is_behind = False
                if self._handle_event == self.done:
                    return
                yield from super()._handle_event(events.DataReceived(self.conn, piece))
                yield from self._end_flood()
        else:
            yield from super()._handle_event(event)

    def _end_flood(self) -> layer.CommandGenerator[None]:
        """End the connection of a client that does too often what costs it little, in all its connections."""
        budgets, client = self._connection.budgets, self._connection.client.ip
        counted, frames, problem = self.h2_conn, self._frames, None
        if budgets.counters is not None:
            budgets.counters.streams_dropped += counted.dropped
        if counted.reset and not budgets.resets.allow(client, counted.reset):
            problem = "too many streams were reset"
        if frames.idle and not budgets.idle_frames.allow(client, frames.idle):
            problem = "too many frames asked for nothing"
        counted.reset = counted.dropped = frames.idle = 0
        if problem is not None and self._handle_event != self.done:
            if budgets.counters is not None:
                budgets.counters.floods += 1
            yield from self.protocol_error(problem, ErrorCodes.ENHANCE_YOUR_CALM)


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
        dispatch[GoAwayFrame] = lambda frame: ([], [_GoAway(frame.last_stream_id)])

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
            yield ReceiveHttp(Reset(self._not_taken_up.pop(), ErrorCodes.REFUSED_STREAM))

    def handle_h2_event(self, event: h2.events.Event) -> layer.CommandGenerator[bool]:
        """As mitmproxy's, with what it swallows or takes for an error."""
        match event:
            case _GoAway(last_stream_id=last):
                _GOING_AWAY.add(self.conn)
                self._not_taken_up += [self.their_stream_id[ours] for ours in self.streams if ours > last]
                self._not_taken_up += self.stream_queue
                self.streams = {ours: state for ours, state in self.streams.items() if ours <= last}
                self.stream_queue.clear()
                return False
            case h2.events.StreamReset(stream_id=ours, error_code=reason) if (
                reason == ErrorCodes.REFUSED_STREAM or ours not in self.streams
            ):
                self.streams.pop(ours, None)
                yield ReceiveHttp(Reset(ours, reason))
                return False
            case h2.events.InformationalResponseReceived():
                status, headers = original.parse_h2_response_headers(event.headers)
                now = time.time()
                interim = Response(b"HTTP/2.0", status, b"", headers, None, None, now, None)
                yield ReceiveHttp(ResponseHeaders(event.stream_id, interim, end_stream=False))
                return False
        is_over: bool = yield from super().handle_h2_event(event)
        if isinstance(event, h2.events.StreamEnded):  # a reset that follows is about the rest of the request
            self.streams.pop(event.stream_id, None)
        return is_over
