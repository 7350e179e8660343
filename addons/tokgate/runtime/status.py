"""What a running tokgate answers to `tokgate status` and `tokgate reload`, and tells of a reload in its log."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import Record, Stamp
from tokgate.config.diagnostics import Diagnostic, Level, as_json, render
from tokgate.config.reload.holder import PolicyHolder, Reloaded
from tokgate.policy.analysis.definitions import MAX_WORDS, DefinitionChange, weaker_settings
from tokgate.policy.analysis.held_bans import NO_EFFECTS
from tokgate.policy.analysis.terms import Term, earlier_terms
from tokgate.policy.analysis.timeline import next_transition
from tokgate.policy.settings import LogSettings
from tokgate.policy.snapshot import Policy, Snapshot
from tokgate.runtime.control_socket import Caller

SILENT: Final = 3.0
"""Seconds without a report after which a process counts as silent. Each reports about once a second."""


class Condition(StrEnum):
    """What a process is doing, judged by its reports."""

    STARTING = "starting"
    """It has not reported yet."""
    SERVING = "serving"
    SILENT = "silent"
    """It was stopped, or hangs: no report has come for SILENT seconds."""
    ENDING = "ending"
    """It serves its last connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process of tokgate. `version` is that of its policy, None for a process without one.

    `seconds` is its age, `silent` the seconds since its latest report. `retired`: it accepts no more and serves its
    last connections by the previous policy. `report` is the JSON object that it sends of itself.
    """

    name: str
    pid: int
    seconds: float
    version: str | None
    report: dict[str, Any]
    retired: bool = False
    silent: float = 0.0

    @property
    def condition(self) -> Condition:
        if self.retired:
            return Condition.ENDING
        if self.silent >= SILENT:
            return Condition.SILENT
        return Condition.SERVING if self.report else Condition.STARTING


def state_of(
    holder: PolicyHolder,
    workers: Iterable[Worker],
    now: Instant,
    restart: tuple[str, ...] = (),
    gateway: dict[str, Any] | None = None,
    faults: Iterable[str] = (),
) -> dict[str, Any]:
    """The status as a JSON object. `ok`: no operator is needed. `problems`: which parts can't do their work now.

    `restart`: settings that take effect at a restart. `gateway` is the state of the kernel's part, where tokgate keeps
    it. `faults`: what is wrong with processes, in words.
    """
    upcoming = next_transition(holder.snapshot, now)
    known, held = list(workers), holder.snapshot.policy.held
    why = f"{holder.last_error}, since {holder.failing_since}"
    stale = () if holder.last_error is None else (f"the newest policy is not in force: {why}",)
    kernel = () if gateway is None or gateway["ok"] else gateway["problems"]
    problems = [*stale, *(f"the gateway's kernel: {said}" for said in kernel), *faults]
    return {
        "ok": not problems
        and not held
        and not any(has_trouble(worker.report) for worker in known)
        and (gateway is None or gateway["ok"]),
        "problems": problems,
        "listening": [],
        "at": str(now),
        "policy": {
            "version": holder.snapshot.version,
            "loaded_at": str(holder.loaded_at),
            "error": holder.last_error,
            "errors": [render(each).splitlines()[0] for each in holder.errors[: lifecycle.MAX_PROBLEMS]],
            "error_since": None if holder.failing_since is None else str(holder.failing_since),
            "restart_needed": list(restart),
            "next_transition": None if upcoming is None else str(upcoming),
            "held": list(held),
            "catalogue": _catalogue(holder.snapshot.policy),
            "bans": _bans(holder.snapshot, now),
        },
        "gateway": gateway,
        "workers": [
            {
                "name": worker.name,
                "pid": worker.pid,
                "seconds": round(worker.seconds, 1),
                "version": worker.version,
                "retired": worker.retired,
                "condition": worker.condition.value,
                "report": worker.report,
            }
            for worker in known
        ],
    }


def restart_needed(running: LogSettings, wanted: LogSettings) -> tuple[str, ...]:
    """The keys of the log's settings that differ from those the log was opened with, at the start."""
    keys = (each.name for each in fields(LogSettings) if each.compare and each.name != "small_groups")
    return tuple(f"settings.log.{key}" for key in keys if getattr(running, key) != getattr(wanted, key))


def _catalogue(policy: Policy) -> dict[str, Any] | None:
    taken = policy.catalogue
    return None if taken is None else {"version": taken.version, "services": list(taken.services)}


def has_trouble(report: dict[str, Any]) -> bool:
    """Whether a process reports that it failed inside, lost records, or can't write the log."""
    return bool(report.get("errors") or report.get("records_dropped") or report.get("log_error"))


def _term(term: Term) -> dict[str, Any]:
    return {"ban": term.ban.name, "starts": str(term.starts), "ends": str(term.ends)}


def _bans(snapshot: Snapshot, now: Instant) -> list[dict[str, Any]]:
    bans = []
    for track in snapshot.tracks:
        state, ends = track.schedule.state_at(now), track.schedule.ends
        bans.append(
            {
                "ban": track.ban.name,
                "zone": track.zone,
                "networks": list(track.networks),
                "phase": state.phase and state.phase.value,
                "idle": state.idle and state.idle.value,
                "overdue": state.overdue,
                "held": track.ban.name in snapshot.policy.held,
                "extends": [_term(each) for each in earlier_terms(snapshot.bans, track.ban, track.zone)],
                "extended_by": list(track.extended_by),
                "next": None if state.span.end == Instant.MAX else str(state.span.end),
                "ends": None if ends is None or (ends <= now and not state.overdue) else str(ends),
            }
        )
    return bans


