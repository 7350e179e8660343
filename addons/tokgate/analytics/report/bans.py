"""What a report says of each ban: its phases over a period, its title, on whose authority, and for whom.

From the policy files, or without these from the log's records.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import Policy, Snapshot, Track

HELD: Final = "held past its end"
"""The phase of a ban that blocks although its time is over."""


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A ban in one phase from `start` until `end`, cut to the period."""

    phase: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class BanPhases:
    """The phases of one ban within the period, in order of time."""

    ban: str
    title: str
    spans: tuple[PhaseSpan, ...]


type _PhaseStart = tuple[datetime, str]
"""When a phase begins, and its name."""


def phases_of_policy(snapshot: Snapshot, start: datetime, end: datetime) -> list[BanPhases]:
    """The bans of a policy with a phase in the period. A ban in several zones has the times of the first zone."""
    lanes: dict[str, BanPhases] = {}
    for track in snapshot.tracks:
        changes = [
            (_utc(change.at), HELD if change.overdue else change.phase.value) for change in track.schedule.changes
        ]
        lane = BanPhases(track.ban.name, track.ban.title, _spans(changes, start, end))
        if lane.spans:
            lanes.setdefault(lane.ban, lane)
    return list(lanes.values())


def phases_of_log(
    changes: Iterable[tuple[str, datetime, str, str | None]], start: datetime, end: datetime
) -> list[BanPhases]:
    """The bans of the log's phase changes: (ban, due, phase, phase before), in order of time."""
    by_ban: dict[str, list[_PhaseStart]] = {}
    for ban, due, phase, before in changes:
        known = by_ban.setdefault(ban, [] if before is None else [(datetime.min, before)])
        known.append((due, phase))
    return [BanPhases(ban, ban, found) for ban, known in by_ban.items() if (found := _spans(known, start, end))]


def _spans(changes: Sequence[_PhaseStart], start: datetime, end: datetime) -> tuple[PhaseSpan, ...]:
    found = []
    for number, (at, phase) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else datetime.max
        first, last = max(at, start), min(until, end)
        if first < last and phase != Phase.EXPIRED:
            found.append(PhaseSpan(phase, first, last))
    return tuple(found)


def _utc(at: Instant) -> datetime:
    """UTC without `tzinfo`, as DuckDB returns instants; clamped to what datetime can hold."""
    if at <= Instant.from_utc(1, 1, 2):
        return datetime.min
    return datetime.max if at >= Instant.from_utc(9999, 12, 30) else at.to_stdlib().replace(tzinfo=None)


_MOST_PREFIXES: Final = 4


@dataclass(frozen=True, slots=True)
class BanPeriod:
    """A phase of a ban, in UTC without `tzinfo`; `end` None: until lifted."""

    phase: str
    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A network by its name and what makes a client one of it; `without`: who is none of it all the same."""

    name: str
    members: tuple[str, ...] = ()
    devices: int = 0
    users: int = 0
    groups: int = 0
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BanFacts:
    """One ban. What isn't known is None or empty."""

    name: str
    title: str
    authority: str | None = None
    basis: str | None = None
    reference: str | None = None
    phases: tuple[BanPeriod, ...] = ()
    scope: tuple[Scope, ...] = ()
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
            scope=tuple(Scope(name=name) for name in row["networks"] or ()),
            services=tuple(row["services"] or ()),
        )
        for row in rows
    ]


def _of_track(track: Track, policy: Policy) -> BanFacts:
    ban: Ban = track.ban
    changes = track.schedule.changes
    ends = [_utc(change.at) for change in changes[1:]]
    phases = [
        BanPeriod(HELD if change.overdue else change.phase.value, _utc(change.at), end)
        for change, end in zip_longest(changes, ends)
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


def _scope(network: Network) -> Scope:
    more = ("…",) if len(network.cidrs) > _MOST_PREFIXES else ()
    return Scope(
        name=network.name,
        members=(*map(str, network.cidrs[:_MOST_PREFIXES]), *more, *network.networks),
        devices=len(network.devices),
        users=len(network.users),
        groups=len(network.groups),
        without=(*map(str, network.except_cidrs), *network.except_networks),
    )
