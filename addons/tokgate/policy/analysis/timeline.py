"""The transitions of bans, windows and exemptions, in order of time."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import ScheduleState
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
        yield from _between(track, at, before, after)
        before, at = after, after.span.end


def _between(track: Track, at: Instant, before: ScheduleState, after: ScheduleState) -> Iterator[Transition]:
    """What changes at `at`, where anything does."""
    kind = None
    if after.phase != before.phase:
        kind = TransitionKind.PHASE
    elif after.overdue != before.overdue:
        kind = TransitionKind.OVERDUE
    elif after.idle != before.idle:
        kind = TransitionKind.WINDOW_OPENS if after.idle is None else TransitionKind.WINDOW_CLOSES
    if kind is not None:
        extended = track.extended_by if after.phase is Phase.EXPIRED else ()
        yield Transition(
            at, kind, track.ban, track.zone, track.networks, before.phase, after.phase, extended_by=extended
        )


def _exemptions(track: Track, start: Instant, end: Instant) -> Iterator[Transition]:
    edges = [(span.start, TransitionKind.EXEMPTION_STARTS, name) for name, span in track.exemptions.items()]
    edges += [(span.end, TransitionKind.EXEMPTION_ENDS, name) for name, span in track.exemptions.items()]
    for at, kind, name in sorted(edges):
        if start <= at < end and at > Instant.MIN:
            phase = track.schedule.state_at(at).phase
            yield Transition(at, kind, track.ban, track.zone, track.networks, phase, phase, name)
