"""How a running tokgate is: its policy, the phase of every ban, its workers; one JSON object for `tokgate status`."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from whenever import Instant

from tokgate.config.reload import PolicyHolder
from tokgate.policy.bans import LogSettings
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import next_transition


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A process that carries traffic, or helps those that do. Without a policy of its own `version` is None.

    `retired`: it serves its last connections by the policy before. `report` is what it says of itself.
    """

    name: str
    pid: int
    seconds: float
    version: str | None
    report: dict[str, Any]
    retired: bool = False


def state_of(
    holder: PolicyHolder, workers: Iterable[Worker], now: Instant, restart: tuple[str, ...] = ()
) -> dict[str, Any]:
    """One JSON object. `ok`: nothing needs a person. `restart`: settings that are in force after a restart only."""
    upcoming = next_transition(holder.snapshot, now)
    known = list(workers)
    return {
        "ok": holder.last_error is None and not any(_trouble(worker.report) for worker in known),
        "at": str(now),
        "policy": {
            "version": holder.snapshot.version,
            "loaded_at": str(holder.loaded_at),
            "error": holder.last_error,
            "restart_needed": list(restart),
            "next_transition": None if upcoming is None else str(upcoming),
            "bans": _bans(holder.snapshot, now),
        },
        "workers": [
            {
                "name": worker.name,
                "pid": worker.pid,
                "seconds": round(worker.seconds, 1),
                "version": worker.version,
                "retired": worker.retired,
                "report": worker.report,
            }
            for worker in known
        ],
    }


def restart_needed(running: LogSettings, wanted: LogSettings) -> tuple[str, ...]:
    """The keys that a policy in force says otherwise than the log is kept: it is opened once, at the start."""
    keys = (each.name for each in fields(LogSettings) if each.compare and each.name not in _AT_ONCE)
    return tuple(f"settings.log.{key}" for key in keys if getattr(running, key) != getattr(wanted, key))


_AT_ONCE: Final = ("near_misses",)
"""Settings of the log that are in force with the policy."""


def _trouble(report: dict[str, Any]) -> bool:
    return bool(report.get("errors") or report.get("records_dropped") or report.get("log_error"))


def _bans(snapshot: Snapshot, now: Instant) -> list[dict[str, Any]]:
    bans = []
    for track in snapshot.tracks:
        standing, ends = track.schedule.standing(now), track.schedule.ends
        bans.append(
            {
                "ban": track.ban.name,
                "zone": track.zone,
                "networks": list(track.networks),
                "phase": standing.phase and standing.phase.value,
                "idle": standing.idle and standing.idle.value,
                "overdue": standing.overdue,
                "next": None if standing.span.end == Instant.MAX else str(standing.span.end),
                "ends": None if ends is None or (ends <= now and not standing.overdue) else str(ends),
            }
        )
    return bans
