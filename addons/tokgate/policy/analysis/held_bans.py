"""Bans in force that vanish from a policy: held back until somebody lifts them, and what a new policy does to bans.

A file that was emptied or deleted by mistake lifts no ban. A ban that ends states an end, or is named under `lifted`.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from whenever import Instant

from tokgate.policy.decision import Phase
from tokgate.policy.networks import linked, with_parts
from tokgate.policy.snapshot import Policy, Snapshot, Track

_IN_FORCE: Final = (Phase.MONITOR, Phase.WARN, Phase.BLOCK)


@dataclass(frozen=True, slots=True)
class BanEffects:
    """What a new policy does to bans at the instant at which it comes into force, by their names."""

    begun: tuple[str, ...] = ()
    """In force now, and not before."""
    ended: tuple[str, ...] = ()
    """No longer in force: their new end is over, or their new start is still to come."""
    lifted: tuple[str, ...] = ()
    """Were in force, and are no longer part of the policy."""
    held: tuple[str, ...] = ()
    """In force although the files no longer state them."""


NO_EFFECTS: Final = BanEffects()


def effects(old: Snapshot, new: Snapshot, at: Instant) -> BanEffects:
    """What the change from one policy to another does to bans at `at`."""
    before, after = set(in_force(old.tracks, at)), set(in_force(new.tracks, at))
    gone = [name for name in old.bans if name in before - after]
    return BanEffects(
        begun=tuple(name for name in new.bans if name in after - before),
        ended=tuple(name for name in gone if name in new.bans),
        lifted=tuple(name for name in gone if name not in new.bans),
        held=new.policy.held,
    )


def in_force(tracks: Iterable[Track], at: Instant) -> Iterator[str]:
    """The bans that apply at `at` in any zone, also those outside their windows."""
    yield from dict.fromkeys(track.ban.name for track in tracks if track.schedule.state_at(at).phase in _IN_FORCE)


def vanished(old: Snapshot, new: Policy, at: Instant) -> tuple[str, ...]:
    """The bans in force at `at` that the new policy neither states nor lifts."""
    said = new.bans.keys() | {each.ban for each in new.lifted}
    return tuple(in_force((track for track in old.tracks if track.ban.name not in said), at))


def with_held(new: Policy, old: Policy, names: tuple[str, ...]) -> Policy:
    """The new policy with bans of the old one, and those of their services, networks and exemptions that it lacks."""
    if not names:
        return new
    part = restricted(old, names)
    version = hashlib.sha256("\n".join((new.version, *sorted(names))).encode()).hexdigest()[:12]
    return replace(
        new,
        services={**part.services, **new.services},
        networks=linked({**part.networks, **new.networks}),
        bans={**new.bans, **part.bans},
        exemptions={**part.exemptions, **new.exemptions},
        version=version,
        held=names,
        stated={kind: {**part.stated.get(kind, {}), **new.stated.get(kind, {})} for kind in (*part.stated, "settings")},
    )


def restricted(policy: Policy, names: tuple[str, ...]) -> Policy:
    """The part of a policy that these bans need, without settings."""
    bans = {name: policy.bans[name] for name in names}
    needed: dict[str, Collection[str]] = {
        "services": {name for ban in bans.values() for name in (*ban.services, *ban.excepted)},
        "networks": with_parts((name for ban in bans.values() for name in ban.networks), policy.networks),
        "bans": bans,
        "exemptions": {name for name, each in policy.exemptions.items() if each.ban in bans},
    }

    def part(kind: str, entries: Mapping[str, Any]) -> dict[str, Any]:
        return {name: each for name, each in entries.items() if name in needed[kind]}

    kept: dict[str, Any] = {kind: part(kind, getattr(policy, kind)) for kind in needed} | {"bans": bans}
    stated = {kind: part(kind, policy.stated.get(kind, {})) for kind in needed}
    return replace(policy, lifted=(), held=names, stated=stated, **kept)
