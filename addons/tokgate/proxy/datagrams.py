"""The layer for UDP: a flow of datagrams, decided by its address, and the QUIC connections in it, each by its name.

What passes is carried datagram by datagram and never decrypted; of QUIC only the first flights are read.
"""
# mypy: disallow-untyped-calls=False

from dataclasses import dataclass, field
from typing import Final

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from tokgate.blocklog.observation import Stage, Transport
from tokgate.gate.admission import (
    Admission,
    Arrival,
    Passage,
    admit_by_fallback,
    admit_bytes,
    admit_quic,
    observe,
)
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.explanation import explanation
from tokgate.proxy.visit import Passing, Visit
from tokgate.wire.alert import Alert
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.quic_initial import CRYPTO_ERROR, Initial, Opening, QuicError, close, initials, is_unreadable

IDLE: Final = 180.0
"""Seconds that QUIC may be silent: longer than its usual 30, since what comes later could not be told apart."""
MAX_HELD: Final = 32
"""Datagrams that are held of a connection until its hello is whole; a browser needs two or three."""
MAX_CONNECTIONS: Final = 16
"""QUIC connections that are known of one flow; most have one."""
_CLOSES: Final = 8
"""How often a client that does not hear is told no."""
_QUIC_PORTS: Final = (80, 443)


@dataclass(slots=True)
class _Connection:
    """One QUIC connection; `passage` is None until its hello is whole."""

    opening: Opening
    passage: Passage | None = None
    held: list[bytes] = field(default_factory=list)
    closing: bytes = b""
    closes: int = 0
    broken: bool = False

    def takes(self, packets: tuple[Initial, ...]) -> bool:
        """Whether any packet of a datagram belongs to it; if so, all that do are read.

        Raises QuicError once it is decided, for a hello that is another than the one that was decided about.
        """
        return any([self._takes_one(packet) for packet in packets])  # noqa: C419 - each is to be read

    def _takes_one(self, initial: Initial) -> bool:
        if self.broken:
            return self.opening.fits(initial)
        try:
            return self.opening.reads(initial)
        except QuicError:
            if self.passage is not None:
                raise
            self.broken = True
            return True


