"""Layers for decisions that need no protocol: relay bytes unread, or refuse."""

from typing import Final

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from tokgate.mitm.layers.raw_sockets import ClientSockets

LINGER: Final = 2.0
"""Seconds in which a refused client may read the refusal and close, before the connection is cut."""


class PassthroughLayer(layer.Layer):
    """Connects to the destination and carries bytes both ways. The end of one direction leaves the other open."""

    def __init__(self, context: Context, sockets: ClientSockets) -> None:
        super().__init__(context)
        self._sockets: Final = sockets

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        client, server = self.context.client, self.context.server
        if isinstance(event, events.Start):
            if server.timestamp_start is None:
                error = yield commands.OpenConnection(server)
                if error:
                    yield commands.CloseConnection(client)
            self._sockets.separate()
        elif isinstance(event, events.DataReceived):
            other = self._opposite(event.connection)
            if other.state & ConnectionState.CAN_WRITE:  # not to a destination that can't be reached
                yield commands.SendData(other, event.data)
        elif isinstance(event, events.ConnectionClosed):
            if self._sockets.was_reset(event.connection):
                self._sockets.reset(self._opposite(event.connection))
                yield from self._close()
            elif (client.state | server.state) & ConnectionState.CAN_READ:
                yield commands.CloseTcpConnection(self._opposite(event.connection), half_close=True)
            else:
                yield from self._close()

    def _close(self) -> layer.CommandGenerator[None]:
        for end in (self.context.server, self.context.client):
            if end.state is not ConnectionState.CLOSED:
                yield commands.CloseConnection(end)

    def _opposite(self, end: Connection) -> Connection:
        return self.context.server if end == self.context.client else self.context.client


class RefusalLayer(layer.Layer):
    """Sends a last word, ends its own direction, and reads on until the client closes: a reset could eat the word.

    Nothing ever goes to the destination.
    """

    def __init__(self, context: Context, last_word: bytes) -> None:
        super().__init__(context)
        self.last_word: Final = last_word

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        client = self.context.client
        if isinstance(event, events.Start):
            if self.last_word:
                yield commands.SendData(client, self.last_word)
            yield commands.CloseTcpConnection(client, half_close=True)
            yield commands.RequestWakeup(LINGER)
        elif isinstance(event, events.ConnectionClosed | events.Wakeup) and client.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(client)
