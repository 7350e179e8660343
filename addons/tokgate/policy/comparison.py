"""Where two policies differ: which service's verdict in which network, from when until when, and in what they define.

A network is looked at by itself, as by a client that is in no other; exemptions are compared on their own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum
from itertools import chain, pairwise
from typing import Any

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.decide import decide_kind
from tokgate.policy.decision import Decision
from tokgate.policy.networks import Network
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.schedule import Span
from tokgate.policy.services import Hit, Match, Service
from tokgate.policy.snapshot import Membership, Policy, Snapshot, Track


@dataclass(frozen=True, slots=True)
class Stretch:
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
    client: IPNetwork
    span: Span
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Redefinition:
    """What one name means more, and what it means less, in the words of the policy; `kind` as in YAML."""

    kind: str
    name: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


class How(StrEnum):
    """What became of a name from one policy to the next."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """That a policy says something else of a name; `what` of it is told only where both policies have it.

    Keys for a ban or an exemption; for networks, services and settings what comes in (`+`) and goes (`-`).
    """

    kind: str
    name: str
    how: How
    what: tuple[str, ...] = ()


def differs(before: Decision, after: Decision) -> bool:
    """Whether a client would notice: another verdict, or another way of being told."""
    return before.verdict is not after.verdict or before.response is not after.response


def stretches(old: Snapshot, new: Snapshot, within: Span) -> Iterator[Stretch]:
    """Where treatment differs, by network and service in the order of the policies; adjoining ones are joined."""
    networks = dict.fromkeys((*old.policy.networks, *new.policy.networks))
    services = dict.fromkeys((*old.policy.services, *new.policy.services))
    walked: dict[tuple[_Tracks, _Tracks], list[Stretch]] = {}
    for network in networks:
        for service in services:
            key = old.tracks_for(service, network), new.tracks_for(service, network)
            if key not in walked:  # the same bans in the same zone say the same of every network and service
                same = _stated(key[0]) == _stated(key[1])
                walked[key] = [] if same else list(_joined(_pair(old, new, network, service, within)))
            yield from (_named(each, network, service) for each in walked[key])


_Tracks = tuple[Track, ...]


def _stated(tracks: _Tracks) -> list[tuple[Ban, str]]:
    """All that bears on a pair, exemptions aside: pairs for which it is equal need no walk through time."""
    return sorted(((replace(t.ban, origin=None), t.zone) for t in tracks), key=lambda each: each[0].name)


def _named(stretch: Stretch, network: str, service: str) -> Stretch:
    if (stretch.network, stretch.service) == (network, service):
        return stretch
    before, after = (_about(decision, network, service) for decision in (stretch.before, stretch.after))
    return Stretch(network, service, stretch.span, before, after)


def _about(decision: Decision, network: str, service: str) -> Decision:
    return replace(decision, network=network, service=decision.service and service, rule=decision.rule and service)


def _pair(old: Snapshot, new: Snapshot, network: str, service: str, within: Span) -> Iterator[Stretch]:
    membership, match = Membership({network: 0}, frozenset()), Match((Hit(service, service),))
    at = within.start
    while at < within.end:
        before, after = (decide_kind(snapshot, membership, match, at) for snapshot in (old, new))
        changes = [d.next_change for d in (before, after) if d.next_change is not None]
        end = min([within.end, *changes])
        if differs(before, after):
            yield Stretch(network, service, Span(at, end), before, after)
        at = end


def _joined(found: Iterable[Stretch]) -> Iterator[Stretch]:
    last: Stretch | None = None
    for each in found:
        if last is not None and last.span.end == each.span.start and _alike(last, each):
            last = replace(last, span=Span(last.span.start, each.span.end))
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last


def _alike(one: Stretch, other: Stretch) -> bool:
    return not differs(one.before, other.before) and not differs(one.after, other.after)


_Holes = dict[tuple[str, IPNetwork, str], list[tuple[Span, str]]]
"""By ban, client and zone: when who is exempt, and the exemption's name."""


def exemption_changes(old: Snapshot, new: Snapshot, within: Span) -> Iterator[ExemptionChange]:
    """Where only one policy exempts clients from a ban, once for each stretch of time."""
    before, after = _holes(old), _holes(new)
    told: set[ExemptionChange] = set()
    for key in dict.fromkeys((*before, *after)):
        mine, theirs = before.get(key, []), after.get(key, [])
        edges = {edge for span, _ in (*mine, *theirs) for edge in (span.start, span.end)}
        inside = sorted({within.start, within.end, *(edge for edge in edges if edge in within)})
        for start, end in pairwise(inside):
            was, becomes = _in_force(mine, start), _in_force(theirs, start)
            change = ExemptionChange(key[0], key[1], Span(start, end), was, becomes)
            if (was is None) != (becomes is None) and change not in told:
                told.add(change)
                yield change