class Datagrams(layer.Layer):
    """Carries one flow, once it is decided."""

    def __init__(self, context: Context, enforcer: Enforcer, visit: Visit) -> None:
        super().__init__(context)
        self._enforcer: Final = enforcer
        self._visit: Final = visit
        self._connections: Final[list[_Connection]] = []
        self._rest: Passage | None = None
        """What becomes of datagrams that belong to no connection that was seen to begin."""
        self._unreadable: Passage | None = None
        """What becomes of QUIC in versions that can't be read."""
        self._done = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and not self._done:
            if event.connection == self.context.client:
                self._visit.spoken()
                yield from self._take(event.data)
            else:
                yield commands.SendData(self.context.client, event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._close()

    def _take(self, data: bytes) -> layer.CommandGenerator[None]:
        """One datagram of the client's."""
        found = initials(data)
        if found:
            if any(one.destination != found[0].destination for one in found):
                return  # RFC 9000 §12.2: of one connection only
            try:
                connection = self._belongs_to(found)
            except QuicError:  # under the keys of a connection that passes, as if it were that
                return
            if connection is not None:
                yield from self._advance(connection, data)
            return
        if is_unreadable(data) and self._port in _QUIC_PORTS:
            self._unreadable = self._unreadable or self._admitted(None).passage
            if self._unreadable is Passage.PASS:
                yield from self._forward(data)
            return
        passing = self._rest is Passage.PASS or any(one.passage is Passage.PASS for one in self._connections)
        waiting = next((one for one in reversed(self._connections) if one.passage is None), None)
        if waiting is not None and not passing:
            waiting.held.append(data)  # what follows the first flight, such as early data
            yield from self._advance(waiting, b"")
            return
        if not self._connections and self._rest is None:
            self._rest = self._decide_rest()
            passing = self._rest is Passage.PASS
        if passing:
            yield from self._forward(data)

    def _belongs_to(self, found: tuple[Initial, ...]) -> _Connection | None:
        """The connection whose packets these are; None for what nobody can read, the server included."""
        for connection in self._connections:
            if connection.takes(found):
                return connection
        fresh = _Connection(Opening(found[0]))
        if not fresh.takes(found):
            return None
        self._connections.append(fresh)
        if len(self._connections) > MAX_CONNECTIONS:
            del self._connections[0]
        self._visit.wires.stay(IDLE)
        return fresh

    def _advance(self, connection: _Connection, data: bytes) -> layer.CommandGenerator[None]:
        """Do with a connection's datagram what was decided, or decide if that is possible now."""
        if data:
            connection.held.append(data)
        if connection.passage is None:
            self._decide(connection)
        held, connection.held = connection.held, connection.held if connection.passage is None else []
        if connection.passage is Passage.PASS:
            for datagram in held:
                yield from self._forward(datagram)
        elif connection.passage is Passage.REFUSE and connection.closes < _CLOSES:
            connection.closes += 1
            yield commands.SendData(self.context.client, connection.closing)

    def _decide(self, connection: _Connection) -> None:
        try:
            hello = None if connection.broken else connection.opening.hello
        except QuicError:
            hello, connection.broken = None, True
        if hello is None and len(connection.held) < MAX_HELD and not connection.broken:
            return
        connection.broken = hello is None
        admission = self._admitted(hello)
        connection.passage = admission.passage
        if admission.passage is Passage.REFUSE:
            reason = explanation(admission.ruling) if admission.ruling.blocks else ""
            connection.closing = close(connection.opening.first, CRYPTO_ERROR + Alert.UNRECOGNIZED_NAME, reason)

    def _decide_rest(self) -> Passage:
        """Of datagrams of no connection that began here: by address."""
        arrival = self._arrival()
        if self._visit.was_cut(arrival):
            return Passage.REFUSE  # it goes on where it was cut off
        try:
            admission = admit_bytes(self._enforcer, arrival)
        except Exception as error:
            self._enforcer.failed("datagrams", error)
            admission = admit_by_fallback(self._enforcer, arrival, None)
        return self._enter(arrival, admission, None)

    def _admitted(self, hello: ClientHello | None) -> Admission:
        arrival = self._arrival()
        try:
            admission = admit_quic(self._enforcer, arrival, hello)
        except Exception as error:
            self._enforcer.failed("datagrams", error)
            admission = admit_by_fallback(self._enforcer, arrival, hello, Stage.QUIC)
        self._enter(arrival, admission, hello)
        return admission

    def _enter(self, arrival: Arrival, admission: Admission, hello: ClientHello | None) -> Passage:
        """Count, record, and remember what passes. What only has to come over TCP is told when it does."""
        passes = admission.passage is Passage.PASS
        if passes or admission.ruling.blocks:
            self._enforcer.enter(
                admission.ruling, admission.visibility, lambda: observe(arrival, admission, hello, Transport.UDP)
            )
        if passes:
            self._visit.let_pass(Passing(arrival, admission.shown, Transport.UDP))
        return admission.passage

    @property
    def _port(self) -> int | None:
        address = self.context.server.address
        return address[1] if address is not None else None

    def _arrival(self) -> Arrival:
        return self._visit.arrival(self.context.server.address)

    def _forward(self, data: bytes) -> layer.CommandGenerator[None]:
        server = self.context.server
        if not server.connected and (self._done or (yield commands.OpenConnection(server)) is not None):
            yield from self._close()
            return
        yield commands.SendData(server, data)

    def _close(self) -> layer.CommandGenerator[None]:
        self._done = True
        for end in (self.context.server, self.context.client):
            if end.connected:
                yield commands.CloseConnection(end)
