"""How long things last: the terms of a ban that others extend, overrides, and continuing past a warning."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from whenever import Instant, TimeDelta

from tokgate.policy.bans import Action, Ban, Exemption
from tokgate.policy.decision import Decision, Phase, Verdict
from tokgate.policy.schedule import Duration, Edge, Moment, Span, add_duration, resolve
from tokgate.policy.snapshot import Snapshot, Track


@dataclass(frozen=True, slots=True)
class Term:
    """An earlier ban that another extends, in one time zone."""

    ban: Ban
    starts: Instant
    ends: Instant


def earlier_terms(bans: Mapping[str, Ban], ban: Ban, zone: str) -> Iterator[Term]:
    """The bans that this one extends, directly or through others, the latest first."""
    seen = {ban.name}
    while ban.extends is not None and ban.extends in bans and ban.extends not in seen:
        ends = resolve(ban.starts, zone, Edge.START)
        ban = bans[ban.extends]
        seen.add(ban.name)
        yield Term(ban, resolve(ban.starts, zone, Edge.START), ends)


@dataclass(frozen=True, slots=True)
class Override:
    """An exemption marked as an override; `span` is from its start in the first of its ban's zones to its last end."""

    exemption: Exemption
    span: Span


def overrides(snapshot: Snapshot) -> Mapping[str, Override]:
    """All overrides of a policy by name, also past and future ones."""
    marked = {exemption.name: exemption for exemption in snapshot.policy.exemptions.values() if exemption.override}
    if not marked:
        return {}
    spans: dict[str, Span] = {}
    for track in snapshot.tracks:
        for name in marked.keys() & track.exemptions.keys():
            span, known = track.exemptions[name], spans.get(name)
            spans[name] = span if known is None else Span(min(known.start, span.start), max(known.end, span.end))
    return {name: Override(marked[name], span) for name, span in sorted(spans.items())}


def outlasts(starts: Moment, until: Moment, longest: Duration, zone: str) -> bool:
    """Whether `[starts, until)` is longer than `longest`, with wall times in `zone`."""
    try:
        limit = add_duration(starts, longest, zone)
    except ValueError:  # the limit lies beyond the end of the calendar
        return False
    return resolve(until, zone, Edge.END) > limit


def in_force(known: Mapping[str, Override], at: Instant) -> Mapping[str, Override]:
    """The overrides whose span contains `at`."""
    return {name: override for name, override in known.items() if at in override.span}


LONGEST: Final = TimeDelta(hours=24 * 30)
"""Longest `continue_for` of a ban."""


def warns_with_a_page(decision: Decision) -> bool:
    """Whether a browser gets the warning as a page, from which it may continue."""
    return decision.verdict is Verdict.WARN and decision.response is not None and decision.response.shows_page


def blocks_from(track: Track, at: Instant) -> Instant | None:
    """When a ban that warns at `at` begins to block; None if it only warns."""
    starts = track.schedule.starts
    return starts if track.ban.action is Action.BLOCK and starts > at else None


def continued_until(track: Track, at: Instant) -> Instant:
    """Until when a client that continues at `at` may pass: for `continue_for`, or until the ban blocks or ends."""
    over = [change.at for change in track.schedule.changes if change.phase is Phase.EXPIRED]
    ends = [end for end in (blocks_from(track, at), track.schedule.ends, *over) if end is not None and end > at]
    return min([add_duration(at, track.ban.continue_for, track.zone), *ends])
