"""Supervises the processes that carry traffic: gates, openers and the collector of their records.

It carries none itself and has one thread, so that it may fork: a gate is a fork of it, with the policy compiled and the
listeners open. It reads changed policies, restarts what died, and ends everything in order.
"""

import asyncio
import contextlib
import json
import logging
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog import channel, lifecycle
from tokgate.blocklog import health as log_health
from tokgate.blocklog.collector import collect
from tokgate.blocklog.custody import sealing_of
from tokgate.blocklog.document import Record
from tokgate.blocklog.stamp import Observer, Stamp, new_stamp, this_observer
from tokgate.config.memory import settle
from tokgate.config.reload import PolicyError, PolicyHolder, Reloaded, open_policy
from tokgate.gate import handover, listening, phases
from tokgate.gate.counters import decisions_in
from tokgate.gate.coverage import CoverageTeller
from tokgate.gate.endpoints import Endpoint, listen_for_scrapers
from tokgate.gate.gate import Limits
from tokgate.gate.overview import dialled
from tokgate.gate.process import GO, RETIRE, GateProcess, Inheritance
from tokgate.gate.sockets import Listener
from tokgate.gate.tally import Tally
from tokgate.gate.warned import WarnedClients, open_beside
from tokgate.proxy import vitals
from tokgate.proxy.census import Census
from tokgate.proxy.children import Child, Health, Role
from tokgate.proxy.control import Control, Request
from tokgate.proxy.keys import secure_folder
from tokgate.proxy.ledger import Ledger
from tokgate.proxy.reloading import Waiting, announce
from tokgate.proxy.reminders import Courier
from tokgate.proxy.state import restart_needed, state_of

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
GENERATIONS: Final = 8
"""Gates with an old policy that may linger, should they not get rid of their connections; the oldest beyond drain."""

READING_NICE: Final = 10
"""How far reading a policy stands back behind traffic, see nice(2)."""


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


