"""Overrides, which are exemptions made while a ban is in force: their spans, and whether one lasts too long."""

from collections.abc import Mapping
from dataclasses import dataclass

from whenever import Instant

from tokgate.policy.bans import Exemption
from tokgate.policy.schedule import Duration, Edge, Moment, Span, add_duration, resolve
from tokgate.policy.snapshot import Snapshot


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