def _holes(snapshot: Snapshot) -> _Holes:
    found: _Holes = {}
    for track in snapshot.tracks:
        for name, span in track.exemptions.items():
            for client in snapshot.policy.exemptions[name].clients:
                found.setdefault((track.ban.name, client, track.zone), []).append((span, name))
    return found


def _in_force(holes: list[tuple[Span, str]], at: Instant) -> str | None:
    return next((name for span, name in holes if at in span), None)


def changes(old: Policy, new: Policy) -> Iterator[Change]:
    """What was said otherwise, by section and name; where in the files it is said makes no difference."""
    yield from _changed("bans", old.bans, new.bans, _keys)
    yield from _changed("exemptions", old.exemptions, new.exemptions, _keys)
    yield from _changed("networks", old.networks, new.networks, _by_meaning(_network))
    yield from _changed("services", old.services, new.services, _by_meaning(_service))
    before, after = _settings(old.settings), _settings(new.settings)
    yield from (
        Change("settings", name, How.CHANGED, _words(before.get(name, set()), after.get(name, set())))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    )


def _changed[T](
    kind: str, old: Mapping[str, T], new: Mapping[str, T], what: Callable[[T, T], tuple[str, ...]]
) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        if before is None:
            yield Change(kind, name, How.ADDED)
        elif after is None:
            yield Change(kind, name, How.REMOVED)
        elif before != after and (said := what(before, after)):
            yield Change(kind, name, How.CHANGED, said)


def _keys(before: Any, after: Any) -> tuple[str, ...]:
    """The keys that differ, as in YAML; whichever of its forms was used, a ban's end is its end."""
    names = (field.name for field in fields(before) if field.name not in ("name", "origin"))
    differing = (name for name in names if getattr(before, name) != getattr(after, name))
    return tuple(dict.fromkeys("end" if name in ("expires", "duration") else name for name in differing))


def _by_meaning[T](meaning: Callable[[T], set[str]]) -> Callable[[T, T], tuple[str, ...]]:
    return lambda before, after: _words(meaning(before), meaning(after))


def _words(before: set[str], after: set[str]) -> tuple[str, ...]:
    return tuple(
        chain((f"+{word}" for word in sorted(after - before)), (f"-{word}" for word in sorted(before - after)))
    )


def redefinitions(old: Policy, new: Policy) -> Iterator[Redefinition]:
    """What networks, services and settings mean more or less; also of those that only one policy knows."""
    yield from _redefined("networks", _meanings(old.networks, _network), _meanings(new.networks, _network))
    yield from _redefined("services", _meanings(old.services, _service), _meanings(new.services, _service))
    yield from _redefined("settings", _settings(old.settings), _settings(new.settings))


def _redefined(kind: str, old: Mapping[str, set[str]], new: Mapping[str, set[str]]) -> Iterator[Redefinition]:
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name, set()), new.get(name, set())
        if before != after:
            yield Redefinition(kind, name, tuple(sorted(after - before)), tuple(sorted(before - after)))


def _meanings[T](held: Mapping[str, T], meaning: Callable[[T], set[str]]) -> dict[str, set[str]]:
    return {name: meaning(each) for name, each in held.items()}


def _network(network: Network) -> set[str]:
    """Its statements; a device by what it is known by, since that is what a client shows."""
    said = {f"timezone:{network.timezone}", *map(str, network.cidrs)}
    for kind, names in (("user", network.users), ("group", network.groups), ("interface", network.interfaces)):
        said |= {f"{kind}:{name}" for name in names}
    devices = (known for d in network.devices for known in (*map(str, d.addresses), *d.hardware))
    return said | {f"device:{known}" for known in devices}


def _service(service: Service) -> set[str]:
    """Its rules as decisions name them."""
    names = {f"{pattern.kind}:{pattern.value}" for pattern in service.patterns}
    addresses = {f"address:{prefix}" for prefix in service.addresses}
    return names | addresses | {f"store:{each.store}/{each.identifier}" for each in service.stores}


def _settings(settings: Any, above: str = "") -> dict[str, set[str]]:
    """Keys as they stand in YAML, with a dot for each level."""
    found: dict[str, set[str]] = {}
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value) and each.compare:
            found |= _settings(value, f"{above}{each.name}.")
        elif each.compare:
            values = value if isinstance(value, tuple) else () if value is None else (value,)
            found[f"{above}{each.name}"] = {str(one) for one in values}
    return found