class Supervisor:
    """Starts everything, keeps it running, ends it."""

    def __init__(self, options: SuperviseOptions, holder: PolicyHolder, say: Callable[[str], None]) -> None:
        """Nothing is opened before `run`."""
        self._options: Final = options
        self._holder: Final = holder
        self._say: Final = say
        self._observer: Final = this_observer()
        self._children: Final[dict[int, Child]] = {}
        self._health: Final[dict[tuple[Role, int], Health]] = {}
        self._listeners: Final[list[Listener]] = []
        self._records_in, self._records_out = channel.channel()
        self._openers_in, self._openers_out = handover.channel()
        self._heirs, self._estate = handover.channel()
        self._reports_in, self._reports_out = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lifeline_out, self._lifeline_in = os.pipe2(os.O_CLOEXEC)
        self._sender: Final = channel.RecordSender(self._records_in, self._observer)
        self._asking, self._asked = vitals.channel()
        self._metrics: socket.socket | None = None
        self._started: Final = Instant.now()
        self._reloads: Final = vitals.Reloads()
        holder.subscribe(self._reloads.note)
        self._census: Final = Census()
        self._coverage: Final = CoverageTeller(Instant.now())
        self._ledger: Final = Ledger(options.log, self._write, Courier(reaps=False))
        self._control: Final = Control(options.confdir)
        self._waiting: Final = Waiting(holder)
        self._log_kept = holder.snapshot.settings.log
        self._warned = WarnedClients()
        self._signals: Final[list[int]] = []
        self._ending: str | None = None
        self._since = Instant.now()
        self._reload_wanted = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit code: 0, or 3 for an environment that won't do."""
        try:
            self._listen()
        except OSError as error:
            self._say(f"can't listen: {error.strerror}")
            return 3
        wake = self._listen_to_signals()
        control = self._control.open()
        woken_by: list[Any] = [wake, self._reports_out, self._asked, *(() if control is None else (control,))]
        self._warned = open_beside(self._options.log, Instant.now())
        settle()
        self._start(Role.COLLECTOR, 0)
        if self._metrics is not None:
            self._start(Role.METRICS, 0)
        for slot in range(self._options.openers):
            self._start(Role.OPENER, slot)
        for slot in range(self._options.workers):
            self._start(Role.GATE, slot)
        self._write(lambda stamp: lifecycle.started(stamp, os.getpid(), self._holder.snapshot.policy))
        self._announce()
        while self._ending is None:
            nap = phases.nap(self._holder.snapshot, Instant.now())
            select.select(woken_by, [], [], nap)
            self._take_signals(wake)
            self._take_reports()
            self._take_calls()
            self._asked.answer(self._vitals)
            self._reap()
            self._restart_missing()
            self._follow_phases()
            self._follow_files()
            self._waiting.look([child.as_worker() for child in self._children.values()], self._restart_needed())
            self._ledger.look_and_save(self._holder.snapshot, Instant.now())
            self._tell_coverage(ending=False)
            self._sender.flush()
        return self._end(self._ending)

    # -- starting

    def _listen(self) -> None:
        """Open the listeners. All gates share each: while one is being replaced, the others take its clients."""
        if self._options.metrics is not None:
            self._metrics = listen_for_scrapers(*self._options.metrics)
        self._listeners.extend(listening.open_listeners(self._options.endpoints))

    def _start(self, role: Role, slot: int, *, waits: bool = False) -> None:
        """Fork a child; in it, never return."""
        sys.stderr.flush()
        tally = Tally()
        self._warned.catch_up()  # a gate begins with what is known here
        pid = os.fork()
        if pid:
            version = self._holder.snapshot.version
            if role is Role.COLLECTOR:
                self._log_kept = self._holder.snapshot.settings.log
            self._children[pid] = Child(role, slot, pid, time.monotonic(), version)
            self._census.begin(pid, tally)
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
        self._control.close(remove=False)
        if role is not Role.GATE:  # a port is closed only when nobody holds it open
            listening.close_listeners(self._listeners)
        observer = this_observer(f"{role.value}-{slot}")
        if role is Role.COLLECTOR:
            self._records_in.close()
            sealing = sealing_of(self._holder.snapshot.settings.log)
            log, observer = self._options.log, this_observer()
            return collect(self._records_out, log, observer, self._lifeline_out, sealing, report=self._report_on_log)
        if role is Role.METRICS:
            self._records_in.close()
            return self._serve_metrics()
        if role is Role.OPENER:
            self._exec_opener(slot, tally)
        GateProcess(self._inheritance(observer, tally, waits)).run()
        return 0

    def _inheritance(self, observer: Observer, tally: Tally, waits: bool) -> Inheritance:
        options = self._options
        return Inheritance(
            snapshot=self._holder.snapshot,
            listeners=tuple(self._listeners),
            records=self._records_in,
            openers=self._openers_in,
            heirs=self._heirs,
            estate=self._estate,
            reports=self._reports_in,
            lifeline=self._lifeline_out,
            observer=observer,
            tally=tally,
            limits=options.limits,
            drain=options.drain,
            warned=self._warned,
            mark=options.mark,
            waits=waits,
        )

    def _exec_opener(self, slot: int, tally: Tally) -> None:
        """Become an opener: a fresh interpreter, since mitmproxy must not be in the processes that fork."""
        options = self._options
        policy = os.memfd_create("tokgate-policy")
        with os.fdopen(os.dup(policy), "wb") as file:
            pickle.dump(self._holder.snapshot.policy, file)
        warned = self._warned.descriptor
        assert warned is not None
        descriptors = (
            *(self._openers_out.fileno(), self._records_in.fileno(), self._reports_in.fileno()),
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

        if self._metrics is None:
            raise RuntimeError("nobody asked for metrics")
        return serve_until(self._metrics, self._asking.ask, self._lifeline_out)

    def _announce(self) -> None:
        if self._metrics is not None:
            self._say(f"metrics: http://{dialled(*self._metrics.getsockname()[:2])}/metrics")
        listening.announce(self._listeners, self._holder.snapshot, self._say)

    # -- signals

    def _listen_to_signals(self) -> int:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, _: self._signals.append(number))
        return read

    def _take_signals(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                self._ending = signal.Signals(number).name
            elif number == signal.SIGHUP:
                self._reload_wanted = True
                self._tell(signal.SIGHUP, Role.COLLECTOR, Role.OPENER)

    def _tell(self, number: signal.Signals, *roles: Role) -> None:
        for child in self._children.values():
            if child.role in roles:
                _kill(child.pid, number)

    # -- children

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._census.end(pid)
            child = self._children.pop(pid, None)
            if child is None or child.retired or self._ending is not None:
                continue
            lived = time.monotonic() - child.started
            health = self._health.setdefault((child.role, child.slot), Health())
            health.deaths += 1
            health.failures = 1 if lived > STEADY else health.failures + 1
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (health.failures - 1))
            health.not_before = time.monotonic() + delay
            how = os.waitstatus_to_exitcode(status)
            what = f"signal {-how}" if how < 0 else f"exit code {how}"
            logger.error("%s-%d ended with %s; starting it again in %.1f s", child.role.value, child.slot, what, delay)
            error = RuntimeError(f"{child.role.value}-{child.slot} ended with {what}")
            self._write(partial(lifecycle.internal_error, error=error, where="supervisor"))

    def _restart_missing(self) -> None:
        running = {(child.role, child.slot) for child in self._children.values() if not child.retired}
        wanted = [(Role.COLLECTOR, 0)]
        wanted += [(Role.METRICS, 0)] if self._metrics is not None else []
        wanted += [(Role.OPENER, slot) for slot in range(self._options.openers)]
        wanted += [(Role.GATE, slot) for slot in range(self._options.workers)]
        for role, slot in wanted:
            if (role, slot) not in running:
                health = self._health.get((role, slot))
                if health is None or time.monotonic() >= health.not_before:
                    self._start(role, slot)

    def _take_reports(self) -> None:
        while True:
            try:
                report = json.loads(self._reports_out.recv(1 << 16, socket.MSG_DONTWAIT))
            except (BlockingIOError, ValueError):
                return
            child = self._children.get(report.get("pid"))
            if child is not None:
                child.report = report

    def _take_calls(self) -> None:
        for caller in self._control.callers():
            match caller.request:
                case Request.STATUS:
                    workers = (child.as_worker() for child in self._children.values())
                    caller.answer(state_of(self._holder, workers, Instant.now(), self._restart_needed()))
                case Request.RELOAD:
                    self._waiting.add(caller)
                    self._reload_wanted = True
                    self._tell(signal.SIGHUP, Role.OPENER)
                case None:
                    caller.close()

    def _vitals(self) -> vitals.Vitals:
        logs = [child.report.get("log") for child in self._children.values() if child.role is Role.COLLECTOR]
        workers = (child.as_worker() for child in self._children.values())
        return vitals.vitals(
            state_of(self._holder, workers, Instant.now(), self._restart_needed()),
            version=self._observer.version,
            started=self._started,
            counts=self._census.total(),
            log=next(iter(logs), None),
            reloads=self._reloads,
            confdir=self._options.confdir,
            restarts={f"{role.value}-{slot}": each.deaths for (role, slot), each in self._health.items()},
        )

    def _restart_needed(self) -> tuple[str, ...]:
        return restart_needed(self._log_kept, self._holder.snapshot.settings.log)

    # -- the policy

    def _follow_files(self) -> None:
        if not self._reload_wanted and not self._holder.changed():
            return
        self._reload_wanted = False
        reloaded = asyncio.run(_behind_traffic(self._holder.reload))
        self._waiting.read(reloaded)
        announce(reloaded, self._restart_needed(), self._write)
        if reloaded.snapshot.version != reloaded.before:
            self._next_generation()

    def _next_generation(self) -> None:
        """Replace the gates by ones with the new policy, at one instant for all clients and without losing any.

        The new ones are made ready; then the old ones stop accepting and pass on what is open, and only then the new
        ones begin. In between, connections wait in the listeners' queues, which are shared.
        """
        settle()
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
            select.select([self._reports_out.fileno()], [], [], 0.01)
            self._take_reports()

    def _newest_gates(self) -> list[Child]:
        return [child for child in self._children.values() if child.role is Role.GATE and not child.retired]

    def _follow_phases(self) -> None:
        now, snapshot = Instant.now(), self._holder.snapshot
        for change in phases.passed(snapshot, self._since, now):
            self._write(partial(lifecycle.phase_changed, change=change, policy_version=snapshot.version))
        self._since = now

    def _tell_coverage(self, *, ending: bool) -> None:
        now = Instant.now()
        if ending or self._coverage.due(now):
            self._write(self._coverage.tell(decisions_in(self._census.total()), now))

    def _write(self, build: Callable[[Stamp], Record]) -> None:
        self._sender.put(build(new_stamp(Instant.now(), self._observer)))

    # -- the end

    def _end(self, reason: str) -> int:
        """Ask everyone to drain, wait, then insist; the collector ends last, when nobody sends any more."""
        self._say(f"{reason}: draining for at most {self._options.drain:g} s")
        listening.close_listeners(self._listeners)
        self._tell(signal.SIGTERM, Role.GATE, Role.OPENER, Role.METRICS)
        give_up = time.monotonic() + self._options.drain + 1.0
        carriers = self._carriers()
        while carriers and time.monotonic() < give_up and not self._signals:
            select.select([], [], [], 0.05)
            self._reap()
            self._signals[:] = [n for n in self._signals if n in (signal.SIGTERM, signal.SIGINT)]
            carriers = self._carriers()
        for child in carriers:
            _kill(child.pid, signal.SIGKILL)
        self._tell_coverage(ending=True)
        self._write(lambda stamp: lifecycle.stopped(stamp, os.getpid(), reason))
        self._sender.close()
        self._waiting.close()
        self._control.close(remove=True)
        os.close(self._lifeline_in)
        give_up = time.monotonic() + 10.0
        while self._children and time.monotonic() < give_up:
            self._reap()
            select.select([], [], [], 0.02)
        for child in self._children.values():
            _kill(child.pid, signal.SIGKILL)
        return 0

    def _carriers(self) -> Sequence[Child]:
        return [child for child in self._children.values() if child.role in (Role.GATE, Role.OPENER)]


def supervise(options: SuperviseOptions, say: Callable[[str], None]) -> int:
    """Run gates and openers until told to end; the exit code: 1 for an invalid policy, 3 for an unfit environment."""
    try:
        holder = open_policy(options.policies, Instant.now())
    except PolicyError as error:
        say(f"there is no valid policy to start with:\n{error}")
        return 1
    secure_folder(options.confdir)
    _raise_limit()
    return Supervisor(options, holder, say).run()


async def _behind_traffic(read: Callable[[], Awaitable[Reloaded]]) -> Reloaded:
    """Read with less right to the processors than the gates have, which serve on meanwhile."""
    executor = ThreadPoolExecutor(1, initializer=lambda: os.setpriority(os.PRIO_PROCESS, 0, READING_NICE))
    asyncio.get_running_loop().set_default_executor(executor)  # on Linux a priority is a thread's, and ends with it
    return await read()


def _raise_limit() -> None:
    """Have as many descriptors as the system lets us: each connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
