"""What one running tokgate does beside traffic: phases, reminders, overrides, coverage, reloads, status.

It has two users. The supervisor calls `tick` from a loop around `select`; mitmproxy without a supervisor runs `follow`
in its event loop. Decisions don't wait for any of this: each is made for its own instant.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.record import Record
from tokgate.config.diagnostics import Level, render
from tokgate.config.reload.holder import PolicyHolder, Reloaded, WorkerThread
from tokgate.policy.analysis.definitions import weaker_settings
from tokgate.policy.analysis.now import now_of
from tokgate.policy.analysis.timeline import Transition, next_transition, transitions
from tokgate.policy.settings import LogSettings
from tokgate.runtime.notified import NotificationHistory, Write
from tokgate.traffic.counters import UNREADABLE, DecisionKey, Key, decisions_in

logger = logging.getLogger(__name__)

MAX_AT_ONCE: Final = 1000
"""Transitions reported at once, if the clock jumps over years."""
LONGEST_PAUSE: Final = 1.0
"""Seconds: how late a clock change may be noticed."""
_HOUR: Final = 3600


@dataclass(slots=True)
class Reloads:
    """How often the policy was read again, and when last. Times are seconds since the epoch."""

    succeeded: int = 0
    failed: int = 0
    last_success: float | None = None
    last_failure: float | None = None

    def note(self, reloaded: Reloaded) -> None:
        """Count a reload as succeeded or failed, at its own instant."""
        at = reloaded.at.timestamp(unit="millisecond") / 1000
        if reloaded.ok:
            self.succeeded, self.last_success = self.succeeded + 1, at
        else:
            self.failed, self.last_failure = self.failed + 1, at


class Instance:
    """One running tokgate, in one process or several. Not thread-safe, except where a method says so."""

    def __init__(
        self,
        holder: PolicyHolder,
        log: Path,
        write: Write,
        counts: Callable[[], Mapping[Key, int]],
        *,
        version: str,
        log_kept: Callable[[], LogSettings],
        now: Callable[[], Instant] = Instant.now,
    ) -> None:
        """`write` writes records; `counts` returns the counts of all processes since the start, which only grow.

        `version` is tokgate's. `log_kept` returns the settings with which the log was opened.
        """
        self.holder: Final = holder
        self._write: Final = write
        self.counts: Final = counts
        self.version: Final = version
        self.log: Final = log.absolute()
        self._log_kept: Final = log_kept
        self.gateway: Callable[[], dict[str, Any] | None] = lambda: None
        """The state of the kernel's part; to be set where tokgate keeps that in step."""
        self.now: Final = now
        self.started: Final = now()
        self._since = self.started
        self._coverage: Final = CoverageReporter(self.started)
        self.history: Final = NotificationHistory(log, write)
        self.reloads: Final = Reloads()
        self._failures: Final[dict[str, str]] = {}

    def start(self) -> None:
        """Record the start, and from then on every reload."""
        policy = self.holder.snapshot.policy
        self.holder.keep(self.started)
        self._write(lambda stamp: lifecycle.started(stamp, os.getpid(), policy))
        self.holder.subscribe(self._reloaded)
        if self.holder.errors:  # it starts with the policy that was in force last
            diagnostics = self.holder.loaded.diagnostics
            self._reloaded(Reloaded(False, self.holder.snapshot, diagnostics, self.started, policy.version))

    def stop(self, reason: str) -> None:
        """Record the coverage since the last record of it, and the stop."""
        self._tell_coverage(self.now())
        self._write(lambda stamp: lifecycle.stopped(stamp, os.getpid(), reason))

    # -- records

    def due(self) -> float:
        """Seconds until the next call of `tick`: at a transition, and at least once a second."""
        upcoming = next_transition(self.holder.snapshot, self._since)
        if upcoming is None:
            return LONGEST_PAUSE
        return min(LONGEST_PAUSE, max(0.0, (upcoming - self.now()).total("seconds")))

    def tick(self) -> bool:
        """Write the records that are due; whether `history` was changed, and is to be saved. Never raises."""
        now = self.now()
        self._attempt("phases", partial(self._pass_phases, now))
        changed = [self._attempt("ledger", partial(self.history.look, self.holder.snapshot, now))]
        changed.append(self._attempt("requests", partial(self.history.follow_requests, self.holder.snapshot)))
        if self._coverage.due(now):
            self._attempt("coverage", partial(self._tell_coverage, now))
        return any(changed)

    async def follow(self) -> None:
        """Call `tick` until cancelled; slow work runs in a thread, since the event loop carries traffic."""
        worker = WorkerThread()  # not the holder's: a large policy takes that one long to read
        while True:
            if not self.history.knows(self.holder.snapshot):  # tens of milliseconds for a thousand bans
                with suppress(Exception):  # what fails here fails again in `tick`, which reports it
                    await worker.run(partial(self.history.plan_for, self.holder.snapshot))
            if self.tick():
                await worker.run(self.history.save)
            await asyncio.sleep(self.due())

    def _attempt[T](self, what: str, work: Callable[[], T]) -> T | None:
        """Run `work`. A failure is logged and recorded once, and returns None; the rest goes on."""
        try:
            result = work()
        except Exception as error:
            if self._failures.get(what) != repr(error):
                self._failures[what] = repr(error)
                logger.exception("%s can't be followed", what)
                self._write(partial(lifecycle.internal_error, error=error, where=what))
            return None
        self._failures.pop(what, None)
        return result

    def _pass_phases(self, now: Instant) -> None:
        snapshot, since, self._since = self.holder.snapshot, self._since, now
        changes: list[Transition] = []
        if since < now:
            passed = transitions(snapshot, since.add(nanoseconds=1), now.add(nanoseconds=1))
            changes = list(islice(passed, MAX_AT_ONCE))
        for change in changes:
            self._write(partial(lifecycle.phase_changed, change=change, policy_version=snapshot.version))
        if changes or now < since:  # what was in force by a clock that was ahead is not what is
            self.holder.keep(now)

    def _tell_coverage(self, now: Instant) -> None:
        decisions: Mapping[DecisionKey, int] = decisions_in(self.counts())
        gateway = self.gateway()
        refused = {} if gateway is None else gateway["refused"]
        self._write(partial(self._coverage.tell(decisions, now, refused), now=now_of(self.holder.snapshot, now)))

    def _reloaded(self, reloaded: Reloaded) -> None:
        """Count a reading of the policy; tell of it in the log and on standard error."""
        self.reloads.note(reloaded)
        restart = self.restart_needed()
        policy, warnings = reloaded.snapshot.policy, len(reloaded.diagnostics)
        if reloaded.repeated:  # `tokgate reload` right after an edit that was read already: its answer tells the caller
            return
        if not reloaded.ok:
            problems = [render(d).splitlines()[0] for d in reloaded.diagnostics if d.level is Level.ERROR]
            # A warning, since mitmproxy ends where an error is logged while it starts.
            logger.warning("the new policy has errors, %s stays in force:\n%s", policy.version, "\n".join(problems))
            self._write(lambda stamp: lifecycle.policy_load_failed(stamp, problems, kept=policy.version))
            return
        if policy.version == reloaded.before:  # comments or order changed: no effect
            if reloaded.recovered:
                logger.warning("the policy files are valid again, %s stays in force", policy.version)
                self._write(lambda stamp: lifecycle.policy_loaded(stamp, policy, warnings=warnings, restart=restart))
            return
        logger.warning("policy %s is in force, it replaces %s", policy.version, reloaded.before)
        for each in weaker_settings(reloaded.changes):
            logger.warning("a setting now lets more pass than before: %s", each)
        if restart:
            logger.warning("%s: in force when tokgate is started again, not before", ", ".join(restart))
        for name in policy.held:
            logger.warning(
                "the ban %s is no longer in the files, and stays in force until the policy says under `lifted` why, "
                "or `tokgate reload --lift %s`",
                *(name, name),
            )
        self._write(
            lambda stamp: lifecycle.policy_loaded(
                stamp,
                policy,
                replaced=reloaded.before,
                warnings=warnings,
                restart=restart,
                effects=reloaded.effects,
                changes=reloaded.changes,
                revision={} if reloaded.revision is None else asdict(reloaded.revision),
            )
        )

    def restart_needed(self) -> tuple[str, ...]:
        """The keys of the log's settings in force that differ from those the log was opened with, at the start."""
        running, wanted = self._log_kept(), self.holder.snapshot.settings.log
        keys = (each.name for each in fields(LogSettings) if each.compare and each.name != "small_groups")
        return tuple(f"settings.log.{key}" for key in keys if getattr(running, key) != getattr(wanted, key))


