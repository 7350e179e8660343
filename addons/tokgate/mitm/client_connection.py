"""The state of one client connection while it lasts."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from mitmproxy.connection import Client

from tokgate.gate.handoff import Handover
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.policy.membership import Identity, joined
from tokgate.policy.observation import Endpoint
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.counters import Counters
from tokgate.traffic.limits import OpenerLimits, client_key
from tokgate.traffic.seen import Arrival, Seen


@dataclass(frozen=True, slots=True)
class Passing:
    """A connection or a request that was let through, and on what: enough to decide about it again."""

    arrival: Arrival
    seen: Seen


@dataclass(slots=True)
class ClientConnection:
    """One client connection. `waiting_since` is monotonic seconds, None while the client owes us nothing."""

    client: Endpoint
    id: str
    """mitmproxy's id of the client."""
    sockets: ClientSockets
    waiting_since: float | None = field(default_factory=time.monotonic)
    listens: bool = False
    """The client came by redirection and said nothing: its server may speak first."""
    connect: str | None = None
    """The host of the CONNECT request that is being served."""
    lead: str | None = None
    """The address behind the host that was asked for, where policy knows it: decided about like a destination."""
    opened: bool = False
    """TLS ends here, for a page or to read URLs."""
    passing: Passing | None = None
    """On what it was let through, once it was."""
    requests: dict[str, Passing] = field(default_factory=dict)
    """The requests that were let through and last, tunnels among them, by mitmproxy's id of the flow."""
    software: bytes | None = None
    """What the client's hello says of its software, where the connection was opened to show a warning."""
    asked: bool = False
    """Whether a request has come."""
    closes_next: bool = False
    """The client, a browser, is asked to go on with new connections: they won't be opened."""
    budgets: "ClientBudgets" = field(default_factory=lambda: ClientBudgets())
    has_turn: bool = True
    """Its client's turn has come, and no request was dealt with in it."""
    smuggled: bytes | None = None
    """The response if the body of a request began like another request and was refused: nothing more is carried."""
    explicit: bool = False
    """The client knows that it speaks to a proxy, so that it can be asked who it is."""
    identity: Identity | None = None
    """The client's identity besides its address."""
    vouched: bool = False
    """A gate has found out who it is already."""

    def spoken(self) -> None:
        """The client has said what it wants."""
        self.waiting_since = None

    def listen(self) -> None:
        """Note that the client waits for the server to speak: it is not late with its first words."""
        self.listens, self.waiting_since = True, None

    def begins_to_speak(self) -> None:
        """Note that a client that has waited for the server says something: now its first words may be late."""
        if self.listens:
            self.listens, self.waiting_since = False, time.monotonic()

    def reached(self, host: str, address: str) -> None:
        """The host of what was let through turned out to be at an address, by which it is judged again as well."""
        passing = self.passing
        end = None if passing is None else passing.arrival.destination
        if passing is not None and end is not None and end.ip == host:
            arrival = replace(passing.arrival, destination=replace(end, ip=address))
            self.passing = replace(passing, arrival=arrival)

    def cut(self) -> None:
        """Break it off: nothing passes any more."""
        self.passing = None
        self.requests.clear()
        self.sockets.break_off()

    def take_over(self, handed: Handover) -> None:
        """Take over the state of a connection that a gate hands over."""
        self.connect, self.explicit = handed.arrival.connect, handed.explicit
        self.identity = handed.arrival.identity
        self.vouched = self.identity is not None and self.identity.user is not None

    def sign(self, person: Identity | None) -> None:
        """Somebody proved who they are, or that they are not who they said."""
        self.identity = joined(self.identity, person or Identity()) or None

    def arrival(self, destination: tuple[str, int] | None) -> Arrival:
        """The connection for the first decision about it. A destination by name was asked for, as with CONNECT."""
        end = None if destination is None else Endpoint(destination[0], destination[1])
        asked = end.ip if end is not None and parse_address(end.ip) is None else None
        return Arrival(
            client=self.client,
            destination=end,
            connect=self.connect or asked,
            connection=self.id,
            identity=self.identity,
        )


