"""What is known of one client connection while it lasts."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow

from tokgate.blocklog.observation import Endpoint, Transport
from tokgate.gate.admission import Arrival, Shown
from tokgate.gate.handover import Handover
from tokgate.policy.decide import Sighting
from tokgate.policy.identity import Identity, joined
from tokgate.policy.names import parse_address
from tokgate.proxy.wires import Wires

MOST_BESIDE: Final = 16
MOST_CUT: Final = 8192


@dataclass(frozen=True, slots=True)
class Passing:
    """What a connection showed when it was let through."""

    arrival: Arrival
    shown: Shown
    transport: Transport = Transport.TCP


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was let through, and every name that it showed."""

    flow: HTTPFlow
    names: tuple[Sighting, ...]


@dataclass(slots=True)
class Visit:
    """One client connection. `waiting_since` is monotonic seconds, None while the client owes us nothing."""

    client: Endpoint
    connection: str
    wires: Wires
    waiting_since: float | None = field(default_factory=time.monotonic)
    connect: str | None = None
    """The host of the CONNECT request that is being served."""
    lead: str | None = None
    """The address behind the host that was asked for, where policy knows it: decided about like a destination."""
    opened: bool = False
    """TLS ends here, for a page or to read URLs."""
    passing: Passing | None = None
    """On what it was let through, once it was."""
    beside: list[Passing] = field(default_factory=list)
    """Further QUIC connections between the same ports, let through before."""
    requests: dict[str, Request] = field(default_factory=dict)
    """The requests that were let through and last, tunnels among them, by mitmproxy's id of the flow."""
    software: bytes | None = None
    """What the client's hello says of its software, where the connection was opened to show a warning."""
    asked: bool = False
    """Whether a request has come."""
    leaving: bool = False
    """The client, a browser, is asked to go on with new connections: they won't be opened."""
    ends: "CutFlows" = field(default_factory=lambda: CutFlows())
    explicit: bool = False
    """The client knows that it speaks to a proxy, so that it can be asked who it is."""
    identity: Identity | None = None
    """Who the client is besides its address."""
    vouched: bool = False
    """A gate has found out who it is already."""

    def spoken(self) -> None:
        """The client has said what it wants."""
        self.waiting_since = None

    def let_pass(self, passing: Passing) -> None:
        """One more connection was let through."""
        if self.passing is not None and self.passing not in self.beside:
            self.beside.append(self.passing)
            del self.beside[:-MOST_BESIDE]
        self.passing = passing

    def reached(self, host: str, address: str) -> None:
        """The host of what was let through turned out to be at an address, by which it is judged again as well."""
        passing = self.passing
        end = None if passing is None else passing.arrival.destination
        if passing is not None and end is not None and end.ip == host:
            arrival = replace(passing.arrival, destination=replace(end, ip=address))
            self.passing = replace(passing, arrival=arrival)

    def cut(self) -> None:
        """It is broken off: nothing passes any more. Datagrams would come again, as if nothing had happened."""
        if self.passing is not None and self.passing.transport is Transport.UDP:
            self.ends.add(self.passing.arrival)
        self.passing = None
        self.beside.clear()
        self.requests.clear()
        self.wires.break_off()

    def was_cut(self, arrival: Arrival) -> bool:
        """Whether an earlier flow between the same ends was broken off."""
        return arrival in self.ends

    def take_over(self, handed: Handover) -> None:
        """Go on with what a gate knows."""
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
            connection=self.connection,
            identity=self.identity,
        )


class CutFlows:
    """Between which ends UDP was broken off, of late."""

    def __init__(self) -> None:
        self._ends: dict[tuple[Endpoint, Endpoint | None], None] = {}

    def add(self, arrival: Arrival) -> None:
        """Remember one; beyond some thousands the oldest is forgotten."""
        self._ends[arrival.client, arrival.destination] = None
        if len(self._ends) > MOST_CUT:
            del self._ends[next(iter(self._ends))]

    def __contains__(self, arrival: Arrival) -> bool:
        return (arrival.client, arrival.destination) in self._ends


class Visits:
    """The client connections that are open, by mitmproxy's id."""

    def __init__(self) -> None:
        self._cut_flows = CutFlows()
        self._open: dict[str, Visit] = {}

    def begin(self, client: Client, wires: Wires) -> Visit:
        """A client has connected."""
        visit = Visit(Endpoint(client.peername[0], client.peername[1]), client.id, wires, ends=self._cut_flows)
        self._open[client.id] = visit
        return visit

    def of(self, client: Client) -> Visit:
        """The visit of a client; a fresh one for a client that was never announced."""
        return self._open.get(client.id) or self.begin(client, Wires(None))

    def end(self, client: Client) -> Visit | None:
        """A client has gone: its visit, if it was announced."""
        return self._open.pop(client.id, None)

    def all(self) -> tuple[Visit, ...]:
        """Those of now."""
        return tuple(self._open.values())

    def overdue(self, before: float) -> Iterator[Visit]:
        """The visits whose client has owed us its first words since before then."""
        for visit in self._open.values():
            if visit.waiting_since is not None and visit.waiting_since < before:
                yield visit
