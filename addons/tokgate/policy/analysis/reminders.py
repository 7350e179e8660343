"""Reminders that a ban ends soon: when they are due, and which of them were not sent yet. No clock, no I/O."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from whenever import Instant

from tokgate.policy.schedule import Duration, add_duration
from tokgate.policy.snapshot import Snapshot, Track


@dataclass(frozen=True, slots=True)
class ReminderKey:
    """The identity of a reminder, across policy versions: each notice is sent once.

    A ban whose end was moved has new notices.
    """

    ban: str
    zone: str
    ends: Instant
    before: str
    """The duration, in ISO 8601."""


@dataclass(frozen=True, slots=True)
class Reminder:
    """A notice that the track's ban ends, due from `at` on."""

    at: Instant
    notice: ReminderKey
    track: Track


def plan(snapshot: Snapshot) -> tuple[Reminder, ...]:
    """All reminders of a policy, in order of time.

    None is due before its ban starts: a ban for a week is not reminded of thirty days before its end. A ban that is
    extended needs none.
    """
    found: list[Reminder] = []
    for track in snapshot.tracks:
        ends = track.schedule.ends
        if ends is None or track.extended_by:
            continue
        for before in snapshot.settings.reminders:
            at = _ahead(ends, before, track.zone)
            if at is not None and at >= track.schedule.starts:
                notice = ReminderKey(track.ban.name, track.zone, ends, before.format_iso())
                found.append(Reminder(at, notice, track))
    return tuple(sorted(found, key=attrgetter("at")))


def due(planned: Iterable[Reminder], now: Instant, told: Collection[ReminderKey]) -> Iterator[Reminder]:
    """The reminders to send at `now`: due, not in `told`, and the ban not over.

    Of several due reminders of one ban only the latest is sent, as after a pause or for a ban that is already near its
    end. The others are `missed`.
    """
    latest: dict[tuple[str, str, Instant], Reminder] = {}
    for reminder in planned:
        notice = reminder.notice
        if reminder.at <= now < notice.ends:
            latest[notice.ban, notice.zone, notice.ends] = reminder
    yield from (reminder for reminder in latest.values() if reminder.notice not in told)


def missed(planned: Iterable[Reminder], now: Instant) -> frozenset[ReminderKey]:
    """All notices that were due up to `now`: once `due` was sent, none of them is to be sent any more."""
    return frozenset(reminder.notice for reminder in planned if reminder.at <= now)


def near_from(snapshot: Snapshot, ends: Instant, zone: str) -> Instant | None:
    """From when on an end counts as near: at the first of the policy's reminders; None if it has none."""
    ahead = (_ahead(ends, before, zone) for before in snapshot.settings.reminders)
    return min((at for at in ahead if at is not None), default=None)


def _ahead(ends: Instant, before: Duration, zone: str) -> Instant | None:
    """`before` ahead of the end, with days and months on the wall clock of the zone; None beyond the calendar."""
    try:
        return add_duration(ends, -before, zone)
    except ValueError:
        return None
