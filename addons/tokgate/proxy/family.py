"""The processes under the supervisor: what each inherits, how it begins, and that it begins again when it has died.

Forks, so it must run in a process of one thread.
"""

import contextlib
import json
import logging
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog import channel
from tokgate.blocklog import health as log_health
from tokgate.blocklog.collector import collect
from tokgate.blocklog.custody import sealing_of
from tokgate.blocklog.stamp import Observer, this_observer
from tokgate.config.memory import settle
from tokgate.config.reload import PolicyHolder
from tokgate.gate import handover, listening
from tokgate.gate.endpoints import Endpoint, listen_for_scrapers
from tokgate.gate.gate import Limits
from tokgate.gate.process import GO, RETIRE, GateProcess, Inheritance
from tokgate.gate.sockets import Listener
from tokgate.gate.tally import Tally
from tokgate.gate.warned import WarnedClients, open_beside
from tokgate.proxy import vitals
from tokgate.proxy.census import Census
from tokgate.proxy.children import Child, Health, Role
from tokgate.proxy.state import Worker

logger = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 30.0
"""Seconds before a process that keeps dying is started again: doubled each time, from the first to the longest."""
STEADY: Final = 10.0
"""Seconds after which a process that lives counts as well again."""
READY: Final = 5.0
"""Seconds that new gates have to report before the old ones are retired all the same."""
STOPPED: Final = 0.5
"""Seconds that old gates have to report that they stopped before the new ones begin all the same."""
BEHIND_TRAFFIC: Final = 10
"""How far openers, and reading a policy, stand back behind gates where processors are short; see nice(2)."""
GENERATIONS: Final = 8
"""Gates with an old policy that may linger, should they not get rid of their connections; the oldest beyond drain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperviseOptions:
    """What a person chooses. Times in seconds."""

    endpoints: tuple[Endpoint, ...]
    policies: Path
    log: Path
    confdir: Path
    workers: int
    openers: int = 1
    drain: float = 30.0
    implementer: str = ""
    mark: int | None = None
    limits: Limits = field(default_factory=Limits)
    metrics: tuple[str, int] | None = None
    """Host and port where metrics can be had."""


class Family:
    """All children, and the channels that they share with their supervisor and with each other."""

    def __init__(
        self,
        options: SuperviseOptions,
        holder: PolicyHolder,
        *,
        let_go: Callable[[], None],
        died: Callable[[str], None],
    ) -> None:
        """Nothing is opened or started yet.

        `let_go` closes in a child what of the supervisor's it must not keep. `died` is told, in words, of whoever
        ended without being asked to.
        """
        self.records, self._records_out = channel.channel()
        """Where records are sent."""
        self._reports_in, self.reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking, self.asked = vitals.channel()
        """Where the process for metrics asks."""
        self.metrics: socket.socket | None = None
        self.listeners: Final[list[Listener]] = []
        self.census: Final = Census()
        self.warned = WarnedClients()
        self.health: Final[dict[tuple[Role, int], Health]] = {}
        self.log_kept = holder.snapshot.settings.log
        """The settings with which the collector was started."""
        self.ending = False
        """Whether nobody is to be started again."""
        self._options: Final = options
        self._holder: Final = holder
        self._died: Final = died
        self._children: Final[dict[int, Child]] = {}
        self._openers_in, self._openers_out = handover.channel()
        self._heirs, self._estate = handover.channel()
        self._lifeline_out, self._lifeline_in = os.pipe2(os.O_CLOEXEC)
        self._let_go: Final = let_go

    def listen(self) -> None:
        """Open the listeners. All gates share each: while one is being replaced, the others take its clients."""
        if self._options.metrics is not None:
            self.metrics = listen_for_scrapers(*self._options.metrics)
        self.listeners.extend(listening.open_listeners(self._options.endpoints))

    def begin(self) -> None:
        """Start everybody."""
        self.warned = open_beside(self._options.log, Instant.now())
        settle()
        for role, slot in self._wanted():
            self._start(role, slot)

    def workers(self) -> list[Worker]:
        """Everybody, as it is told."""
        return [child.as_worker() for child in self._children.values()]

    def log_report(self) -> Any:
        """What the collector says of the log, if it has said anything."""
        return next((c.report.get("log") for c in self._children.values() if c.role is Role.COLLECTOR), None)

    # -- while it runs

    def tell(self, number: signal.Signals, *roles: Role) -> None:
        """Send everybody with these roles a signal."""
        for child in self._children.values():
            if child.role in roles:
                _kill(child.pid, number)

    def reap(self) -> None:
        """Take note of who has ended."""
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.census.end(pid)
            child = self._children.pop(pid, None)
            if child is None or child.retired or self.ending:
                continue
            how = os.waitstatus_to_exitcode(status)
            what = f"signal {-how}" if how < 0 else f"exit code {how}"
            lived = time.monotonic() - child.started
            self._postpone(child.role, child.slot, f"{child.name} ended with {what}", lived=lived)

    def _postpone(self, role: Role, slot: int, what: str, *, lived: float) -> None:
        """Tell of a failure, and how long to wait until the next start."""
        health = self.health.setdefault((role, slot), Health())
        health.deaths += 1
        health.failures = 1 if lived > STEADY else health.failures + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (health.failures - 1))
        health.not_before = time.monotonic() + delay
        logger.error("%s; starting it again in %.1f s", what, delay)
        self._died(what)

    def restart_missing(self) -> None:
        """Start again who is not there, unless it died a moment ago."""
        running = {(child.role, child.slot) for child in self._children.values() if not child.retired}
        for role, slot in self._wanted():
            if (role, slot) not in running:
                health = self.health.get((role, slot))
                if health is None or time.monotonic() >= health.not_before:
                    self._start(role, slot)

    def take_reports(self) -> None:
        """Keep the latest that each says of itself."""
        while True:
            try:
                report = json.loads(self.reports.recv(1 << 16, socket.MSG_DONTWAIT))
            except (BlockingIOError, ValueError):
                return
            child = self._children.get(report.get("pid"))
            if child is not None:
                child.report = report

    def next_generation(self) -> None:
        """Replace the gates by ones with the new policy, at one instant for all clients and without losing any.

        The new ones are made ready; then the old ones stop accepting and pass on what is open, and only then the new
        ones begin. In between, connections wait in the listeners' queues, which are shared.
        """
        old = self._newest_gates()
        for child in old:
            child.retired = True
        for slot in range(self._options.workers):
            self._start(Role.GATE, slot, waits=True)
        self._wait(READY, lambda: all(child.report for child in self._newest_gates()))
        for child in old:
            _kill(child.pid, RETIRE)
        self._wait(STOPPED, lambda: all(child.report.get("leaving") for child in old if _lives(child.pid)))
        for child in self._newest_gates():
            _kill(child.pid, GO)
        retired = [child for child in self._children.values() if child.retired]
        retired.sort(key=lambda child: child.started)
        for child in retired[: -GENERATIONS * self._options.workers]:
            _kill(child.pid, signal.SIGTERM)

    def _wait(self, seconds: float, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + seconds
        while not done() and time.monotonic() < give_up:
            select.select([self.reports], [], [], 0.01)
            self.take_reports()

    def _newest_gates(self) -> list[Child]:
        return [child for child in self._children.values() if child.role is Role.GATE and not child.retired]

    # -- the end

    def drain(self, seconds: float, hurried: Callable[[], bool]) -> None:
        """Have those that carry traffic end in order, for `seconds` or until somebody is in a hurry; then at once."""
        self.ending = True
        listening.close_listeners(self.listeners)
        self.tell(signal.SIGTERM, Role.GATE, Role.OPENER, Role.METRICS)
        self._await(seconds, lambda: hurried() or not self._carriers())
        for child in self._carriers():
            _kill(child.pid, signal.SIGKILL)

    def end(self) -> None:
        """Have the others end: the collector last, when nobody sends any more."""
        os.close(self._lifeline_in)
        self._await(10.0, lambda: not self._children)
        for child in self._children.values():
            _kill(child.pid, signal.SIGKILL)

    def _await(self, seconds: float, done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + seconds
        while not done() and time.monotonic() < give_up:
            select.select([], [], [], 0.02)
            self.reap()

    def _carriers(self) -> Sequence[Child]:
        return [child for child in self._children.values() if child.role in (Role.GATE, Role.OPENER)]

    # -- beginning

    def _wanted(self) -> list[tuple[Role, int]]:
        """Who is to be there, in the order in which to begin."""
        wanted = [(Role.COLLECTOR, 0)]
        wanted += [(Role.METRICS, 0)] if self.metrics is not None else []
        wanted += [(Role.OPENER, slot) for slot in range(self._options.openers)]
        return [*wanted, *((Role.GATE, slot) for slot in range(self._options.workers))]

    def _start(self, role: Role, slot: int, *, waits: bool = False) -> None:
        """Fork a child; in it, never return. Should the system not have what that takes, it is tried again."""
        sys.stderr.flush()
        self.warned.catch_up()  # a gate begins with what is known here
        tally = None
        try:
            tally = Tally()
            pid = os.fork()
        except OSError as error:
            if tally is not None:
                tally.close()
            self._postpone(role, slot, f"{role.value}-{slot} can't be started: {error.strerror}", lived=0.0)
            return
        if pid:
            version = self._holder.snapshot.version
            if role is Role.COLLECTOR:
                self.log_kept = self._holder.snapshot.settings.log
            self._children[pid] = Child(role, slot, pid, time.monotonic(), version)
            self.census.begin(pid, tally)
            return
        code = 3
        try:
            code = self._become(role, slot, tally, waits)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _become(self, role: Role, slot: int, tally: Tally, waits: bool) -> int:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # also through an exec, until there is a handler for it
        os.setpgid(0, 0)  # what the terminal sends is for the supervisor, which tells us in its own way
        os.close(self._lifeline_in)
        self._let_go()
        if role is not Role.GATE:  # a port is closed only when nobody holds it open
            listening.close_listeners(self.listeners)
        observer = this_observer(f"{role.value}-{slot}")
        if role is Role.COLLECTOR:
            self.records.close()
            sealing = sealing_of(self._holder.snapshot.settings.log)
            log, observer = self._options.log, this_observer()
            return collect(self._records_out, log, observer, self._lifeline_out, sealing, report=self._report_on_log)
        if role is Role.METRICS:
            self.records.close()
            return self._serve_metrics()
        if role is Role.OPENER:
            self._exec_opener(slot, tally)
        GateProcess(self._inheritance(observer, tally, waits)).run()
        return 0

    def _inheritance(self, observer: Observer, tally: Tally, waits: bool) -> Inheritance:
        options = self._options
        return Inheritance(
            snapshot=self._holder.snapshot,
            listeners=tuple(self.listeners),
            records=self.records,
            openers=self._openers_in,
            heirs=self._heirs,
            estate=self._estate,
            reports=self._reports_in,
            lifeline=self._lifeline_out,
            observer=observer,
            tally=tally,
            limits=options.limits,
            drain=options.drain,
            warned=self.warned,
            mark=options.mark,
            waits=waits,
        )

    def _exec_opener(self, slot: int, tally: Tally) -> None:
        """Become an opener: a fresh interpreter, since mitmproxy must not be in the processes that fork."""
        options = self._options
        policy = os.memfd_create("tokgate-policy")
        with os.fdopen(os.dup(policy), "wb") as file:
            pickle.dump(self._holder.snapshot.policy, file)
        warned = self.warned.descriptor
        assert warned is not None
        descriptors = (
            *(self._openers_out.fileno(), self.records.fileno(), self._reports_in.fileno()),
            *(self._lifeline_out, policy, tally.share(), warned),
        )
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        given = {
            "handovers": descriptors[0],
            "records": descriptors[1],
            "reports": descriptors[2],
            "lifeline": descriptors[3],
            "policy": descriptors[4],
            "tally": descriptors[5],
            "warned": descriptors[6],
            "name": f"{Role.OPENER.value}-{slot}",
            "policies": str(options.policies),
            "confdir": str(options.confdir),
            "drain": options.drain,
            "implementer": options.implementer,
            "nice": BEHIND_TRAFFIC,
        }
        os.execv(sys.executable, [sys.executable, "-m", "tokgate.proxy.opener", json.dumps(given)])

    def _report_on_log(self, health: log_health.Health) -> None:
        """In the collector: tell the supervisor."""
        said = {
            "pid": os.getpid(),
            "log": vitals.log_vitals(health),
            "log_error": None if health.ok else health.last_error,
        }
        with contextlib.suppress(OSError):
            self._reports_in.send(json.dumps(said).encode(), socket.MSG_DONTWAIT)

    def _serve_metrics(self) -> int:
        """In the process for metrics: serve until the supervisor has gone."""
        from tokgate.proxy.exposition import serve_until  # nobody else needs its libraries

        if self.metrics is None:
            raise RuntimeError("nobody asked for metrics")
        return serve_until(self.metrics, self._asking.ask, self._lifeline_out)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
