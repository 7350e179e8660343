"""Starts the supervisor's child processes, and starts those that died again.

It forks, so it must run in a process with one thread.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records.record import this_observer
from tokgate.blocklog.write.channel import left_in, new_backlog
from tokgate.blocklog.write.collector import DEADLINE, FINISH
from tokgate.config.reload.gc_tuning import freeze_objects
from tokgate.config.reload.holder import PolicyHolder
from tokgate.gate import handoff
from tokgate.gate.quic.sockets import QuicSockets
from tokgate.gate.sockets import Entry
from tokgate.gate.takeover import FORMAT
from tokgate.service import listeners, process_health
from tokgate.service.child_programs import ChildPrograms, SuperviseOptions
from tokgate.service.children import Channels, Child, Role, fork, readable, told_by_children
from tokgate.service.gate_process import GO, RETIRE
from tokgate.service.listeners import inherited_listener, listen_for_scrapers
from tokgate.service.metrics.sample import Deaths
from tokgate.service.process_health import Restarts
from tokgate.service.program_change import Bequest, QuicBequest, Survivor
from tokgate.service.status import SILENT, WorkerStatus
from tokgate.traffic.counters import Key, ProcessCounters, SharedCounters
from tokgate.traffic.warning_state import WarnedClients, open_beside

logger = logging.getLogger(__name__)

READY: Final = 5.0
"""Seconds for new gates to report; after that the old ones are retired anyway."""
STOPPED: Final = 0.5
"""Seconds for old gates to report that they stopped accepting; after that the new ones start anyway."""
ENDED: Final = 1.0
"""Seconds for processes that were told to end at once."""
KILLED: Final = 1.0
"""Seconds for processes that were killed to be gone."""
GENERATIONS: Final = 8
"""Retired generations of gates that may keep connections; older ones are drained."""


class ChildProcesses(ChildPrograms):
    """Starts, replaces, watches and ends the child processes of the supervisor."""

    def __init__(
        self,
        options: SuperviseOptions,
        holder: PolicyHolder,
        *,
        bequest: Bequest | None = None,
        let_go: Callable[[], None],
        died: Callable[[str], None],
        left: Callable[[bytes], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is opened or started yet.

        `let_go` is called in a child and closes what only the supervisor needs. `died` gets a description of each
        process that exited without being told to, `left` each record that a process left unsent. `meanwhile` is called
        often while this waits for processes. With a `bequest`, `begin` goes on where the program before ended.
        """
        channels = Channels.made() if bequest is None else Channels.inherited(bequest.channels)
        super().__init__(options, holder, channels, let_go)
        self.counters: Final = ProcessCounters()
        self._children: Final[dict[int, Child]] = {}
        self._replaced_openers: Final[list[Child]] = []
        self.others: Final[dict[int, Callable[[int], None]]] = {}
        """What is called with the exit code of a process that is no child in one of the roles, by process id."""
        self._bequest = bequest
        self._restarts: Final = Restarts(died)
        self.log_kept = holder.snapshot.settings.log
        """The log settings with which the collector was started."""
        self.ending = False
        """Whether processes that exit are not to be started again."""
        self._left: Final = left
        self._meanwhile: Final = meanwhile
        self._generation_due = False
        """Whether gates serve by the policy before, since none could be started with the new one."""
        self._heartbeat: Final = process_health.Heartbeat(time.monotonic())

    def listen(self, kept: list[socket.socket]) -> None:
        """Open the listeners, which all gates share: while one is replaced, others accept.

        Those of the `kept` that fit are used and taken out of it. Raises OSError.
        """
        if self._bequest is not None:
            self._inherit(self._bequest)
            return
        if self._options.metrics is not None:
            self.metrics = listen_for_scrapers(*self._options.metrics)
        self.listeners.extend(listeners.open_listeners(self._options.endpoints, kept))
        self.quic = listeners.open_quic(self.listeners, self._options.workers)

    def begin(self) -> None:
        """Start all processes, the collector first; or those that take the places of the program's before."""
        bequest, self._bequest = self._bequest, None
        self.warned = (
            open_beside(self._options.log, Instant.now()) if bequest is None else WarnedClients(bequest.warned)
        )
        freeze_objects()
        if bequest is None:
            for role, slot in self._wanted():
                self._start(role, slot)
            return
        for child in self._children.values():  # of the program before; its openers retire once the new ones serve
            if child.role is Role.OPENER and not child.retired:
                self._replaced_openers.append(child)
            elif child.role in (Role.COLLECTOR, Role.METRICS) and not child.retired:
                child.retired = True
                child.signal(FINISH if child.role is Role.COLLECTOR else signal.SIGTERM)
        for role, slot in self._wanted():
            if role in (Role.OPENER, Role.METRICS):
                self._start(role, slot)
        self.next_generation()

    def workers(self) -> list[WorkerStatus]:
        """All child processes, as `tokgate status` shows them."""
        return [child.as_worker() for child in self._children.values()]

    def log_report(self) -> Any:
        """The collector's latest report on the log; None before its first, and while it reports nothing."""
        now, current = time.monotonic(), [child for child in self._children.values() if not child.retired]
        found = (child for child in current if child.role is Role.COLLECTOR and child.silence(now) < SILENT)
        return next((child.report.get("log") for child in found), None)

    @property
    def gates_report(self) -> bool:
        """Whether all gates have reported: then they accept."""
        gates = self._newest_gates()
        return bool(gates) and all(child.report for child in gates)

    # -- while it runs

    def tell(self, number: signal.Signals, *roles: Role) -> None:
        """Send a signal to all processes of these roles."""
        for child in self._of(*roles):
            child.signal(number)

    def reap(self) -> None:
        """Wait for children that have exited, without blocking; schedule the restart of those that died."""
        for child in list(self._children.values()):
            if child.process is not None and not child.lives:
                os.close(child.process)
                self._ended(child.pid, "ended")  # its exit code is told to its own parent
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            how = os.waitstatus_to_exitcode(status)
            if pid in self.others:
                self.others.pop(pid)(how)
            self._ended(pid, f"ended with signal {-how}" if how < 0 else f"ended with exit code {how}")

    def _ended(self, pid: int, what: str) -> None:
        self.counters.end(pid)
        child = self._children.pop(pid, None)
        if child is not None and child.backlog is not None:
            try:  # the records that it left behind, which refused traffic already rests on
                for message in left_in(child.backlog):
                    self._left(message)
            except OSError as error:
                logger.error("the records that %s left can't be read: %s", child.name, error.strerror)
            finally:
                os.close(child.backlog)
        if child is None or child.retired or self.ending:
            return
        if child.role is Role.GATE:
            self.accepting.tell(child.slot, False)
        if child.hung:
            what = "hung, reported nothing, and was killed"
        self._postpone(child.role, child.slot, what, lived=time.monotonic() - child.started, hung=child.hung)

    def kill_hanging(self) -> None:
        """Kill the processes that report no more; `reap` finds them dead. To be called after `take_reports`."""
        for child in self._heartbeat.hanging(list(self._children.values()), time.monotonic()):
            child.hung = True
            child.signal(signal.SIGKILL)

    def _postpone(self, role: Role, slot: int, what: str, *, lived: float = 0.0, hung: bool = False) -> None:
        what = f"{role.value}-{slot} {what}"
        self._restarts.postpone(role, slot, what, time.monotonic(), lived=lived, hung=hung)

    def faults(self) -> list[str]:
        """What is wrong with the processes, in words."""
        children = list(self._children.values())
        waits = (
            ["the newest policy is not in force in gates: none can be started with it"] if self._generation_due else []
        )
        return [*waits, *process_health.faults(children, self._wanted(), self._restarts.states, time.monotonic())]

    def deaths(self) -> Deaths:
        states = {f"{role.value}-{slot}": state for (role, slot), state in self._restarts.states.items()}
        return Deaths(
            tuple(role.value for role in dict.fromkeys(role for role, _ in self._wanted())),
            {name: state.deaths for name, state in states.items()},
            {name: state.hangs for name, state in states.items()},
        )

    def restart_missing(self) -> None:
        """Start the processes that are missing, unless their delay has not passed."""
        serving = [child for child in self._children.values() if not child.retired]
        running = {(child.role, child.slot) for child in serving if child not in self._replaced_openers}
        # Only one process can write the log; a collector that finishes is soon gone.
        running |= {(child.role, child.slot) for child in self._of(Role.COLLECTOR)}
        for role, slot in self._wanted():
            if (role, slot) not in running and self._restarts.due(role, slot, time.monotonic()):
                self._start(role, slot)
        if self._generation_due and self._restarts.due(Role.GATE, 0, time.monotonic()):
            self.next_generation()

    def take_reports(self) -> None:
        """Receive pending reports; the latest of each process is kept."""
        for report in told_by_children(self.reports):
            child = self._children.get(report.get("pid", 0))
            if child is not None:
                child.report, child.heard = report, time.monotonic()

    def next_generation(self) -> None:
        """Replace the gates by ones with the new policy, at one instant for all clients, without losing a connection.

        The new gates are made ready. Then the old ones stop accepting and hand open connections over, and only then the
        new ones start accepting. Meanwhile connections wait in the queues of the listeners, which are shared.
        Where no new gate can be started, the old ones serve on, and `restart_missing` tries again.
        """
        old = self._newest_gates()
        started = [self._start(Role.GATE, slot, waits=True) for slot in range(self._options.workers)]
        self._generation_due = bool(old) and not any(started)
        if self._generation_due:
            return
        new = [child for child in self._newest_gates() if child not in old]
        self._wait(READY, lambda: all(child.report for child in new))
        for child in old:  # not before: until then they serve, and who asks is told so
            child.retired = True
            child.signal(RETIRE)
        self._wait(STOPPED, lambda: all(child.report.get("ending") for child in old if child.lives))
        for child in self._newest_gates():
            child.signal(GO)
        retired = [child for child in self._children.values() if child.retired and child.role is Role.GATE]
        retired.sort(key=lambda child: child.started)
        for child in retired[: -GENERATIONS * self._options.workers]:
            child.drain()

    def _wait(self, seconds: float, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + seconds
        while not done() and time.monotonic() < give_up:
            readable([self.reports], 0.01)
            self.take_reports()
            self._meanwhile()

    def _newest_gates(self) -> list[Child]:
        return [child for child in self._children.values() if child.role is Role.GATE and not child.retired]

    # -- the next program

    def bequeath(self, told: Mapping[int, Mapping[Key, int]], control: int | None, caller: int | None) -> Bequest:
        """What the next program needs. Raises OSError.

        `told`: what this one has told of each process's counters. `caller` waits for an answer, `control` is the
        listener of the control socket. Without a caller the next program is another process.
        """
        if caller is None:
            for child in self._children.values():
                if child.process is None:
                    child.process = os.pidfd_open(child.pid)  # it was not waited for, so the number is still its own
        warned, ends = self.warned.descriptor, [(w.fileno(), r.fileno()) for w, r in self.quic_channels]
        if warned is None:
            raise RuntimeError("nothing has begun")
        return Bequest(
            program=this_observer().version,
            takeover=FORMAT,
            channels=self.channels.descriptors(),
            listeners=[(each.socket.fileno(), each.entry.value) for each in self.listeners],
            metrics=None if self.metrics is None else self.metrics.fileno(),
            control=control,
            quic=None if self.quic is None else QuicBequest(*self.quic.descriptors(), ends),
            warned=warned,
            caller=caller,
            children=[
                Survivor(child, self.counters.of(child.pid).share(), [*told.get(child.pid, {}).items()])
                for child in self._children.values()
            ],
            options=self._options.shape,
        )

    def _inherit(self, bequest: Bequest) -> None:
        """Take over listeners and processes."""
        if bequest.metrics is not None:
            self.metrics = socket.socket(fileno=bequest.metrics)
        self.listeners.extend(inherited_listener(number, Entry(entry)) for number, entry in bequest.listeners)
        if bequest.quic is not None:
            self.quic = QuicSockets.inherited(bequest.quic.fronts, bequest.quic.raw)
            ends = [(socket.socket(fileno=w), socket.socket(fileno=r)) for w, r in bequest.quic.channels]
            self.quic_channels = ends
        for each in bequest.children:
            child = self._children[each.child.pid] = each.child
            child.report, child.heard = {}, time.monotonic()
            self.counters.begin(child.pid, SharedCounters(each.shared), dict(each.told))
        if bequest.takeover != FORMAT:  # old gates keep their connections: nobody would understand what they pass on
            self.channels.transfers_out.shutdown(socket.SHUT_RD)
            transfers_in, transfers_out = handoff.channel()
            self.channels = replace(self.channels, transfers_in=transfers_in, transfers_out=transfers_out)

    def retire_replaced(self) -> None:
        """Retire the openers of the program before, once those of this one serve."""
        if self._replaced_openers:
            serving = [c for c in self._children.values() if c.role is Role.OPENER and not c.retired]
            new = [child for child in serving if child not in self._replaced_openers]
            if new and all(child.report for child in new):  # else those that began have died, and begin again
                for child in self._replaced_openers:  # they take no more connections, and end with their last ones
                    child.retired = True
                    child.signal(RETIRE)
                self._replaced_openers.clear()

    # -- the end

    def drain(self, seconds: float, hurried: Callable[[], bool]) -> None:
        """Have gates, openers and metrics drain for `seconds`, or until `hurried` returns True; then end them."""
        self.ending = True
        self.close_listeners()
        give_up, carriers = time.monotonic() + seconds, (Role.GATE, Role.OPENER)
        for roles in ((Role.GATE,), (Role.OPENER,)):  # openers last: gates may have clients for them
            for child in self._of(*roles):
                child.drain()
            self._await(give_up - time.monotonic(), lambda: hurried() or not self._of(roles[0]))  # noqa: B023
        self.tell(signal.SIGTERM, Role.GATE)  # the second signal ends them at once
        self.tell(signal.SIGINT, Role.OPENER)  # SIGTERM may have been sent just now, and two of a kind become one
        self._await(ENDED, lambda: not self._of(*carriers))
        self.tell(signal.SIGKILL, *carriers)
        self._await(KILLED, lambda: not self._of(*carriers))  # what they left is sent before the collector ends

    def need_collector(self) -> None:
        """Start the collector, if none is there for what is still to be logged. One that finishes is waited for."""
        self.reap()
        self._await(ENDED + DEADLINE, lambda: not any(child.retired for child in self._of(Role.COLLECTOR)))
        if not self._of(Role.COLLECTOR):
            self._start(Role.COLLECTOR, 0)

    def _of(self, *roles: Role) -> Sequence[Child]:
        return [child for child in self._children.values() if child.role in roles]

    def end(self) -> None:
        """Have the remaining processes exit, the collector last: then no process sends records any more."""
        os.close(self.channels.lifeline_in)
        self._await(10.0, lambda: not self._children)
        for child in self._children.values():
            child.signal(signal.SIGKILL)

    def _await(self, seconds: float, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + seconds
        while not done() and time.monotonic() < give_up:
            time.sleep(0.02)
            self.reap()
            self._meanwhile()

    # -- beginning

    def _wanted(self) -> list[tuple[Role, int]]:
        """The roles and slots that have to run, in the order of their start."""
        wanted = [(Role.COLLECTOR, 0)]
        wanted += [(Role.METRICS, 0)] if self.metrics is not None else []
        wanted += [(Role.OPENER, slot) for slot in range(self._options.openers)]
        return [*wanted, *((Role.GATE, slot) for slot in range(self._options.workers))]

    def _start(self, role: Role, slot: int, *, waits: bool = False) -> bool:
        """Fork a child, in which this never returns. If the system lacks resources: False, and `_restarts` knows."""
        sys.stderr.flush()
        self.warned.catch_up()  # a new gate inherits these entries
        shared = backlog = None
        try:
            shared, backlog = SharedCounters(), new_backlog()
            pid = fork()
        except OSError as error:
            if shared is not None:
                shared.close()
            if backlog is not None:
                os.close(backlog)
            self._postpone(role, slot, f"can't be started: {error.strerror}")
            return False
        if not pid:
            self.counters.keep()
            self.become(role, slot, shared, backlog, waits)
        if role is Role.COLLECTOR:
            self.log_kept = self._holder.snapshot.settings.log
        self._children[pid] = Child(role, slot, pid, time.monotonic(), self._holder.snapshot.version, backlog)
        self.counters.begin(pid, shared)
        return True
