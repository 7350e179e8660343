"""The processes under the supervisor, and the state of all of them and of the policy for `tokgate status`."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from whenever import Instant

from tokgate.config.reload import PolicyHolder
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import next_transition


class Role(StrEnum):
    """What a child does."""

    GATE = "gate"
    OPENER = "opener"
    COLLECTOR = "collector"


@dataclass(slots=True)
class Child:
    """A running process. `slot` tells equals apart; `version` is the policy's that a gate has."""

    role: Role
    slot: int
    pid: int
    started: float
    version: str
    retired: bool = False
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Health:
    """How often a slot's process has died lately, and when it may be started again."""

    failures: int = 0
    not_before: float = 0.0


def state_of(holder: PolicyHolder, children: Collection[Child], now: Instant) -> dict[str, Any]:
    """One JSON object. `ok`: nothing needs a person."""
    upcoming = next_transition(holder.snapshot, now)
    trouble = any(child.report.get("errors") or child.report.get("records_dropped") for child in children)
    return {
        "ok": holder.last_error is None and not trouble,
        "at": str(now),
        "policy": {
            "version": holder.snapshot.version,
            "loaded_at": str(holder.loaded_at),
            "error": holder.last_error,
            "next_transition": None if upcoming is None else str(upcoming),
            "bans": _bans(holder.snapshot, now),
        },
        "workers": [
            {
                "name": f"{child.role.value}-{child.slot}",
                "pid": child.pid,
                "seconds": round(time.monotonic() - child.started, 1),
                "version": child.version if child.role is Role.GATE else None,
                "retired": child.retired,
                "report": child.report,
            }
            for child in children
        ],
    }


def _bans(snapshot: Snapshot, now: Instant) -> list[dict[str, Any]]:
    bans = []
    for track in snapshot.tracks:
        standing = track.schedule.standing(now)
        bans.append(
            {
                "ban": track.ban.name,
                "zone": track.zone,
                "networks": list(track.networks),
                "phase": standing.phase and standing.phase.value,
                "idle": standing.idle and standing.idle.value,
                "overdue": standing.overdue,
            }
        )
    return bans
