"""Reminders: which bans are near their end at an instant, and who has not been told yet. No clock, no I/O."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from whenever import Instant

from tokgate.policy.schedule import Duration, add_duration
from tokgate.policy.snapshot import Snapshot, Track


@dataclass(frozen=True, slots=True)
class Notice:
    """What makes one reminder the same as another, whatever the policy's version: told once, it is told for good.

    A ban whose end is moved is reminded of anew.
    """

    ban: str
    zone: str
    ends: Instant
    before: str
    """The duration, in ISO 8601."""


@dataclass(frozen=True, slots=True)
class Reminder:
    """From `at` on it can be told that the track's ban ends."""

    at: Instant
    notice: Notice
    track: Track


def plan(snapshot: Snapshot) -> tuple[Reminder, ...]:
    """All reminders of a policy, in order of time.

    None is due before its ban starts: a ban for a week is not reminded of thirty days before its end.
    """
    found: list[Reminder] = []
    for track in snapshot.tracks:
        ends = track.schedule.ends
        if ends is None:
            continue
        for before in snapshot.settings.reminders:
            at = _ahead(ends, before, track.zone)
            if at is not None and at >= track.schedule.starts:
                notice = Notice(track.ban.name, track.zone, ends, before.format_iso())
                found.append(Reminder(at, notice, track))
    return tuple(sorted(found, key=attrgetter("at")))


def due(planned: Iterable[Reminder], now: Instant, told: Collection[Notice]) -> Iterator[Reminder]:
    """What is to be told at `now`: due, not told yet, and the ban not over.

    Of several for one ban only the latest: whoever comes late, after a pause or with a ban that is short of its end
    already, hears it once. The others are `missed`.
    """
    latest: dict[tuple[str, str, Instant], Reminder] = {}
    for reminder in planned:
        notice = reminder.notice
        if reminder.at <= now < notice.ends:
            latest[notice.ban, notice.zone, notice.ends] = reminder
    yield from (reminder for reminder in latest.values() if reminder.notice not in told)


def missed(planned: Iterable[Reminder], now: Instant) -> frozenset[Notice]:
    """Whatever was due up to `now`: after `due` was told, none of it is to be told any more."""
    return frozenset(reminder.notice for reminder in planned if reminder.at <= now)


def near_from(snapshot: Snapshot, ends: Instant, zone: str) -> Instant | None:
    """From when on an end counts as near: the longest of the policy's reminders ahead; None where it wants none."""
    ahead = (_ahead(ends, before, zone) for before in snapshot.settings.reminders)
    return min((at for at in ahead if at is not None), default=None)


def _ahead(ends: Instant, before: Duration, zone: str) -> Instant | None:
    """`before` ahead of the end, days and months on the wall clock of the zone; None beyond the calendar."""
    try:
        return add_duration(ends, -before, zone)
    except (ValueError, OverflowError):
        return None
