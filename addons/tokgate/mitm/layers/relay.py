"""Layers for decisions that need no protocol: relay octets unread, watch what a client says next, or refuse."""
# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from typing import Final

from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.traffic.actions import Pass, Refuse
from tokgate.traffic.admission import Admission
from tokgate.traffic.client_messages import Reader, Watched, after
from tokgate.traffic.seen import FirstBytes
from tokgate.wire.hello_reader import MAX_ANSWER

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
    """Sends an answer, ends its own direction, and reads on until the client closes: a reset could discard the answer.

    Nothing ever goes to the destination.
    """

    def __init__(self, context: Context, answer: bytes) -> None:
        super().__init__(context)
        self.answer: Final = answer

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        client = self.context.client
        if isinstance(event, events.Start):
            if self.answer:
                yield commands.SendData(client, self.answer)
            yield commands.CloseTcpConnection(client, half_close=True)
            yield commands.RequestWakeup(LINGER)
        elif client.state is not ConnectionState.CLOSED and (
            isinstance(event, events.Wakeup)
            or (isinstance(event, events.ConnectionClosed) and event.connection == client)
        ):
            yield commands.CloseConnection(client)


class WatchedLayer(PassthroughLayer):
    """Passes the first words on, and what follows once it can make no difference any more, or was decided about."""

    def __init__(
        self,
        context: Context,
        sockets: ClientSockets,
        watched: Watched,
        decide: Callable[[FirstBytes], tuple[Admission, bytes]],
    ) -> None:
        """`decide` decides about what is said next and records it; with what a refusal is worded in."""
        super().__init__(context, sockets)
        self._watched = watched
        self._decide: Final = decide
        self._answer = bytearray()
        self._held = bytearray(watched.rest)
        self._begun = False
        self._ended = False
        """Whether the client's end waits behind what is held."""
        self._reader: Reader | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        begun = self._held or (self._reader and self._reader.received)
        ended = isinstance(event, events.ConnectionClosed) and event.connection == self.context.client
        if ended and begun and not self._sockets.was_reset(self.context.client):
            self._ended = True
            if self._reader is not None:
                yield from self._read(self._reader, b"")
        elif not isinstance(event, events.DataReceived):
            yield from super()._handle_event(event)
        elif event.connection == self.context.server:
            yield commands.SendData(self.context.client, event.data)
            if self._reader is None:
                yield from self._hear(event.data)
        elif not self._begun:
            self._begun = True
            yield from super()._handle_event(event)
        elif self._reader is not None:
            yield from self._read(self._reader, event.data)
        else:
            self._held += event.data
            if not self._watched.waits(self._held):
                yield from self._go_on(self._held)
            elif not self._watched.for_answer:
                self._reader, self._held = self._watched.reader(), bytearray()
                yield from self._read(self._reader, event.data)

    def _hear(self, data: bytes) -> layer.CommandGenerator[None]:
        """Handle the server's answer to the client's first message."""
        self._answer += data[: MAX_ANSWER - len(self._answer)]
        asked = self._watched.asked(self._answer)
        if asked:
            self._reader = self._watched.reader()
            if self._held:
                yield from self._read(self._reader, bytes(self._held))
        elif asked is False:
            yield from self._go_on(self._held)

    def _read(self, reader: Reader, data: bytes) -> layer.CommandGenerator[None]:
        """Handle the client's bytes after that answer."""
        seen = reader.feed(data) or (reader.ended() if self._ended else None)
        if seen is None:
            return
        admission, words = self._decide(seen)
        match admission.action:
            case Pass(watch=watch):
                again = after(seen, reader.received) if watch else None
                if again is None:
                    yield from self._go_on(reader.received)
                    return
                passed = len(reader.received) - len(again.rest)
                yield commands.SendData(self.context.server, bytes(reader.received[:passed]))
                self._watched, self._held, self._answer, self._reader = again, bytearray(again.rest), bytearray(), None
                if not self._held:
                    yield from self._end()
            case Refuse():
                yield from self._refuse(words)
            case _:  # nothing can be opened any more
                yield from self._refuse(b"")

    def _go_on(self, held: bytearray) -> layer.CommandGenerator[None]:
        """Stop watching and relay all further bytes unread."""
        self._handle_event = super()._handle_event  # type: ignore[method-assign]
        if held:
            yield commands.SendData(self.context.server, bytes(held))
        yield from self._end()

    def _end(self) -> layer.CommandGenerator[None]:
        """Pass the client's end on, if it waited."""
        if self._ended and self.context.server.state & ConnectionState.CAN_WRITE:
            yield commands.CloseTcpConnection(self.context.server, half_close=True)

    def _refuse(self, words: bytes) -> layer.CommandGenerator[None]:
        yield commands.CloseConnection(self.context.server)
        successor = RefusalLayer(self.context, words)
        self._handle_event = successor.handle_event  # type: ignore[method-assign]
        yield from successor.handle_event(events.Start())