class CoverageReporter:
    """Makes records of what was counted since the one before. There is one for all processes."""

    def __init__(self, now: Instant) -> None:
        """Counting begins `now`."""
        self._since = now
        self._told: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()
        self._unreadable = 0

    def due(self, now: Instant) -> bool:
        """Whether another wall-clock hour has begun, also by a clock change in either direction."""
        return now.timestamp() // _HOUR != self._since.timestamp() // _HOUR

    def tell(
        self, decisions: Mapping[DecisionKey, int], now: Instant, refused: Mapping[str, int] = MappingProxyType({})
    ) -> Callable[..., Record]:
        """A record of the difference between what was counted, which only grows, and what was at the last call.

        `refused`: packets that the kernel refused, by kind.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for kind, number in decisions.items():
            counts[kind.network, kind.visibility.value] += number
        unreadable = sum(number for kind, number in decisions.items() if kind.outcome == UNREADABLE)
        told, self._unreadable = self._unreadable, unreadable
        fresh: dict[str, dict[str, int]] = {}
        for (network, visibility), number in sorted((counts - self._told).items()):
            fresh.setdefault(network, {})[visibility] = number
        since, self._since, self._told = self._since, now, counts
        by_kernel = {kind: number - self._refused[kind] for kind, number in refused.items()}
        self._refused.update(by_kernel)
        by_kernel = {kind: number for kind, number in by_kernel.items() if number > 0}
        return partial(
            coverage_counted,
            coverage=fresh,
            since=min(since, now),
            refused=by_kernel,
            unreadable=max(0, unreadable - told),
        )
