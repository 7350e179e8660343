"""A gate's process: what a forked child does from its first to its last breath.

The policy and the listeners are inherited from the supervisor. A changed policy means new processes, forked from a
supervisor that has it compiled; the old ones accept no more, pass on what is open, and end. So a reload stalls nobody,
the memory of a policy is shared by all gates, and one policy is in force for all connections.
"""

import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from select import EPOLLEXCLUSIVE, EPOLLIN
from typing import Final

from tokgate.blocklog.channel import RecordSender
from tokgate.blocklog.stamp import Observer
from tokgate.gate.counters import AT_LIMIT, HANDED_OVER, NOT_HANDED_OVER, RECORDS_DROPPED, Counters
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.gate import Limits
from tokgate.gate.handover import OpenerChannel
from tokgate.gate.identifying import gate_for
from tokgate.gate.live import GateConnections, Review
from tokgate.gate.sockets import Listener
from tokgate.gate.succession import Succession
from tokgate.gate.tally import Tally
from tokgate.gate.warned import WarnedClients
from tokgate.policy.snapshot import Snapshot

RETIRE: Final = signal.SIGUSR1
"""Accept no more, pass on what is open."""
GO: Final = signal.SIGUSR2
"""Begin to accept: the gates of the policy before have stopped."""
TICK: Final = 1.0
"""Seconds between two rounds of housekeeping."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a gate is given. `lifeline` ends when the supervisor does; `drain` in seconds."""

    snapshot: Snapshot
    listeners: tuple[Listener, ...]
    records: socket.socket
    openers: socket.socket
    heirs: socket.socket
    """Where a retired gate passes connections on."""
    estate: socket.socket
    """Where its successors take them over."""
    reports: socket.socket
    lifeline: int
    observer: Observer
    tally: Tally
    limits: Limits
    drain: float
    warned: WarnedClients
    mark: int | None = None
    waits: bool = False
    """Whether to accept only when told to."""


