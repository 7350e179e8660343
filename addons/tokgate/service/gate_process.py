"""The process of a gate, forked from the supervisor.

The policy and the listeners are inherited. For a changed policy there are new processes, forked from a supervisor that
has compiled it. The old ones stop accepting, hand over open connections, and exit. So a reload delays no client, all
gates share the memory of a policy, and one policy is in force for all connections.
"""

import os
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tokgate.blocklog.records.record import Observer
from tokgate.blocklog.write.channel import RecordSender
from tokgate.gate.acceptor import AcceptingGates, limits_of
from tokgate.gate.gate import Gate, GateConnections
from tokgate.gate.handoff import OpenerChannel
from tokgate.gate.quic.carrier import QuicCarrier, QuicInheritance
from tokgate.gate.sockets import Listener
from tokgate.gate.takeover import ConnectionTransfer
from tokgate.policy.snapshot import Snapshot
from tokgate.service.children import ORDERS, Channels, counted_in, tell_supervisor
from tokgate.traffic.counters import HANDED_OVER, NOT_HANDED_OVER, RECORDS_DROPPED, Counters, SharedCounters
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits
from tokgate.traffic.live_review import LiveReview
from tokgate.traffic.warning_state import WarnedClients

RETIRE: Final = signal.SIGUSR1
"""Stop accepting, and hand open connections over to the new gates."""
GO: Final = signal.SIGUSR2
"""Start accepting: the gates with the previous policy have stopped."""
STARVED: Final = 60.0
"""Seconds for which an error of connecting that is this machine's own counts as going on."""
TICK: Final = 1.0
"""Seconds between two reports and flushes."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What the supervisor gives a gate. `drain` in seconds."""

    snapshot: Snapshot
    listeners: tuple[Listener, ...]
    channels: Channels
    observer: Observer
    shared: SharedCounters
    limits: Limits
    drain: float
    warned: WarnedClients
    accepting: AcceptingGates
    slot: int
    """The gate's number, in `accepting`."""
    mark: int | None = None
    backlog: int | None = None
    """The memory for records that the collector doesn't take at once."""
    waits: bool = False
    """Whether to accept only after GO."""
    quic: QuicInheritance | None = None


