"""The QUIC connections between a port of a client and one of a server: each is decided by its own ClientHello. Sans-IO.

What passes is carried datagram by datagram. Only Initial packets are read, whose keys anyone can derive.
"""

from dataclasses import dataclass, field
from typing import Final, assert_never

from tokgate.traffic.actions import AskCertificate, Open, Pass, QuicClose, Refuse, Words
from tokgate.traffic.admission import admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Arrival, FirstBytes, Hello, Shown, Unreadable
from tokgate.wire.client_hello import UNRECOGNIZED_NAME
from tokgate.wire.quic import CRYPTO_ERROR, Initial, Opening, QuicError, close, hides_packets, initials, is_unreadable

MAX_PENDING: Final = 32
"""Datagrams that are kept of a connection until its hello is whole; a browser needs two or three."""
MAX_CONNECTIONS: Final = 16
"""QUIC connections that are known of one flow; most have one."""
_CLOSES: Final = 8
"""CONNECTION_CLOSE packets that are sent for a connection, one for each datagram that comes after the refusal."""


@dataclass(frozen=True, slots=True)
class DatagramVerdict:
    """What becomes of a datagram, and of those that waited for it."""

    forward: tuple[bytes, ...] = ()
    answer: bytes = b""
    """A datagram for the client, which refuses."""
    refused: bool = False
    """It is refused, and no QUIC packet can say so."""


_NOTHING: Final = DatagramVerdict()
_REFUSED: Final = DatagramVerdict(refused=True)


@dataclass(slots=True)
class _Connection:
    """One QUIC connection; whether it `passes` is None until its hello is whole."""

    opening: Opening
    passes: bool | None = None
    pending: list[bytes] = field(default_factory=list)
    closing: bytes = b""
    closes: int = 0
    broken: bool = False
    watched: str | None = None
    """The name in its hello, while its server may ask for a second one of a client under a ban."""
    waits: bool = False
    """A part of the second hello has come."""
    ages: bool = False
    settled: bool = False
    """Its handshake is over: it sends no Initial packets any more."""

    def settle(self) -> None:
        self.settled, self.pending = True, []
        self.opening.forget()

    def takes(self, packets: tuple[Initial, ...]) -> bool:
        """Whether any packet of a datagram belongs to it; if so, all that do are read.

        Raises QuicError once it is decided, for a hello that is another than the one that was decided about.
        """
        return any([self._takes_one(packet) for packet in packets])  # noqa: C419 - each is to be read

    def _takes_one(self, initial: Initial) -> bool:
        if self.broken or self.settled:
            return self.opening.fits(initial)
        try:
            return self.opening.reads(initial)
        except QuicError:
            if self.passes is not None:
                raise
            self.broken = True
            return True


