"""Supervises the processes that carry traffic: gates, openers and the collector of their records.

It carries none itself and has one thread, so that it may fork: a gate is a fork of it, with the policy compiled and the
listeners open. It reads changed policies, restarts what died, and ends everything in order.
"""

import asyncio
import contextlib
import logging
import os
import resource
import select
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog import channel, lifecycle
from tokgate.blocklog.collector import DEADLINE
from tokgate.blocklog.document import Record
from tokgate.blocklog.segment import LogLocked, wait_for_lock
from tokgate.blocklog.stamp import Stamp, new_stamp, this_observer
from tokgate.config.memory import settle
from tokgate.config.reload import PolicyError, PolicyHolder, Reloaded, open_policy
from tokgate.config.settling import LOOK_AGAIN, Fingerprint, Settling
from tokgate.gate import listening, phases
from tokgate.gate.counters import decisions_in
from tokgate.gate.coverage import CoverageTeller
from tokgate.gate.overview import dialled
from tokgate.policy.snapshot import Snapshot
from tokgate.proxy import vitals
from tokgate.proxy.children import Role
from tokgate.proxy.control import Control, Request
from tokgate.proxy.family import BEHIND_TRAFFIC, Family, SuperviseOptions
from tokgate.proxy.keys import establish_authority, secure_folder
from tokgate.proxy.ledger import Ledger
from tokgate.proxy.reloading import Waiting, announce
from tokgate.proxy.reminders import Courier
from tokgate.proxy.state import restart_needed, state_of

logger = logging.getLogger(__name__)


class Supervisor:
    """Starts everything, keeps it running, ends it."""

    def __init__(self, options: SuperviseOptions, holder: PolicyHolder, say: Callable[[str], None]) -> None:
        """Nothing is opened before `run`."""
        self._options: Final = options
        self._holder: Final = holder
        self._say: Final = say
        self._observer: Final = this_observer()
        self._control: Final = Control(options.confdir)
        self._family: Final = Family(options, holder, let_go=lambda: self._control.close(remove=False), died=self._died)
        self._sender: Final = channel.RecordSender(self._family.records, self._observer)
        self._started: Final = Instant.now()
        self._reloads: Final = vitals.Reloads()
        holder.subscribe(self._reloads.note)
        self._coverage: Final = CoverageTeller(Instant.now())
        self._ledger: Final = Ledger(options.log, self._write, Courier(reaps=False))
        self._waiting: Final = Waiting(holder)
        self._signals: Final[list[int]] = []
        self._ending: str | None = None
        self._since = Instant.now()
        self._reload_wanted = False
        self._settling: Settling | None = None
        self._answers: dict[Any, Callable[[], None]] = {}
        """Who answers what comes by a socket, also while a policy is read."""

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; the exit code: 0, or 3 for an environment that won't do."""
        family = self._family
        try:
            wait_for_lock(self._options.log, DEADLINE + 1.0)
        except LogLocked as error:
            self._say(f"{error.filename}: {error.strerror}")
            return 3
        try:
            family.listen()
        except OSError as error:
            self._say(f"can't listen: {error.strerror}")
            return 3
        wake = self._listen_to_signals()
        control = self._control.open()
        self._answers = {family.reports: family.take_reports, family.asked: lambda: family.asked.answer(self._vitals)}
        if control is not None:
            self._answers[control] = self._take_calls
        # Before any gate, which may refuse somebody at once: the log of a run begins with its start.
        self._write(lambda stamp: lifecycle.started(stamp, os.getpid(), self._holder.snapshot.policy))
        family.begin()
        self._announce()
        while self._ending is None:
            nap = phases.nap(self._holder.snapshot, Instant.now())
            select.select([wake, *self._answers], [], [], nap if self._settling is None else min(nap, LOOK_AGAIN))
            self._take_signals(wake)
            for answer in self._answers.values():
                answer()
            family.reap()
            family.restart_missing()
            self._follow_phases()
            self._follow_files()
            self._waiting.look(family.workers(), self._restart_needed())
            self._ledger.look_and_save(self._holder.snapshot, Instant.now())
            self._tell_coverage(ending=False)
            self._sender.flush()
        return self._end(self._ending)

    def _announce(self) -> None:
        if self._family.metrics is not None:
            self._say(f"metrics: http://{dialled(*self._family.metrics.getsockname()[:2])}/metrics")
        listening.announce(self._family.listeners, self._holder.snapshot, self._say)

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
                self._ending, self._family.ending = signal.Signals(number).name, True
            elif number == signal.SIGHUP:
                self._reload_wanted = True
                self._family.tell(signal.SIGHUP, Role.COLLECTOR, Role.OPENER)

    # -- being asked

    def _take_calls(self) -> None:
        for caller in self._control.callers():
            match caller.request:
                case Request.STATUS:
                    caller.answer(self._state())
                case Request.RELOAD:
                    self._waiting.add(caller)
                    self._reload_wanted = True
                    self._family.tell(signal.SIGHUP, Role.OPENER)
                case None:
                    caller.close()

    def _state(self) -> dict[str, Any]:
        return state_of(self._holder, self._family.workers(), Instant.now(), self._restart_needed())

    def _vitals(self) -> vitals.Vitals:
        return vitals.vitals(
            self._state(),
            version=self._observer.version,
            started=self._started,
            counts=self._family.census.total(),
            log=self._family.log_report(),
            reloads=self._reloads,
            confdir=self._options.confdir,
            restarts={f"{role.value}-{slot}": each.deaths for (role, slot), each in self._family.health.items()},
        )

    def _restart_needed(self) -> tuple[str, ...]:
        return restart_needed(self._family.log_kept, self._holder.snapshot.settings.log)

    # -- the policy

    def _follow_files(self) -> None:
        """Read once the files rest; until then there is other work: somebody may be at them for long."""
        if self._settling is None and (self._reload_wanted or self._holder.changed()):
            self._settling = self._holder.settling()
        rested = None if self._settling is None else self._settling.rested()
        if rested is None:
            return
        self._reload_wanted, self._settling = False, None
        reloaded = asyncio.run(_behind_traffic(self._holder, rested, self._answers))
        if reloaded is None:
            self._reload_wanted = True
            return
        if not self._reload_wanted:  # else somebody has asked meanwhile, and waits for the next reading
            self._waiting.read(reloaded)
        announce(reloaded, self._restart_needed(), self._write)
        if reloaded.snapshot.version != reloaded.before:
            self._family.next_generation()

    def _follow_phases(self) -> None:
        now, snapshot = Instant.now(), self._holder.snapshot
        for change in phases.passed(snapshot, self._since, now):
            self._write(partial(lifecycle.phase_changed, change=change, policy_version=snapshot.version))
        self._since = now

    def _tell_coverage(self, *, ending: bool) -> None:
        now = Instant.now()
        if ending or self._coverage.due(now):
            self._write(self._coverage.tell(decisions_in(self._family.census.total()), now))

    def _died(self, what: str) -> None:
        self._write(partial(lifecycle.internal_error, error=RuntimeError(what), where="supervisor"))

    def _write(self, build: Callable[[Stamp], Record]) -> None:
        self._sender.put(build(new_stamp(Instant.now(), self._observer)))

    # -- the end

    def _end(self, reason: str) -> int:
        """Ask everyone to drain, wait, then insist; the collector ends last, when nobody sends any more."""
        self._say(f"{reason}: draining for at most {self._options.drain:g} s")
        self._family.drain(self._options.drain + 1.0, self._hurried)
        self._tell_coverage(ending=True)
        self._write(lambda stamp: lifecycle.stopped(stamp, os.getpid(), reason))
        self._sender.close()
        self._waiting.close()
        self._control.close(remove=True)
        self._family.end()
        return 0

    def _hurried(self) -> bool:
        """Whether somebody asked again for the end."""
        self._signals[:] = [number for number in self._signals if number in (signal.SIGTERM, signal.SIGINT)]
        return bool(self._signals)


