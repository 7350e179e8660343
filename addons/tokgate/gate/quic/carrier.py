"""Carries QUIC: reads the first packets of flows, has them decided, and has the kernel forward what passes.

The firewall brings here all packets with a long header, with which connections begin, and others of flows that it does
not know, or has not asked about for a minute (`gateway/udp_rules.py`). What decides is `traffic.admission`.

The kernel has a flow only from the first short header on, which follows the handshake. Earlier it would forward what
the client says next before the gate has passed the end of the handshake on, and servers throw such packets away.

Flows are passed on to the next gate of the place, by a channel which its gates of all generations inherit: the retired
one writes, the newest reads. Of connections that aren't decided yet what has come of their hello goes along: a client
may not repeat just that part.
"""

import pickle
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched, chain
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import new_event_id
from tokgate.gate.context import Context
from tokgate.gate.quic.flow_table import FlowTable, GateFlow, QuicLimits
from tokgate.gate.quic.sockets import Datagram, Front, Key, Outlets, receive
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Visibility
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.limits import client_key
from tokgate.traffic.live_review import Cut, LiveReview, passes
from tokgate.wire.quic import follows_initial

DATAGRAMS: Final = 64
"""Taken from a front at a time; then others have their turn."""
MOST_EARLY: Final = 1024
"""Datagrams that are held for flows that another gate may still pass on."""
LATE: Final = 1.0
"""Seconds by which packets may overtake the one with which their connection begins."""
_LONG: Final = 0x80
"""The bit of a long header (RFC 8999 §5.1)."""

AT_ONCE: Final = 32
"""Flows in a message."""
MESSAGES: Final = 16
"""Taken between two batches of events."""
PATIENCE: Final = 5.0
"""Seconds that flows of a predecessor are awaited, from the first datagram on that may come here."""
_MOST_HELD: Final = 65_536
"""Octets of a flow that isn't decided yet; one with more is not passed on: a message must fit the channel."""
RETRY: Final = 0.005
_LARGEST: Final = 1 << 20
_END: Final = b"."
"""A message: no more flows come."""


def channel() -> tuple[socket.socket, socket.socket]:
    """The end that is written to, and the one to read."""
    read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read.setblocking(False)
    write.setblocking(False)
    return write, read


@dataclass(frozen=True, slots=True)
class QuicInheritance:
    """The sockets of a gate's place, and the ends of its `channel` for flows."""

    fronts: Sequence[Front]
    outlets: Outlets
    transfer_out: socket.socket
    transfer_in: socket.socket


