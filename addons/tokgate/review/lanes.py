"""Where each ban stood over a period: from the policy files, or where there are none from the log's phase changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from whenever import Instant

from tokgate.policy.decision import Phase
from tokgate.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Stretch:
    """A ban in one phase from `start` until `end`, cut to the period."""

    phase: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Lane:
    """A ban's stretches, in order of time."""

    ban: str
    title: str
    stretches: tuple[Stretch, ...]


type Change = tuple[datetime, str]


def lanes_of_policy(snapshot: Snapshot, start: datetime, end: datetime) -> list[Lane]:
    """The bans of a policy. One with networks in several zones is shown in the zone that comes first."""
    lanes: dict[str, Lane] = {}
    for track in snapshot.tracks:
        changes = [
            (_utc(change.at), "held past its end" if change.overdue else change.phase.value)
            for change in track.schedule.changes
        ]
        lane = Lane(track.ban.name, track.ban.title, _stretches(changes, start, end))
        if lane.stretches:
            lanes.setdefault(lane.ban, lane)
    return list(lanes.values())


def lanes_of_log(
    changes: Iterable[tuple[str, datetime, str, str | None]], start: datetime, end: datetime
) -> list[Lane]:
    """`changes` are (ban, due, phase, phase before) in order of time."""
    by_ban: dict[str, list[Change]] = {}
    for ban, due, phase, before in changes:
        known = by_ban.setdefault(ban, [] if before is None else [(datetime.min, before)])
        known.append((due, phase))
    return [Lane(ban, ban, found) for ban, known in by_ban.items() if (found := _stretches(known, start, end))]


def _stretches(changes: Sequence[Change], start: datetime, end: datetime) -> tuple[Stretch, ...]:
    found = []
    for number, (at, phase) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else datetime.max
        first, last = max(at, start), min(until, end)
        if first < last and phase != Phase.EXPIRED:
            found.append(Stretch(phase, first, last))
    return tuple(found)


def _utc(at: Instant) -> datetime:
    """As DuckDB gives instants: UTC, without saying so. The ends of all time are cut off."""
    if at <= Instant.from_utc(1, 1, 2):
        return datetime.min
    return datetime.max if at >= Instant.from_utc(9999, 12, 30) else at.to_stdlib().replace(tzinfo=None)
