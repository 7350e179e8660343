"""A gate's flows of QUIC, and the limits that keep one client from exhausting what others need.

A client is what `traffic.limits.client_key` says: an IPv4 address, or an IPv6 prefix of 64 bits. No I/O, no clock.

What is in order is in an OrderedDict: finding a dict's first key takes as long as there are deleted ones before it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tokgate.gate.quic.sockets import Key
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint, Transport
from tokgate.traffic.limits import client_key
from tokgate.traffic.quic_flow import QuicFlow
from tokgate.traffic.seen import Arrival


@dataclass(frozen=True, slots=True)
class QuicLimits:
    """The limits of a gate. Times in seconds."""

    flows: int = 32_768
    """Flows that pass. For one more, the one that was silent for longest is forgotten, and has to begin anew."""
    per_client: int = 4_096
    """Flows of one client that pass."""
    undecided: int = 4_096
    """Flows that don't pass: not decided yet, or refused. For one more, the oldest is forgotten."""
    held: int = 32 << 20
    """Octets that are kept of connections about which nothing is decided yet."""
    held_per_client: int = 1 << 20
    """The same of one client."""
    firsts_per_second: int = 1_000
    """Datagrams of one client that have to be read, those of connections that begin."""
    unreachables_per_second: int = 1_000
    """ICMP messages, to all clients."""
    handshake: float = 10.0
    """How long a client may take for its handshake."""
    idle: float = 150.0
    """After so long without a packet a flow is forgotten: longer than the firewall forwards before it asks again."""


class GateFlow(QuicFlow):
    """A flow that a gate carries."""

    __slots__ = ("accounted", "began_anew", "cut", "key", "seen")

    def __init__(self, key: Key, label: str, identity: Identity | None, now: float) -> None:
        """`label`: the id of the flow in the log."""
        host, port, server, server_port = key
        client, destination = Endpoint(host, port), Endpoint(server, server_port)
        super().__init__(
            Arrival(
                client=client, destination=destination, connection=label, identity=identity, transport=Transport.UDP
            )
        )
        self.key: Final = key
        self.seen = now
        self.cut = False
        """It was refused while it lasted, and stays refused: its packets can't be told from a new connection's."""
        self.accounted = 0
        """The octets that it was last accounted for."""
        self.began_anew = False
        """Further handshakes are under way."""


class FlowTable:
    """The flows that pass, and apart from them those that don't: no flood of these can push out any of those."""

    def __init__(self, limits: QuicLimits, forgotten: Callable[[GateFlow], None]) -> None:
        """`forgotten` is called for each passing flow that has to make room."""
        self.passing: Final[OrderedDict[Key, GateFlow]] = OrderedDict()
        """The one that was silent for longest first."""
        self.undecided: Final[OrderedDict[Key, GateFlow]] = OrderedDict()
        self.held = 0
        self._limits: Final = limits
        self._forgotten: Final = forgotten
        self._held: Final[dict[str, int]] = {}
        self._clients: Final[dict[str, OrderedDict[Key, None]]] = {}
        self._handshakes: Final[OrderedDict[GateFlow, float]] = OrderedDict()
        """Until when each may take for its handshake, of flows that are known."""

    def find(self, key: Key) -> GateFlow | None:
        return self.passing.get(key) or self.undecided.get(key)

    def begin(self, flow: GateFlow) -> None:
        """Add one about which nothing is decided."""
        if len(self.undecided) >= self._limits.undecided:
            self._remove(next(iter(self.undecided.values())))
        self.undecided[flow.key] = flow
        self.shakes_hands(flow)

    def shakes_hands(self, flow: GateFlow) -> None:
        """A connection in it begins, and may end its handshake."""
        if not flow.began_anew:
            flow.began_anew = True
            self._handshakes[flow] = flow.seen + self._limits.handshake

    def refresh(self, flow: GateFlow) -> None:
        """Note that a flow passes and is alive: it is the last to go where room is needed."""
        key, who = flow.key, client_key(flow.key[0])
        self.undecided.pop(key, None)
        theirs = self._clients.setdefault(who, OrderedDict())
        if self.passing.pop(key, None) is None:
            for first in (theirs, self.passing):
                most = self._limits.per_client if first is theirs else self._limits.flows
                if len(first) >= most:
                    oldest = self.passing[next(iter(first))]
                    self._remove(oldest)
                    self._forgotten(oldest)
            theirs = self._clients.setdefault(who, OrderedDict())
        theirs.pop(key, None)
        self.passing[key] = flow
        theirs[key] = None

    def adopt(self, flow: GateFlow) -> None:
        """Go on with a flow of another gate's, which may have begun to come here already."""
        here = self.find(flow.key)
        flow.began_anew = False
        if not flow.passing:
            if here is None:
                self.begin(flow)
                self.account(flow)
            return
        if here is not None:
            self._handshakes.pop(here, None)
            flow.shown.extend(each for each in here.shown if each not in flow.shown)
            flow.cut = flow.cut or here.cut
            self.abandon(here)
        self.refresh(flow)
        self.account(flow)
        self.shakes_hands(flow)

    def account(self, flow: GateFlow) -> bool:
        """Take note of what it holds; False if that is more than there may be, of all clients or of this one."""
        held, who = flow.pending_octets, client_key(flow.key[0])
        self._hold(flow, held)
        return not held or (self._held[who] <= self._limits.held_per_client and self.held <= self._limits.held)

    def _hold(self, flow: GateFlow, octets: int) -> None:
        if octets != flow.accounted:
            who = client_key(flow.key[0])
            self.held += octets - flow.accounted
            theirs = self._held[who] = self._held.get(who, 0) + octets - flow.accounted
            flow.accounted = octets
            if not theirs:
                del self._held[who]

    def abandon(self, flow: GateFlow) -> None:
        """Give up what it holds: it may begin anew."""
        flow.abandon()
        self.account(flow)

    def end_handshakes(self, now: float) -> int:
        """Forget what has not been said in time; the number of connections that were never decided about."""
        unfinished = 0
        while self._handshakes and next(iter(self._handshakes.values())) <= now:
            flow, _ = self._handshakes.popitem(last=False)
            unfinished += flow.settle()
            self.account(flow)
            if flow.key in self.undecided:
                self._remove(flow)
            elif flow.settled:
                flow.began_anew = False
            else:
                self._handshakes[flow] = now + self._limits.handshake
        return unfinished

    def forget_idle(self, now: float) -> None:
        """Forget passing flows of which nothing was heard for long."""
        before = now - self._limits.idle
        while (flow := next(iter(self.passing.values()), None)) is not None and flow.seen < before:
            self._remove(flow)

    def take_waiting(self, most: int) -> Iterator[GateFlow]:
        """Take out those of which a part of a hello has come, passing or not; not those that hold more octets."""
        held = (*self.passing.values(), *self.undecided.values())
        for flow in [each for each in held if 0 < each.pending_octets <= most]:
            self._hold(flow, 0)
            self._take_out(flow)
            yield flow

    def take_all(self) -> Iterator[GateFlow]:
        """Take the passing flows out, one by one."""
        while self.passing:
            flow = next(iter(self.passing.values()))
            self._remove(flow)
            yield flow

    def _remove(self, flow: GateFlow) -> None:
        self._take_out(flow)
        self.abandon(flow)

    def _take_out(self, flow: GateFlow) -> None:
        self._handshakes.pop(flow, None)
        if self.undecided.pop(flow.key, None) is None:
            del self.passing[flow.key]
            who = client_key(flow.key[0])
            theirs = self._clients[who]
            del theirs[flow.key]
            if not theirs:
                del self._clients[who]
