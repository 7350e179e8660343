"""The phases of each ban over a period: from the policy files, or without these from the log's phase changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from whenever import Instant

from tokgate.policy.decision import Phase
from tokgate.policy.snapshot import Snapshot

HELD: Final = "held past its end"
"""The phase of a ban that blocks although its time is over."""


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A ban in one phase from `start` until `end`, cut to the period."""

    phase: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class BanPhases:
    """The phases of one ban within the period, in order of time."""

    ban: str
    title: str
    spans: tuple[PhaseSpan, ...]


type _PhaseStart = tuple[datetime, str]
"""When a phase begins, and its name."""


def phases_of_policy(snapshot: Snapshot, start: datetime, end: datetime) -> list[BanPhases]:
    """The bans of a policy with a phase in the period. A ban in several zones has the times of the first zone."""
    lanes: dict[str, BanPhases] = {}
    for track in snapshot.tracks:
        changes = [
            (_utc(change.at), HELD if change.overdue else change.phase.value) for change in track.schedule.changes
        ]
        lane = BanPhases(track.ban.name, track.ban.title, _spans(changes, start, end))
        if lane.spans:
            lanes.setdefault(lane.ban, lane)
    return list(lanes.values())


def phases_of_log(
    changes: Iterable[tuple[str, datetime, str, str | None]], start: datetime, end: datetime
) -> list[BanPhases]:
    """The bans of the log's phase changes: (ban, due, phase, phase before), in order of time."""
    by_ban: dict[str, list[_PhaseStart]] = {}
    for ban, due, phase, before in changes:
        known = by_ban.setdefault(ban, [] if before is None else [(datetime.min, before)])
        known.append((due, phase))
    return [BanPhases(ban, ban, found) for ban, known in by_ban.items() if (found := _spans(known, start, end))]


def _spans(changes: Sequence[_PhaseStart], start: datetime, end: datetime) -> tuple[PhaseSpan, ...]:
    found = []
    for number, (at, phase) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else datetime.max
        first, last = max(at, start), min(until, end)
        if first < last and phase != Phase.EXPIRED:
            found.append(PhaseSpan(phase, first, last))
    return tuple(found)


def _utc(at: Instant) -> datetime:
    """UTC without `tzinfo`, as DuckDB returns instants; clamped to what datetime can hold."""
    if at <= Instant.from_utc(1, 1, 2):
        return datetime.min
    return datetime.max if at >= Instant.from_utc(9999, 12, 30) else at.to_stdlib().replace(tzinfo=None)
