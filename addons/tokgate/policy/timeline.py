"""When anything changes: the transitions of bans, windows and exemptions, in order of time."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from heapq import merge

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.decision import Phase
from tokgate.policy.snapshot import Snapshot, Track


class Kind(StrEnum):
    """What changes at a transition."""

    PHASE = "phase"
    OVERDUE = "overdue"
    WINDOW_OPENS = "window-opens"
    WINDOW_CLOSES = "window-closes"
    EXEMPTION_STARTS = "exemption-starts"
    EXEMPTION_ENDS = "exemption-ends"


@dataclass(frozen=True, slots=True)
class Transition:
    """Something that changes at `at` for the networks of one ban in one zone; `exemption` is the hole's name."""

    at: Instant
    kind: Kind
    ban: Ban
    zone: str
    networks: tuple[str, ...]
    before: Phase | None
    after: Phase | None
    exemption: str | None = None


def transitions(snapshot: Snapshot, start: Instant, end: Instant) -> Iterator[Transition]:
    """All transitions in `[start, end)`, lazily and in order of time; of equal times, in the order of the policy."""
    streams = [
        stream for track in snapshot.tracks for stream in (_course(track, start, end), _holes(track, start, end))
    ]
    return merge(*streams, key=lambda transition: transition.at)


def next_transition(snapshot: Snapshot, at: Instant) -> Instant | None:
    """The first instant after `at` at which anything changes; None if nothing ever does."""
    first = next(transitions(snapshot, at.add(nanoseconds=1), Instant.MAX), None)
    return None if first is None else first.at


def _course(track: Track, start: Instant, end: Instant) -> Iterator[Transition]:
    """Phase changes, and windows while the ban would apply."""
    schedule = track.schedule
    now = schedule.standing(start)
    if now.span.start == start > Instant.MIN:
        before, at = schedule.standing(start.subtract(nanoseconds=1)), start
    else:
        before, at = now, now.span.end
    while at < end and at < Instant.MAX:
        after = schedule.standing(at)
        kind = None
        if after.phase != before.phase:
            kind = Kind.PHASE
        elif after.overdue != before.overdue:
            kind = Kind.OVERDUE
        elif after.idle != before.idle:
            kind = Kind.WINDOW_OPENS if after.idle is None else Kind.WINDOW_CLOSES
        if kind is not None:
            yield Transition(at, kind, track.ban, track.zone, track.networks, before.phase, after.phase)
        before, at = after, after.span.end


def _holes(track: Track, start: Instant, end: Instant) -> Iterator[Transition]:
    """Where exemptions from the ban start and end."""
    edges = [(span.start, Kind.EXEMPTION_STARTS, name) for name, span in track.exemptions.items()]
    edges += [(span.end, Kind.EXEMPTION_ENDS, name) for name, span in track.exemptions.items()]
    for at, kind, name in sorted(edges):
        if start <= at < end and at > Instant.MIN:
            phase = track.schedule.standing(at).phase
            yield Transition(at, kind, track.ban, track.zone, track.networks, phase, phase, name)
