"""mitmproxy's HTTP with what a filter at the front has to add: bounded buffers, and tunnels that are not HTTP any more.

mitmproxy keeps a tunnel inside the HTTP stream that asked for it, where the end of one direction closes both; and it
buffers heads and pipelined requests without limit.
"""

from dataclasses import dataclass
from typing import Final

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpClient, HttpLayer, HTTPMode
from mitmproxy.proxy.layers.http._http1 import Http1Connection
from mitmproxy.proxy.layers.http._http2 import Http2Server

from tokgate.proxy.visit import Visit

MAX_UNREAD: Final = 1 << 18
"""Octets of one side that may wait to be understood: a head, or requests sent ahead of their turn."""
_GOAWAY: Final = bytes.fromhex("000008 07 00 00000000 7fffffff 00000000")
"""The frame that lets no stream begin and ends none: NO_ERROR, last stream 2^31-1 (RFC 9113 §6.8)."""


@dataclass(repr=False)
class TakeOver(commands.Command):
    """Asks the HttpFront to put `layer` in its own place; `replay` are the events that it begins with.

    More of them may be added until the event at hand has been dealt with.
    """

    layer: layer.Layer
    replay: list[events.Event]


class HttpFront(layer.Layer):
    """mitmproxy's HTTP layer, until a layer inside takes the connection over. It doesn't show in the stack.

    A client of HTTP/2 that is to leave is told so here; over HTTP/1 the response's `Connection: close` says it.
    """

    def __init__(self, context: Context, mode: HTTPMode, visit: Visit) -> None:
        super().__init__(context)
        self._visit: Final = visit
        self._asked_to_leave = False
        context.layers.remove(self)
        self._http: HttpLayer | None = HttpLayer(context, mode)
        self._inner: layer.Layer = self._http

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        successor: TakeOver | None = None
        for command in self._inner.handle_event(event):
            if isinstance(command, TakeOver):
                successor = command
            else:
                yield command
        if self._visit.leaving:
            yield from self._ask_to_leave()
        if successor is not None:
            self._inner, self._http = successor.layer, None
            for replayed in successor.replay:
                yield from self._inner.handle_event(replayed)
        elif isinstance(event, events.DataReceived) and self._unread(event.connection) > MAX_UNREAD:
            yield commands.CloseConnection(event.connection)

    def _ask_to_leave(self) -> layer.CommandGenerator[None]:
        """A browser finishes what it has begun, and goes on with other connections."""
        talker = self._http.connections.get(self.context.client) if self._http is not None else None
        if not self._asked_to_leave and isinstance(talker, Http2Server):
            self._asked_to_leave = True
            yield commands.SendData(self.context.client, _GOAWAY)

    def _unread(self, end: Connection) -> int:
        """What one side has sent and mitmproxy's HTTP/1 has not yet made sense of; HTTP/2 has limits of its own."""
        talker = self._http.connections.get(end) if self._http is not None else None
        if isinstance(talker, HttpClient):
            talker = getattr(talker, "child_layer", None)
        return len(talker.buf) if isinstance(talker, Http1Connection) else 0