class UnreadOctets:
    """What clients have sent that waits for its end, in all their connections: heads, requests ahead of their turn."""

    def __init__(self, limits: OpenerLimits | None = None) -> None:
        self.limits: Final = limits or OpenerLimits()
        self._held: Final[dict[str, tuple[str, int]]] = {}
        self._by_client: Final[Counter[str]] = Counter()
        self._total = 0

    def hold(self, connection: str, client: str, octets: int) -> bool:
        """Take note of how many a connection holds now; False if that is more than there may be, of all or of one."""
        self.release(connection)
        if not octets:
            return True
        who = client_key(client)
        self._held[connection] = who, octets
        self._by_client[who] += octets
        self._total += octets
        return self._by_client[who] <= self.limits.unread_per_client and self._total <= self.limits.unread

    def release(self, connection: str) -> None:
        """Take a connection that was closed or read out of the count."""
        who, octets = self._held.pop(connection, ("", 0))
        self._total -= octets
        self._by_client[who] -= octets
        if not self._by_client[who]:
            del self._by_client[who]


class FallingCounts:
    """How often clients did something of late, in all their connections: counts that fall with time."""

    def __init__(self, most: float, per_second: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`most` at once, and `per_second` in the long run."""
        self._most: Final = most
        self._per_second: Final = per_second
        self._monotonic: Final = monotonic
        self._counts: Final[dict[str, tuple[float, float]]] = {}
        """The count of a client when it was last told of, and when that was; the latest comes last."""

    def allow(self, client: str, times: int) -> bool:
        """Note that a client has done it so often; False where that makes too many."""
        who, now = client_key(client), self._monotonic()
        count, since = self._counts.pop(who, (0.0, now))
        count = max(0.0, count - (now - since) * self._per_second) + times
        forgotten = now - self._most / self._per_second
        while self._counts and (oldest := next(iter(self._counts.items())))[1][1] < forgotten:
            del self._counts[oldest[0]]
        count = min(count, 2 * self._most)
        self._counts[who] = count, now
        return count <= self._most


class ClientBudgets:
    """What clients may have a proxy do for them, each in all its connections."""

    def __init__(self) -> None:
        limits = OpenerLimits()
        self.unread: Final = UnreadOctets(limits)
        self.resets: Final = FallingCounts(limits.resets, limits.resets_per_second)
        self.idle_frames: Final = FallingCounts(limits.idle_frames, limits.idle_frames_per_second)
        self.counters: Counters | None = None
        """Where it is counted what goes beyond it."""


class ClientConnections:
    """The client connections that are open, by mitmproxy's id."""

    def __init__(self) -> None:
        self.budgets: Final = ClientBudgets()
        self._open: dict[str, ClientConnection] = {}

    def begin(self, client: Client, sockets: ClientSockets) -> ClientConnection:
        """Make the state of a new client connection, and keep it until the connection ends."""
        peer = Endpoint(client.peername[0], client.peername[1])
        connection = ClientConnection(peer, client.id, sockets, budgets=self.budgets)
        self._open[client.id] = connection
        return connection

    def of(self, client: Client) -> ClientConnection:
        """The state of a client's connection; a fresh one for a client that was never announced."""
        return self._open.get(client.id) or self.begin(client, ClientSockets(None))

    def end(self, client: Client) -> ClientConnection | None:
        """Forget a client that has gone: its state, if it was announced."""
        self.budgets.unread.release(client.id)
        return self._open.pop(client.id, None)

    def all(self) -> tuple[ClientConnection, ...]:
        return tuple(self._open.values())

    def overdue(self, before: float) -> Iterator[ClientConnection]:
        """The connections whose client has owed us its first words since before then."""
        for connection in self._open.values():
            if connection.waiting_since is not None and connection.waiting_since < before:
                yield connection
