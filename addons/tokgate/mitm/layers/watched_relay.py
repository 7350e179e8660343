"""Relays a connection whose client, under a ban, may still name its destination after the server has answered."""
# mypy: disallow-untyped-calls=False

from collections.abc import Callable
from typing import Final

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from tokgate.mitm.layers.passthrough import PassthroughLayer, RefusalLayer
from tokgate.mitm.layers.raw_sockets import ClientSockets
from tokgate.traffic.actions import Pass, Refuse
from tokgate.traffic.admission import Admission
from tokgate.traffic.client_messages import Reader, Watched, after
from tokgate.traffic.seen import FirstBytes
from tokgate.wire.hello_reader import MAX_ANSWER


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
        if isinstance(event, events.ConnectionClosed) and event.connection == self.context.client and self._held:
            if self._sockets.was_reset(event.connection):
                yield from super()._handle_event(event)
            self._ended = True
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
        seen = reader.feed(data)
        if seen is None and self._ended:
            seen = reader.ended()
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
