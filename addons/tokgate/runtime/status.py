"""The status of a running tokgate for `tokgate status`: policy, phases of bans, workers, as one JSON object."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

from whenever import Instant

from tokgate.config.reload.holder import PolicyHolder
from tokgate.policy.analysis.terms import Term, earlier_terms
from tokgate.policy.analysis.timeline import next_transition
from tokgate.policy.settings import LogSettings
from tokgate.policy.snapshot import Policy, Snapshot

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
    stale = () if holder.last_error is None else (f"the newest policy is not in force: {holder.last_error}",)
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
    return {"ban": term.ban.name, "starts": str(term.starts), "ends": None if term.ends is None else str(term.ends)}


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
