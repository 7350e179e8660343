"""What a report says of each ban: its title, on whose authority, since when and for whom."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import Policy, Snapshot, Track


@dataclass(frozen=True, slots=True)
class BanPeriod:
    """A phase of a ban, in UTC without `tzinfo`; `end` None: until lifted."""

    phase: str
    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BanFacts:
    """One ban. What isn't known is None or empty."""

    name: str
    title: str
    authority: str | None = None
    basis: str | None = None
    reference: str | None = None
    phases: tuple[BanPeriod, ...] = ()
    scope: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


def facts_of_policy(snapshot: Snapshot, wanted: Iterable[str]) -> list[BanFacts]:
    """The bans with these names, as the policy states them, in its order. Raises nothing for others."""
    names, found = set(wanted), dict[str, BanFacts]()
    for track in snapshot.tracks:
        if track.ban.name in names and track.ban.name not in found:
            found[track.ban.name] = _of_track(track, snapshot.policy)
    return list(found.values())


def facts_of_log(rows: Iterable[Mapping[str, Any]]) -> list[BanFacts]:
    """The bans of rows with `ban`, `authority`, `basis`, `until`, `networks` and `services`."""
    return [
        BanFacts(
            name=row["ban"],
            title=row["ban"],
            authority=row["authority"],
            basis=row["basis"],
            scope=tuple(row["networks"] or ()),
            services=tuple(row["services"] or ()),
        )
        for row in rows
    ]


def _of_track(track: Track, policy: Policy) -> BanFacts:
    ban: Ban = track.ban
    changes = track.schedule.changes
    phases = [
        BanPeriod(change.phase.value, _utc(change.at), _utc(changes[at + 1].at) if at + 1 < len(changes) else None)
        for at, change in enumerate(changes)
        if change.phase is not Phase.EXPIRED and change.at > Instant.MIN
    ]
    return BanFacts(
        name=ban.name,
        title=ban.title,
        authority=ban.authority,
        basis=ban.basis,
        reference=ban.reference,
        phases=tuple(phases),
        scope=tuple(_scope(policy.networks[name]) for name in ban.networks),
        services=tuple(policy.services[name].title or name for name in ban.services),
    )


def _scope(network: Network) -> str:
    """A network by its name and what makes a client one of it."""
    parts = [", ".join(map(str, network.cidrs[:4])) + (", …" if len(network.cidrs) > len(network.cidrs[:4]) else "")]
    counted = ((network.devices, "devices"), (network.users, "users"), (network.groups, "groups"))
    parts += [f"{len(held)} {what}" for held, what in counted if held]
    parts += network.networks
    excepted = (*map(str, network.except_cidrs), *network.except_networks)
    parts += [f"without {', '.join(excepted)}"] if excepted else []
    said = ", ".join(part for part in parts if part)
    return f"{network.name} ({said})" if said else network.name


def _utc(at: Instant) -> datetime:
    return at.to_stdlib().replace(tzinfo=None)
