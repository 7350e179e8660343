"""The differences of two policies in what they decide: verdicts by service, network and span of time, and exemptions.

A network is compared by itself, as for a client that is in no other. Exemptions are compared separately.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from whenever import Instant

from tokgate.policy.bans import ALL, Ban
from tokgate.policy.decide import decide_kind
from tokgate.policy.decision import Decision
from tokgate.policy.membership import Membership
from tokgate.policy.schedule import Span
from tokgate.policy.services import Hit, Match
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.prefixes import IPNetwork


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """Over `span` the two policies treat a service in a network differently."""

    network: str
    service: str
    span: Span
    before: Decision
    after: Decision


@dataclass(frozen=True, slots=True)
class ExemptionChange:
    """Over `span` clients are exempt from a ban by one policy only: the other's name is None."""

    ban: str
    client: IPNetwork | str
    """Addresses, or another statement in words such as `user alice`."""
    span: Span
    before: str | None
    after: str | None


def differs(before: Decision, after: Decision) -> bool:
    """Whether a client would notice: the verdict or the response differs."""
    return before.verdict is not after.verdict or before.response is not after.response


def verdict_changes(old: Snapshot, new: Snapshot, within: Span) -> Iterator[VerdictChange]:
    """Where decisions differ, by network and service in the order of the policies; adjoining spans are joined."""
    networks = dict.fromkeys((*old.policy.networks, *new.policy.networks))
    services = dict.fromkeys(
        (*old.policy.services, *new.policy.services, *((ALL,) if old.on_all or new.on_all else ()))
    )
    walked: dict[tuple[_Tracks, _Tracks], list[VerdictChange]] = {}
    for network in networks:
        for service in services:
            key = old.tracks_for(service, network), new.tracks_for(service, network)
            if key not in walked:  # the same bans in the same zone decide alike for every network and service
                same = _stated(key[0]) == _stated(key[1])
                walked[key] = [] if same else _pair(old, new, network, service, within)
            yield from (_named(each, network, service) for each in walked[key])


_Tracks = tuple[Track, ...]


def _stated(tracks: _Tracks) -> list[tuple[Ban, str]]:
    """The bans of a pair and their zones, without exemptions: if these are equal, so are all decisions."""
    return sorted(((replace(t.ban, origin=None), t.zone) for t in tracks), key=lambda each: each[0].name)


def _named(change: VerdictChange, network: str, service: str) -> VerdictChange:
    if (change.network, change.service) == (network, service):
        return change
    before, after = (
        replace(decision, network=network, service=service, rule=service) for decision in (change.before, change.after)
    )
    return VerdictChange(network, service, change.span, before, after)


def _pair(old: Snapshot, new: Snapshot, network: str, service: str, within: Span) -> list[VerdictChange]:
    """Where decisions differ for a service in a network; adjoining spans with the same difference are one."""
    found: list[VerdictChange] = []
    membership, match = Membership({network: 0}, frozenset()), Match((Hit(service, service),))
    at = within.start
    while at < within.end:
        before, after = (decide_kind(snapshot, membership, match, at) for snapshot in (old, new))
        changes = [d.next_change for d in (before, after) if d.next_change is not None]
        end = min([within.end, *changes])
        if differs(before, after):
            last = found[-1] if found else None
            if last and last.span.end == at and not (differs(last.before, before) or differs(last.after, after)):
                found[-1] = replace(last, span=Span(last.span.start, end))
            else:
                found.append(VerdictChange(network, service, Span(at, end), before, after))
        at = end
    return found


_ExemptSpans = dict[tuple[str, IPNetwork | str, str], list[tuple[Span, str]]]
"""By ban, client and zone: the spans of exemptions, with their names."""


def exemption_changes(old: Snapshot, new: Snapshot, within: Span) -> Iterator[ExemptionChange]:
    """Where only one policy exempts clients from a ban, once for each span of time."""
    before, after = _exempt_spans(old), _exempt_spans(new)
    found: set[ExemptionChange] = set()
    for key in dict.fromkeys((*before, *after)):
        mine, theirs = before.get(key, []), after.get(key, [])
        edges = {edge for span, _ in (*mine, *theirs) for edge in (span.start, span.end)}
        inside = sorted({within.start, within.end, *(edge for edge in edges if edge in within)})
        for start, end in pairwise(inside):
            was, becomes = _in_force(mine, start), _in_force(theirs, start)
            change = ExemptionChange(key[0], key[1], Span(start, end), was, becomes)
            if (was is None) != (becomes is None) and change not in found:
                found.add(change)
                yield change


def _exempt_spans(snapshot: Snapshot) -> _ExemptSpans:
    found: _ExemptSpans = {}
    for track in snapshot.tracks:
        for name, span in track.exemptions.items():
            exemption = snapshot.policy.exemptions[name]
            for client in (*exemption.clients, *exemption.identified):
                found.setdefault((track.ban.name, client, track.zone), []).append((span, name))
    return found


def _in_force(spans: list[tuple[Span, str]], at: Instant) -> str | None:
    return next((name for span, name in spans if at in span), None)