def supervise(options: SuperviseOptions, say: Callable[[str], None]) -> int:
    """Run gates and openers until told to end; the exit code: 1 for an invalid policy, 3 for an unfit environment."""
    try:
        holder = open_policy(options.policies, Instant.now())
    except PolicyError as error:
        say(f"there is no valid policy to start with:\n{error}")
        return 1
    secure_folder(options.confdir)
    establish_authority(options.confdir, Instant.now())
    _raise_limit()
    return Supervisor(options, holder, say).run()


async def _behind_traffic(
    holder: PolicyHolder, rested: Fingerprint, answers: Mapping[Any, Callable[[], None]]
) -> Reloaded | None:
    """Read, and tidy up for the forks to come, with less right to the processors than the gates have.

    Whoever asks something meanwhile is answered; nobody is forked, since there are two threads.
    """
    executor = ThreadPoolExecutor(1, initializer=lambda: os.setpriority(os.PRIO_PROCESS, 0, BEHIND_TRAFFIC))
    asyncio.get_running_loop().set_default_executor(executor)  # on Linux a priority is a thread's, and ends with it
    for descriptor, answer in answers.items():
        asyncio.get_running_loop().add_reader(descriptor, answer)
    replaced = [holder.snapshot]
    reloaded = await holder.read_rested(rested)
    await asyncio.to_thread(_tidy, replaced)
    return reloaded


def _tidy(replaced: list[Snapshot]) -> None:
    """Let go of what was replaced, in the thread that stands back: a million objects take a while."""
    replaced.clear()
    settle()


def _raise_limit() -> None:
    """Have as many descriptors as the system lets us: each connection takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