class QuicFlow:
    """One flow, from its first datagram on. It refers to nothing else, so that another process can go on with it."""

    __slots__ = ("_connections", "_others", "_unreadable", "arrival", "shown")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival: Final = arrival
        """Who sends the flow and where to."""
        self.shown: Final[list[Shown]] = []
        """What was let through, each kind once."""
        self._connections: list[_Connection] = []
        self._others: bool | None = None
        """Whether datagrams pass that belong to no connection that was seen to begin."""
        self._unreadable: bool | None = None
        """Whether QUIC passes in versions that can't be read."""

    @property
    def overfull(self) -> bool:
        """Whether it was let through on more than can be judged again."""
        return len(self.shown) > MAX_CONNECTIONS

    @property
    def passing(self) -> bool:
        """Whether a connection in the flow, or anything else in it, passes."""
        return bool(self._others or self._unreadable or any(one.passes for one in self._connections))

    @property
    def begun(self) -> bool:
        """Whether a connection was seen to begin in it, or something else was decided about."""
        return bool(self._connections) or self._others is not None or self._unreadable is not None

    @property
    def pending_octets(self) -> int:
        """The octets that are kept of connections about which nothing is decided yet."""
        waiting = (one for one in self._connections if one.passes is None or one.waits)
        return sum(one.opening.octets + sum(map(len, one.pending)) for one in waiting)

    def abandon(self) -> bool:
        """Forget what is not decided yet; whether any connection never said who it wants to reach."""
        decided = [one for one in self._connections if one.passes is not None]
        unfinished = len(decided) < len(self._connections)
        for one in decided:
            if one.waits:
                one.settle()
        self._connections = decided
        return unfinished

    def settle(self) -> bool:
        """As `abandon`; also forget what was read of connections that were decided before this was called last.

        To be called again after the time that a handshake may take, until `settled`. What comes late is not carried.
        """
        unfinished = self.abandon()
        for one in self._connections:
            if one.ages:
                one.settle()
            one.ages = True
        return unfinished

    @property
    def settled(self) -> bool:
        """Whether nothing more than its ids is kept of any connection."""
        return all(one.settled for one in self._connections)

    def take(self, enforcer: Enforcer, data: bytes) -> DatagramVerdict:
        """Decide about a datagram of the client's."""
        if hides_packets(data):
            return _NOTHING if self._connections else self._take_unreadable(enforcer, data)
        found = initials(data)
        if found:
            if any(one.destination != found[0].destination for one in found):
                return _NOTHING  # RFC 9000 §12.2: of one connection only
            try:
                connection = self._belongs_to(found)
            except QuicError:  # under the keys of a connection that passes, as if it were that
                return _NOTHING
            return _NOTHING if connection is None else self._advance(enforcer, connection, data)
        if is_unreadable(data):
            return self._take_unreadable(enforcer, data)
        passing = self._others or any(one.passes for one in self._connections)
        waiting = next((one for one in reversed(self._connections) if one.passes is None), None)
        if waiting is not None and not passing:  # what follows the first flight, such as early data
            return self._advance(enforcer, waiting, data)
        if not self._connections and self._others is None:
            passing = self._others = self._admit(enforcer, Unreadable(quic=True)) is None
        if passing:
            return DatagramVerdict((data,))
        return _NOTHING if self._connections else _REFUSED

    def _take_unreadable(self, enforcer: Enforcer, data: bytes) -> DatagramVerdict:
        """Decide once about QUIC that can't be read."""
        if self._unreadable is None:
            self._unreadable = self._admit(enforcer, Unreadable(quic=True)) is None
        return DatagramVerdict((data,)) if self._unreadable else _REFUSED

    def _belongs_to(self, found: tuple[Initial, ...]) -> _Connection | None:
        """The QUIC connection of these packets; None for packets that neither we nor the server can read."""
        for connection in self._connections:
            if connection.takes(found):
                return connection
        fresh = _Connection(Opening(found[0]))
        if not fresh.takes(found):
            return None
        self._connections.append(fresh)
        if len(self._connections) > MAX_CONNECTIONS:
            del self._connections[0]
        return fresh

    def _advance(self, enforcer: Enforcer, connection: _Connection, data: bytes) -> DatagramVerdict:
        """Do with a connection's datagram what was decided, or decide if that is possible now."""
        if connection.settled:
            return _NOTHING
        connection.pending.append(data)
        if connection.passes is None:
            self._decide(enforcer, connection)
        if connection.watched is not None and connection.opening.goes_on:
            self._decide_again(enforcer, connection, connection.watched)
        if connection.passes is None or connection.waits:
            return _NOTHING
        pending, connection.pending = connection.pending, []
        if connection.passes:
            return DatagramVerdict(tuple(pending))
        connection.closes += 1
        return DatagramVerdict(answer=connection.closing) if connection.closes <= _CLOSES else _NOTHING

    def _decide(self, enforcer: Enforcer, connection: _Connection) -> None:
        try:
            hello = None if connection.broken else connection.opening.hello
        except QuicError:
            hello, connection.broken = None, True
        if hello is None and len(connection.pending) < MAX_PENDING and not connection.broken:
            return
        connection.broken = hello is None
        refusal = self._admit(enforcer, Unreadable(quic=True) if hello is None else Hello(hello, quic=True), connection)
        connection.passes = refusal is None
        if refusal is not None:
            _refuse(connection, refusal.words)

    def _decide_again(self, enforcer: Enforcer, connection: _Connection, name: str) -> None:
        """The second hello must name the same as the first did; until it is whole, nothing more passes."""
        try:
            hello = connection.opening.second_hello
            connection.waits = hello is None and len(connection.pending) < MAX_PENDING
        except QuicError:
            hello, connection.waits = None, False
        if connection.waits:
            return
        connection.watched = None
        seen: FirstBytes = Unreadable(quic=True) if hello is None else Hello(hello, quic=True, retry_of=name)
        refusal = self._admit(enforcer, seen)
        if refusal is not None:
            _refuse(connection, refusal.words)

    def _admit(self, enforcer: Enforcer, seen: FirstBytes, connection: _Connection | None = None) -> Refuse | None:
        """Decide about a connection or a flow, and remember what passes: None."""
        admission = admit(enforcer, self.arrival, seen)
        admission.record(enforcer)
        match admission.action:
            case Pass(watch=watch):
                if watch and connection is not None:
                    connection.watched = admission.shown.name or ""
                if admission.shown not in self.shown:
                    self.shown.append(admission.shown)
                return None
            case Refuse() as refusal:
                return refusal
            case Open() | AskCertificate():  # of datagrams nothing can be opened
                return Refuse(None)
            case _:
                assert_never(admission.action)


def _refuse(connection: _Connection, words: Words) -> None:
    connection.passes = False
    reason = words.reason if isinstance(words, QuicClose) else ""
    connection.closing = close(connection.opening.first, CRYPTO_ERROR + UNRECOGNIZED_NAME, reason)
