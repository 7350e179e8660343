"""Redundant bans: another ban is at least as strict for the same clients at every instant of their life.

Only certain cases are reported: not those whose windows or exemptions can't be compared one by one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from whenever import Instant, Time

from tokgate.policy.bans import ALL, Ban, Exemption
from tokgate.policy.decision import Phase, Verdict
from tokgate.policy.schedule import Schedule, Span, Window
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.prefixes import IPNetwork, within

_VERDICT: Final = {Phase.MONITOR: Verdict.MONITOR, Phase.WARN: Verdict.WARN, Phase.BLOCK: Verdict.BLOCK}
_DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Shadow:
    """`ban` has no effect as long as `by` exists."""

    ban: Ban
    by: Ban


def shadows(snapshot: Snapshot) -> Iterator[Shadow]:
    """Each redundant ban once, with the first ban that shadows it. Of bans that shadow each other one is kept."""
    by_zone: dict[str, dict[str, Track]] = {}
    for track in snapshot.tracks:
        by_zone.setdefault(track.ban.name, {})[track.zone] = track
    for name, tracks in by_zone.items():
        ban = snapshot.bans[name]
        candidates = snapshot.tracks_for((*ban.services, ALL)[0], ban.networks[0])
        tried = {name}
        for other in (track.ban for track in candidates):
            if other.name not in tried and _covers(other, ban):
                theirs = by_zone[other.name]
                exemptions = snapshot.policy.exemptions
                if all(_shadowed(tracks[zone], theirs[zone], exemptions) for zone in tracks):
                    yield Shadow(ban, other)
                    break
            tried.add(other.name)


def _covers(other: Ban, ban: Ban) -> bool:
    """Whether the other ban has at least the same services, networks and windows, and `inspect_stores` if this has."""
    if other.on_all:
        services = set(other.excepted) <= set(ban.excepted) if ban.on_all else not {*ban.services} & {*other.excepted}
    else:
        services = not ban.on_all and set(ban.services) <= set(other.services)
    same = services and set(ban.networks) <= set(other.networks)
    return same and (other.inspect_stores or not ban.inspect_stores) and _windows_within(ban.windows, other.windows)


def _shadowed(track: Track, by: Track, exemptions: Mapping[str, Exemption]) -> bool:
    """Whether `by`, in the same zone, is as strict at every instant, and reported where both are equally strict."""
    first = _rank(by) < _rank(track)
    life: list[Span] = []
    for span, mine, theirs in _side_by_side(track.schedule, by.schedule):
        if theirs.severity < mine.severity:
            return False
        if mine is theirs is not Verdict.ALLOW and not first:
            return False  # this ban is the one that is reported
        if mine is not Verdict.ALLOW:
            life.append(span)
    return bool(life) and _exemptions_within(by, track, life, exemptions)


def _rank(track: Track) -> tuple[Instant, str]:
    """The order of equally strict bans in one network, as in `decide`."""
    return track.schedule.starts, track.ban.name


def _side_by_side(one: Schedule, other: Schedule) -> Iterator[tuple[Span, Verdict, Verdict]]:
    """The verdicts of both schedules over all time, ignoring windows."""
    edges = sorted({Instant.MIN, *(change.at for change in (*one.changes, *other.changes)), Instant.MAX})
    for start, end in pairwise(edges):
        yield Span(start, end), _verdict(one, start), _verdict(other, start)


def _verdict(schedule: Schedule, at: Instant) -> Verdict:
    phase = next((change.phase for change in reversed(schedule.changes) if change.at <= at), None)
    return Verdict.ALLOW if phase is None else _VERDICT.get(phase, Verdict.ALLOW)


def _windows_within(inner: tuple[Window, ...], outer: tuple[Window, ...]) -> bool:
    if not outer:
        return True
    return bool(inner) and all(any(window_within(each, whole) for whole in outer) for each in inner)


def window_within(inner: Window, outer: Window) -> bool:
    """Whether the inner window is open only while the outer one is."""
    (start, end), (outer_start, outer_end) = _minutes(inner), _minutes(outer)
    holidays = set(outer.except_holidays) <= set(inner.except_holidays)
    return inner.days <= outer.days and holidays and outer_start <= start and end <= outer_end


def _minutes(window: Window) -> tuple[int, int]:
    """Start and end in minutes after the midnight at which the window's day begins."""
    start, end = _minute(window.start), _minute(window.end)
    return start, end if end > start else end + _DAY_MINUTES


def _minute(time: Time) -> int:
    return time.hour * 60 + time.minute


def _exemptions_within(by: Track, track: Track, life: list[Span], exemptions: Mapping[str, Exemption]) -> bool:
    """Whether whoever is exempt from `by` during `life` is exempt from `track` at the same time."""
    for name, exempt in by.exemptions.items():
        overlaps = [span & exempt for span in life]
        for part in (span for span in overlaps if span.start < span.end):
            if exemptions[name].identified:  # can't be compared
                return False
            for client in exemptions[name].clients:
                if not _exempt(client, part, track, exemptions):
                    return False
    return True


def _exempt(client: IPNetwork, part: Span, track: Track, exemptions: Mapping[str, Exemption]) -> bool:
    return any(
        span.start <= part.start and part.end <= span.end and any(within(client, c) for c in exemptions[name].clients)
        for name, span in track.exemptions.items()
    )