class GateProcess:
    """Runs a gate until it is told to end, or has nothing left to serve."""

    def __init__(self, given: Inheritance) -> None:
        """Call in the child, after the fork."""
        self._given: Final = given
        self._sender: Final = RecordSender(given.records, given.observer)
        self._openers: Final = OpenerChannel(given.openers)
        counters = Counters(given.tally)
        self._enforcer: Final = Enforcer(given, self._sender, given.observer, counters=counters, warned=given.warned)
        self._gate: Final = gate_for(given.snapshot, self._enforcer, self._openers, given.limits, given.mark)
        self._review: Final = Review(self._enforcer, GateConnections(self._gate))
        self._succession: Final = Succession(self._gate, given.listeners, given.heirs, given.estate)
        self._orders: Final[deque[Callable[[], None]]] = deque()
        """What signals want done: between two batches of events, since a descriptor may be closed by it."""
        self._leaving = False
        self._retired = False
        self._inherits = False
        self._welcoming = False
        self._give_up_at = float("inf")
        self._next_tick = 0.0
        self._next_housekeeping = 0.0

    def run(self) -> None:
        """Serve."""
        gate = self._gate
        self._listen_to_signals()
        self._watch(self._given.lifeline, self._orphaned)
        self._gate.callbacks[self._succession.descriptor] = self._inherit
        self._review.look()  # finds out when the policy changes next, before anybody waits for it
        if not self._given.waits:
            self._accept()
        self._tick()  # tell that we are ready
        while not (self._leaving and gate.open_connections == 0) and gate.now < self._give_up_at:
            try:
                gate.once(max(0.0, self._next_tick - gate.now))
                while self._orders:
                    self._orders.popleft()()
                if gate.now >= self._next_tick:
                    self._tick()
            except Exception as error:  # a bug costs one connection its deadline, not all of them their gate
                self._enforcer.failed("gate", error)
        self._review.close()
        self._enforcer.close()
        self._housekeep()
        gate.close_all()
        self._sender.close()

    def _tick(self) -> None:
        """Do what isn't an event's doing, and find out when to come back for more."""
        gate = self._gate
        self._next_tick = gate.now + TICK
        if self._inherits:
            self._take_over()
        pause = self._review.look()
        if self._retired:
            pause = min(pause, self._succession.pass_on())
        elif self._succession.has_room:
            self._welcome(True)
        if gate.now >= self._next_housekeeping:
            self._next_housekeeping = gate.now + TICK
            self._housekeep()
        # A signal may have asked for an earlier one meanwhile.
        self._next_tick = min(self._next_tick, gate.now + pause, self._next_housekeeping)

    def _inherit(self) -> None:
        """A retired gate passes something on. Not now: what is cut is closed, and a batch of events is under way."""
        self._inherits = True
        self._next_tick = 0.0

    def _take_over(self) -> None:
        """Go on with what a retired gate has begun, as far as this gate's policy has it."""
        self._inherits = False
        for connection in self._succession.take():
            self._review.examine(connection)
        if not self._succession.has_room:
            self._welcome(False)

    def _welcome(self, wanted: bool) -> None:
        """Watch for connections to take over, or leave them to others."""
        if wanted and not self._welcoming:
            self._gate.epoll.register(self._succession.descriptor, EPOLLIN | EPOLLEXCLUSIVE)
        elif self._welcoming and not wanted:
            self._gate.epoll.unregister(self._succession.descriptor)
        self._welcoming = wanted

    def _accept(self) -> None:
        for listener in self._given.listeners:
            self._gate.add_listener(listener)

    def _housekeep(self) -> None:
        self._enforcer.settle()
        self._sender.flush()
        self._count_others()
        report = json.dumps(self._report()).encode()
        try:
            self._given.reports.send(report, socket.MSG_DONTWAIT)
        except OSError:
            return

    def _count_others(self) -> None:
        for name, number in (
            (AT_LIMIT, self._gate.refused_at_limit),
            (HANDED_OVER, self._openers.handed_over),
            (NOT_HANDED_OVER, self._openers.failed),
            (RECORDS_DROPPED, self._sender.dropped),
        ):
            self._enforcer.counters.put(name, number)

    def _report(self) -> dict[str, object]:
        """What the supervisor tells about this gate."""
        gate, counters = self._gate, self._enforcer.counters
        return {
            "pid": os.getpid(),
            "leaving": self._leaving,
            "connections": gate.open_connections,
            "clients": len(gate.clients),
            "errors": dict(counters.errors),
            "last_error": counters.last_error,
            "loops": counters.loops,
            "timeouts": counters.timeouts,
            "cuts": counters.cuts,
            "refused_at_limit": gate.refused_at_limit,
            "handed_over": self._openers.handed_over,
            "not_handed_over": self._openers.failed,
            "taken_over": self._succession.taken_over,
            "passed_on": self._succession.passed_on,
            "judged_again": self._review.judged,
            "records_dropped": self._sender.dropped,
        }

    # -- being told

    def _listen_to_signals(self) -> None:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._watch(read, lambda: self._empty(read))
        signal.signal(GO, lambda *_: self._orders.append(self._accept))
        signal.signal(RETIRE, lambda *_: self._orders.append(self._retire))
        signal.signal(signal.SIGTERM, lambda *_: self._orders.append(partial(self._leave, self._given.drain)))
        for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor's business, though the terminal tells everyone
            signal.signal(number, signal.SIG_IGN)

    def _watch(self, descriptor: int, callback: Callable[[], None], events: int = EPOLLIN) -> None:
        self._gate.callbacks[descriptor] = callback
        self._gate.epoll.register(descriptor, events)

    def _empty(self, descriptor: int) -> None:
        os.read(descriptor, 4096)

    def _orphaned(self) -> None:
        """The supervisor is gone: nobody would restart us or read our log."""
        self._gate.epoll.unregister(self._given.lifeline)
        self._orders.append(partial(self._leave, self._given.drain))

    def _retire(self) -> None:
        """Others have a newer policy: they go on with what is open."""
        self._retired = True
        self._welcome(False)
        self._leave(float("inf"))

    def _leave(self, seconds: float) -> None:
        """Accept no more, and end with the last connection, or when time is up."""
        self._leaving = True
        self._next_tick = self._next_housekeeping = 0.0  # report it now
        self._gate.stop_accepting()
        self._give_up_at = min(self._give_up_at, self._gate.now + seconds)