logger = logging.getLogger(__name__)

ENOUGH: Final = 60.0
"""Seconds for workers to get a policy that was read; then the answer names those that have not."""
MAX_CHANGES: Final = 1000
"""Changes in an answer; the rest is counted."""


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


def announce(reloaded: Reloaded, restart: tuple[str, ...], write: Callable[[Callable[[Stamp], Record]], None]) -> None:
    """Report a reload in the log and on standard error. `restart`: settings that take effect at a restart only."""
    policy, warnings = reloaded.snapshot.policy, len(reloaded.diagnostics)
    if reloaded.repeated:  # `tokgate reload` right after an edit that was read already: its answer tells the caller
        return
    if not reloaded.ok:
        problems = [render(d).splitlines()[0] for d in reloaded.diagnostics if d.level is Level.ERROR]
        # A warning, since mitmproxy ends where an error is logged while it starts.
        logger.warning("the new policy has errors, %s stays in force:\n%s", policy.version, "\n".join(problems))
        write(lambda stamp: lifecycle.policy_load_failed(stamp, problems, kept=policy.version))
        return
    if policy.version == reloaded.before:  # comments or order changed: no effect
        if reloaded.recovered:
            logger.warning("the policy files are valid again, %s stays in force", policy.version)
            write(lambda stamp: lifecycle.policy_loaded(stamp, policy, warnings=warnings, restart=restart))
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
    write(
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


def answer_of(
    holder: PolicyHolder,
    reloaded: Reloaded,
    workers: Collection[Worker],
    restart: tuple[str, ...],
    gateway: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The answer to `tokgate reload`. If the files are unchanged, it tells the last change of the policy.

    `gateway` is the state of the kernel's part, where tokgate keeps it.
    """
    changed = reloaded.snapshot.version != reloaded.before
    told = reloaded if changed or not reloaded.ok else holder.last_change
    missing = list(_missing(workers, reloaded.snapshot.version))
    return {
        "ok": reloaded.ok and not missing and (gateway is None or gateway["ok"]),
        "read": reloaded.ok,
        "before": reloaded.before if told is None else told.before,
        "version": reloaded.snapshot.version,
        "unchanged": reloaded.ok and not changed,
        "since": str(holder.in_force_since),
        "changes": [] if told is None else [_change(change) for change in told.changes[:MAX_CHANGES]],
        "bans": {key: list(names) for key, names in asdict(NO_EFFECTS if told is None else told.effects).items()}
        | {"held": list(reloaded.snapshot.policy.held)},
        "revision": None if told is None or told.revision is None else asdict(told.revision),
        "weaker_settings": [] if told is None else list(weaker_settings(told.changes)),
        "more_changes": 0 if told is None else max(0, len(told.changes) - MAX_CHANGES),
        "diagnostics": [_diagnostic(each) for each in reloaded.diagnostics],
        "restart_needed": list(restart),
        "workers": [w.name for w in workers if w.version == reloaded.snapshot.version and not w.retired],
        "missing": missing,
        "gateway": gateway,
    }


def _missing(workers: Collection[Worker], version: str) -> Iterator[str]:
    """The workers with another policy; retired ones, which serve their last connections, don't count."""
    for worker in workers:
        if not worker.retired and worker.version is not None and worker.version != version:
            yield worker.name


def _change(change: DefinitionChange) -> dict[str, Any]:
    words = [*change.what[:MAX_WORDS]]
    if len(change.what) > MAX_WORDS:
        words.append(f"{len(change.what) - MAX_WORDS} more")
    return {"section": change.kind, "name": change.name, "how": change.how.value, "what": words}


def _diagnostic(diagnostic: Diagnostic) -> dict[str, Any]:
    return as_json(diagnostic) | {"source": diagnostic.line, "length": diagnostic.length}


class Waiting:
    """Callers of `tokgate reload`, answered when all workers have the policy that was read."""

    def __init__(self, answer: Callable[[Reloaded, Collection[Worker]], dict[str, Any]]) -> None:
        """`answer` makes the answer from the result of the reload and the workers."""
        self._answer: Final = answer
        self._callers: list[tuple[Caller, tuple[str, ...]]] = []
        self._reloaded: Reloaded | None = None
        self._give_up_at = 0.0
        self._told = ""

    def add(self, caller: Caller, not_held: tuple[str, ...] = ()) -> None:
        """Add a caller, who waits for the next reload; `not_held` are bans that it wanted lifted in vain."""
        caller.tell("reading the policy")
        self._callers.append((caller, not_held))
        self._reloaded = None

    def read(self, reloaded: Reloaded) -> None:
        """Take note of a reload's result and start the deadline of the workers."""
        self._reloaded, self._told = reloaded, ""
        self._give_up_at = time.monotonic() + ENOUGH

    def look(self, workers: Collection[Worker]) -> None:
        """Answer when all workers have the policy or the deadline has passed, else report progress."""
        if not self._callers or self._reloaded is None:
            return
        answer = self._answer(self._reloaded, workers)
        if answer["read"] and answer["missing"] and time.monotonic() < self._give_up_at:
            self._tell(f"policy {answer['version']}: waiting for {', '.join(answer['missing'])}")
            return
        callers, self._callers = self._callers, []
        for caller, not_held in callers:
            caller.answer(answer | {"not_held": list(not_held)})

    def _tell(self, text: str) -> None:
        if text == self._told:
            return
        self._told = text
        for caller, _ in self._callers:
            caller.tell(text)

    def close(self) -> None:
        """Close all connections without an answer."""
        for caller, _ in self._callers:
            caller.close()