class QuicCarrier:
    """Carries out decisions about QUIC for one gate: flows pass, wait for more packets, or are refused.

    It reviews them while they last. What the kernel forwards is counted nowhere.
    """

    def __init__(
        self,
        context: Context,
        given: QuicInheritance,
        limits: QuicLimits | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits: Final = limits or QuicLimits()
        self.enforcer: Final = context.enforcer
        self.flows: Final = FlowTable(self.limits, lambda flow: given.outlets.ends(flow.key))
        self.unknown_flows_wait = False
        """Flows of another gate's may still come: a packet that belongs to none here waits for that."""
        self.review: Final[LiveReview[GateFlow]] = LiveReview(context.enforcer, self)
        self.remains = True
        """Whether flows are still to be passed on, once the gate is retired."""
        self._early: list[Datagram] = []
        self._context: Final = context
        self._given: Final = given
        self._monotonic: Final = monotonic
        self._now = monotonic()
        self._second = 0
        self._firsts: Final[Counter[str]] = Counter()
        self._unreachables = 0
        self._ahead: Final[OrderedDict[Key, float]] = OrderedDict()
        """When the first packet came of each flow of which no beginning has come yet."""
        self._retired = False
        self._give_up_at = 0.0
        self._left: Iterator[tuple[GateFlow, ...]] | None = None
        self._next: bytes | None = None
        context.loop.call_back(given.transfer_in.fileno(), self.take_over)

    def expect(self) -> None:
        """Wait for a predecessor's flows, until PATIENCE seconds after `begin`: packets of unknown flows wait, too."""
        self._give_up_at = float("inf")
        self.unknown_flows_wait = True

    def begin(self) -> None:
        """Read from the sockets from now on: the gate before has retired."""
        self._give_up_at = self._monotonic() + PATIENCE
        for front in self._given.fronts:
            self._context.loop.call_back(front.socket.fileno(), lambda front=front: self.take(self._come(front)))  # type: ignore[misc]

    def _resume(self) -> None:
        """Take what has waited, once no more flows of another gate's come."""
        if self._early and not self.unknown_flows_wait:
            early, self._early = self._early, []
            self.take(early)

    def stop(self) -> None:
        """Read no more; what the kernel forwards goes on."""
        for front in self._given.fronts:
            self._context.loop.call_no_more(front.socket.fileno())

    def look(self) -> float:
        """Do what is due, and forget what is over; the seconds until the next call."""
        if self._retired:
            return self._pass_on()
        now = self._monotonic()
        self.enforcer.counters.unfinished += self.flows.end_handshakes(now)
        self.flows.forget_idle(now)
        while self._ahead and next(iter(self._ahead.values())) < now - self.limits.handshake:
            del self._ahead[next(iter(self._ahead))]
        if self.unknown_flows_wait and now >= self._give_up_at:
            self.unknown_flows_wait = False
            self._resume()
        return self.review.look()

    def open_now(self) -> Iterable[GateFlow]:
        """The flows that pass, those included that the kernel forwards."""
        return list(self.flows.passing.values())

    def judge(self, flow: GateFlow, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether any connection in it would be refused now."""
        if flow.cut or self.flows.passing.get(flow.key) is not flow:
            return None
        host, _, server, _ = flow.key
        for shown in flow.shown:
            plain = shown.visibility is Visibility.QUIC_SNI and shown.legible is None and flow.arrival.identity is None
            if plain and shown.name and passes(snapshot, host, shown.name, server, at, Signal.QUIC_SNI):
                continue
            admission = admit(self.enforcer, flow.arrival, shown)
            if admission.ruling.blocks:
                return admission.ruling, admission.observe()
        return None

    def cut(self, flow: GateFlow) -> None:
        """End a flow that passed: the kernel forwards it no more, nor passes here what comes between these ports."""
        flow.cut = True
        self._given.outlets.ends(flow.key)

    def take(self, datagrams: Iterable[Datagram]) -> None:
        """Decide about what has come, and carry it out."""
        self._now = self._monotonic()
        if int(self._now) != self._second:
            self._second, self._unreachables = int(self._now), 0
            self._firsts.clear()
        for came in datagrams:
            try:
                self._take(came)
            except Exception as error:  # a bug costs this datagram; nothing of it passes undecided
                self.enforcer.failed("quic", error)

    def _come(self, front: Front) -> Iterator[Datagram]:
        for _ in range(DATAGRAMS):
            try:
                came = receive(front)
            except OSError:  # nothing more is there
                return
            if came is None:
                self.enforcer.counters.loops += 1
            else:
                yield came

    def _take(self, came: Datagram) -> None:
        key, data = came.key, came.payload
        short = not data or not data[0] & _LONG
        flow = self.flows.find(key)
        if flow is None and self.unknown_flows_wait:
            if len(self._early) < MOST_EARLY:
                self._early.append(came)
        elif flow is not None and flow.cut:
            self._lasts(flow)
            self._refuse(key, data)
        elif flow is not None and short and flow.passing:
            self._pass(flow, came, (data,), opens=True)
        elif (flow is None or not flow.begun) and follows_initial(data):
            self._is_ahead(key, data)
        elif self._has_share(key):
            self._decide(flow or self._begun(came), came)

    def _is_ahead(self, key: Key, data: bytes) -> None:
        """Await the beginning of a packet's connection, which it overtook.

        If that does not come, the gate that had it was killed. Its client is told, since no server ever answers it.
        """
        if self._now - self._ahead.setdefault(key, self._now) >= LATE:
            self._refuse(key, data)
        elif len(self._ahead) > self.limits.undecided:
            del self._ahead[next(iter(self._ahead))]

    def _has_share(self, key: Key) -> bool:
        """Whether one more datagram of this client's is read in this second."""
        who = client_key(key[0])
        self._firsts[who] += 1
        if self._firsts[who] <= self.limits.firsts_per_second:
            return True
        self.enforcer.counters.at_limit += 1
        return False

    def _begun(self, came: Datagram) -> GateFlow:
        identity = self._context.identification.at(came.interface, came.key[0])
        flow = GateFlow(came.key, new_event_id(self.enforcer.now()), identity, self._now)
        self.flows.begin(flow)
        return flow

    def _decide(self, flow: GateFlow, came: Datagram) -> None:
        flow.seen = self._now
        carried = flow.take(self.enforcer, came.payload)
        self.flows.shakes_hands(flow)
        if not self.flows.account(flow):
            self.enforcer.counters.at_limit += 1
            self.flows.abandon(flow)
        if flow.overfull:
            self.cut(flow)
            self._refuse(flow.key, came.payload)
        elif carried.forward:
            self._pass(flow, came, carried.forward)
        elif carried.answer:
            self._given.outlets.answers(flow.key, carried.answer)
        elif carried.refused:
            self._refuse(flow.key, came.payload)
        elif not flow.begun:
            self._is_ahead(flow.key, came.payload)

    def _pass(self, flow: GateFlow, came: Datagram, datagrams: Sequence[bytes], *, opens: bool = False) -> None:
        self._lasts(flow)
        for datagram in datagrams:
            if not self._given.outlets.carries(came, datagram, opens=opens):
                if not opens:  # else it is lost, as on any network: an error would end a connection under way
                    self._refuse(flow.key, came.payload)
                return

    def _lasts(self, flow: GateFlow) -> None:
        flow.seen = self._now
        self.flows.refresh(flow)

    def _refuse(self, key: Key, data: bytes) -> None:
        self._unreachables += 1
        if self._unreachables <= self.limits.unreachables_per_second:
            self._given.outlets.refuses(key, data)

    # -- from gate to gate

    def retire(self) -> None:
        """Take nothing over any more, and pass flows on with each `look`."""
        self._retired = True
        self._context.loop.call_no_more(self._given.transfer_in.fileno())

    def take_over(self) -> None:
        """Go on with flows that have come, which another policy let through."""
        for _ in range(MESSAGES):
            try:
                message = self._given.transfer_in.recv(_LARGEST)
            except OSError:
                break
            if message in (_END, b""):
                self.unknown_flows_wait = False
                continue
            try:
                flows: list[GateFlow] = pickle.loads(message)
            except Exception as error:
                self.enforcer.failed("succession", error)
                continue
            for flow in flows:
                self.flows.adopt(flow)
                self.review.examine(flow)
        self._resume()

    def _pass_on(self) -> float:
        """Pass flows on as far as there is room; the seconds until the next time."""
        if self._left is None:
            waiting, others = self.flows.take_waiting(_MOST_HELD), self.flows.take_all()
            self._left = chain(batched(waiting, 1), batched(others, AT_ONCE))
        while self.remains:
            if self._next is None:
                some = next(self._left, ())
                self._next = pickle.dumps(list(some)) if some else _END
            try:
                self._given.transfer_out.send(self._next)
            except BlockingIOError:
                return RETRY
            except OSError as error:
                self.enforcer.failed("succession", error)
            self.remains = self._next != _END
            self._next = None
        return float("inf")
