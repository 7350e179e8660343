"""mitmproxy's HTTP/2 with what it leaves out: 1xx, servers that leave, and streams that a server didn't take up.

mitmproxy ends all that is under way at GOAWAY, which servers send after so many requests, and answers with 502 what
clients would ask again. Importing this module puts these classes in the place of mitmproxy's own, which it finds by
their names.
"""
# mypy: disallow-untyped-calls=False

import time
from typing import Any, Final
from weakref import WeakSet

import h2.events
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame
from mitmproxy.connection import Connection
from mitmproxy.http import Response
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http
from mitmproxy.proxy.layers.http import _http2 as original
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseHeaders, ResponseProtocolError

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


class Http2Server(original.Http2Server):
    """mitmproxy's HTTP/2 server side; tells clients what was not taken up."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, NotTakenUp):
            if not self.is_closed(event.stream_id):
                self.h2_conn.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
                yield commands.SendData(self.conn, self.h2_conn.data_to_send())
        else:
            yield from super()._handle_event(event)


class Http2Client(original.Http2Client):
    """mitmproxy's HTTP/2 client side; finishes what a server that leaves has taken up (RFC 9113 §6.8)."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._not_taken_up: list[int] = []
        dispatch: dict[Any, Any] = self.h2_conn._frame_dispatch_table  # noqa: SLF001
        dispatch[GoAwayFrame] = lambda frame: ([], [_ServerLeaves(frame.last_stream_id)])

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
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


http.GetHttpConnection = GetHttpConnection  # type: ignore[misc]
http.Http2Server = Http2Server  # type: ignore[attr-defined]
http.Http2Client = Http2Client  # type: ignore[attr-defined]
