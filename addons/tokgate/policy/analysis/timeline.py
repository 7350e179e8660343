"""What lies ahead: the transitions of bans, windows and exemptions, and reminders that a ban ends soon. No clock."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge
from operator import attrgetter

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Duration, add_duration
from tokgate.policy.snapshot import Snapshot, Track


class TransitionKind(StrEnum):
    """What changes at a transition; the values of `tokgate.transition` in the log."""

    PHASE = "phase"
    OVERDUE = "overdue"
    WINDOW_OPENS = "window-opens"
    WINDOW_CLOSES = "window-closes"
    EXEMPTION_STARTS = "exemption-starts"
    EXEMPTION_ENDS = "exemption-ends"


@dataclass(frozen=True, slots=True)
class Transition:
    """A change at `at` for the networks of one ban in one zone, from phase `before` to `after`."""

    at: Instant
    kind: TransitionKind
    ban: Ban
    zone: str
    networks: tuple[str, ...]
    before: Phase | None
    after: Phase | None
    exemption: str | None = None
    extended_by: tuple[str, ...] = ()
    """At the end of a ban: the bans that begin there, which extend it."""


def transitions(snapshot: Snapshot, start: Instant, end: Instant) -> Iterator[Transition]:
    """All transitions in `[start, end)`, lazily and in order of time; of equal times, in the order of the policy."""
    streams = [
        stream for track in snapshot.tracks for stream in (_phases(track, start, end), _exemptions(track, start, end))
    ]
    return merge(*streams, key=lambda transition: transition.at)


def next_transition(snapshot: Snapshot, at: Instant) -> Instant | None:
    """The first instant after `at` at which anything changes; None if nothing ever does."""
    first = next(transitions(snapshot, at.add(nanoseconds=1), Instant.MAX), None)
    return None if first is None else first.at


def _phases(track: Track, start: Instant, end: Instant) -> Iterator[Transition]:
    """Phase changes, and windows that open and close while the ban is in force."""
    schedule = track.schedule
    now = schedule.state_at(start)
    if now.span.start == start > Instant.MIN:
        before, at = schedule.state_at(start.subtract(nanoseconds=1)), start
    else:
        before, at = now, now.span.end
    while at < end and at < Instant.MAX:
        after = schedule.state_at(at)
        kind = None
        if after.phase != before.phase:
            kind = TransitionKind.PHASE
        elif after.overdue != before.overdue:
            kind = TransitionKind.OVERDUE
        elif after.idle != before.idle:
            kind = TransitionKind.WINDOW_OPENS if after.idle is None else TransitionKind.WINDOW_CLOSES
        if kind is not None:
            by = track.extended_by if after.phase is Phase.EXPIRED else ()
            yield Transition(at, kind, track.ban, track.zone, track.networks, before.phase, after.phase, extended_by=by)
        before, at = after, after.span.end


def _exemptions(track: Track, start: Instant, end: Instant) -> Iterator[Transition]:
    edges = [(span.start, TransitionKind.EXEMPTION_STARTS, name) for name, span in track.exemptions.items()]
    edges += [(span.end, TransitionKind.EXEMPTION_ENDS, name) for name, span in track.exemptions.items()]
    for at, kind, name in sorted(edges):
        if start <= at < end and at > Instant.MIN:
            phase = track.schedule.state_at(at).phase
            yield Transition(at, kind, track.ban, track.zone, track.networks, phase, phase, name)


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


def planned_reminders(snapshot: Snapshot) -> tuple[Reminder, ...]:
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


def due_reminders(planned: Iterable[Reminder], now: Instant, told: Collection[ReminderKey]) -> Iterator[Reminder]:
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


def missed_reminders(planned: Iterable[Reminder], now: Instant) -> frozenset[ReminderKey]:
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