class GateProcess:
    """Runs a gate until it is told to stop, or, retired, has no connection left."""

    def __init__(self, given: Inheritance) -> None:
        """To be called in the child, after the fork."""
        self._given: Final = given
        self._sender: Final = RecordSender(given.channels.records_in, given.observer, backlog=given.backlog)
        self._openers: Final = OpenerChannel(given.channels.openers_in)
        counters = Counters(given.shared)
        self._enforcer: Final = Enforcer(given, self._sender, given.observer, counters=counters, warned=given.warned)
        limits = limits_of(given.limits, given.snapshot.settings)
        self._gate: Final = Gate(self._enforcer, self._openers, limits, given.mark)
        self._gate.acceptor.others_accept = partial(given.accepting.others, given.slot)
        self._gate.dialler.tell_failed = None if given.quic is None else given.quic.outlets.failed
        self._review: Final = LiveReview(self._enforcer, GateConnections(self._gate.context))
        self._transfer: Final = ConnectionTransfer(
            self._gate, given.listeners, given.channels.transfers_in, given.channels.transfers_out
        )
        self._quic: Final = None if given.quic is None else QuicCarrier(self._gate.context, given.quic)
        self._orders: Final[deque[Callable[[], None]]] = deque()
        """Work that signals ask for, done between two batches of events, since it may close descriptors."""
        self._ending = False
        self._terminated = False
        self._retired = False
        self._takes_over = False
        self._welcoming = False
        self._give_up_at = float("inf")
        self._next_tick = 0.0
        self._next_housekeeping = 0.0

    def run(self) -> None:
        """Run the loop until the gate has ended; then write what is due and close everything."""
        gate, loop = self._gate, self._gate.loop
        self._listen_to_signals()
        loop.call_back(self._given.channels.lifeline_out, self._orphaned)
        self._review.look()  # computes the next change of the policy, before any client waits
        if not self._given.waits:
            self._accept()
        elif self._quic is not None:
            self._quic.expect()
        self._tick()  # reports that this gate is ready
        while not (self._ending and self._is_empty()) and loop.now < self._give_up_at:
            try:
                loop.once(max(0.0, self._next_tick - loop.now))
                while self._orders:
                    self._orders.popleft()()
                if loop.now >= self._next_tick:
                    self._tick()
            except Exception as error:  # a bug costs one connection its deadline, not all of them their gate
                self._enforcer.failed("gate", error)
        self._review.close()
        if self._quic is not None:
            self._quic.review.close()
        self._enforcer.close()
        self._housekeep()
        gate.close()
        self._sender.close()

    def _is_empty(self) -> bool:
        """Whether this gate carries nothing any more, and has passed on what it can."""
        return self._gate.acceptor.open_connections == 0 and not (
            self._retired and self._quic is not None and self._quic.remains
        )

    def _tick(self) -> None:
        """Do periodic work, and compute when it is due again."""
        loop = self._gate.loop
        self._next_tick = loop.now + TICK
        if self._takes_over:
            self._take_over()
        pause = self._review.look()
        if self._quic is not None:
            pause = min(pause, self._quic.look())
        if self._retired:
            if self._give_up_at == float("inf"):  # else it drains, as may all who would take any over
                pause = min(pause, self._transfer.pass_on())
        elif self._transfer.takes_more:
            self._welcome(True)
        if loop.now >= self._next_housekeeping:
            self._next_housekeeping = loop.now + TICK
            self._housekeep()
        # A signal handler may have set an earlier one meanwhile.
        self._next_tick = min(self._next_tick, loop.now + pause, self._next_housekeeping)

    def _plan_takeover(self) -> None:
        """A retired gate hands connections over: take them after this batch of events, since that may close some."""
        self._takes_over = True
        self._next_tick = 0.0

    def _take_over(self) -> None:
        """Continue connections of a retired gate, unless this gate's policy refuses them."""
        self._takes_over = False
        for connection in self._transfer.take():
            self._review.examine(connection)
        if not self._transfer.takes_more:
            self._welcome(False)

    def _welcome(self, wanted: bool) -> None:
        """Start or stop watching for connections to take over."""
        if wanted and not self._welcoming:
            self._gate.loop.call_back(self._transfer.descriptor, self._plan_takeover, exclusive=True)
        elif self._welcoming and not wanted:
            self._gate.loop.call_no_more(self._transfer.descriptor)
        self._welcoming = wanted

    def _accept(self) -> None:
        for listener in self._given.listeners:
            self._gate.acceptor.add_listener(listener)
        self._given.accepting.tell(self._given.slot, True)
        if self._quic is not None:
            self._quic.begin()

    def _housekeep(self) -> None:
        self._enforcer.settle()
        if self._gate.acceptor.listeners:
            self._given.accepting.tell(self._given.slot, not self._gate.acceptor.full)
            self._gate.acceptor.try_again()
        self._sender.flush()
        counters = self._enforcer.counters
        counters.put(HANDED_OVER, self._openers.handed_over)
        counters.put(NOT_HANDED_OVER, self._openers.failed)
        counters.put(RECORDS_DROPPED, self._sender.dropped)
        gate, starved = self._gate, self._gate.dialler.starved
        acceptor, loop = gate.acceptor, gate.loop
        tell_supervisor(
            self._given.channels.reports_in,
            **counted_in(counters),
            ending=self._ending,
            connections=acceptor.open_connections,
            full=gate.context.limits.connections if acceptor.full else 0,
            starved=None if starved is None or loop.now - starved[1] > STARVED else starved[0],
            accounts=gate.explicit.sign_in.current.failure,
            clients=len(acceptor.clients),
            handed_over=self._openers.handed_over,
            not_handed_over=self._openers.failed,
            taken_over=self._transfer.taken_over,
            passed_on=self._transfer.passed_on,
            judged_again=self._review.judged,
            records_dropped=self._sender.dropped,
            quic_flows=0 if self._quic is None else len(self._quic.flows.passing),
        )

    # -- signals

    def _listen_to_signals(self) -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._gate.loop.call_back(read, lambda: self._empty(read))
        signal.signal(GO, lambda *_: self._orders.append(self._accept))
        signal.signal(RETIRE, lambda *_: self._orders.append(self._retire))
        signal.signal(signal.SIGTERM, lambda *_: self._orders.append(self._terminate))
        for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor handles them; a terminal sends them to all
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)

    def _empty(self, descriptor: int) -> None:
        os.read(descriptor, 4096)

    def _orphaned(self) -> None:
        """The supervisor has exited: nothing would restart this gate or write its records. Drain."""
        self._gate.loop.call_no_more(self._given.channels.lifeline_out)
        self._orders.append(partial(self._end, self._given.drain))

    def _terminate(self) -> None:
        """Drain; the second time, end at once."""
        self._end(0.0 if self._terminated else self._given.drain)
        self._terminated = True

    def _retire(self) -> None:
        """New gates have a newer policy: stop accepting and hand open connections over to them."""
        self._retired = True
        self._welcome(False)
        self._end(float("inf"))
        if self._quic is not None:
            self._quic.retire()

    def _end(self, seconds: float) -> None:
        """Stop accepting, and exit with the last connection or after `seconds`."""
        self._ending = True
        self._next_tick = self._next_housekeeping = 0.0  # report it now
        self._gate.acceptor.stop_accepting()
        if self._quic is not None:
            self._quic.stop()
        self._give_up_at = min(self._give_up_at, self._gate.loop.now + seconds)
