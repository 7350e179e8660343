"""A policy in its two forms: as stated, and compiled to an immutable snapshot in which deciding is a few look-ups.

A compiled ban is one track for each time zone among its networks.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

from whenever import Instant

from tokgate.policy.bans import Ban, Exemption, Lifted, OnExpiry
from tokgate.policy.decision import Decision, Phase, Signal
from tokgate.policy.membership import Clients, Membership
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Edge, PhaseChange, Schedule, Span, Weekly, add_duration, resolve
from tokgate.policy.services import Catalogue, Match, Service, ServiceIndex
from tokgate.policy.settings import Settings
from tokgate.policy.values.prefixes import Cover


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A valid policy as stated in the files; `version` is a short hash of its content."""

    services: Mapping[str, Service]
    networks: Mapping[str, Network]
    bans: Mapping[str, Ban]
    exemptions: Mapping[str, Exemption]
    settings: Settings
    version: str
    lifted: tuple[Lifted, ...] = ()
    """Bans that were taken out on purpose."""
    held: tuple[str, ...] = ()
    """Bans in force that the files no longer state and nobody has lifted (`analysis.held_bans`)."""
    catalogue: Catalogue | None = None
    """None if the files define all services."""
    stated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)
    """What the files state, by section and name, in plain values: from it the same policy can be read again."""


NOTHING: Final = Policy(services={}, networks={}, bans={}, exemptions={}, settings=Settings(), version="")
"""A policy without a ban."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One ban in one time zone: its schedule, and the spans of its exemptions by name, with all times resolved."""

    ban: Ban
    zone: str
    networks: tuple[str, ...]
    schedule: Schedule
    exemptions: Mapping[str, Span]
    extended_by: tuple[str, ...] = ()
    """The bans that take over from this one."""


def schedule_of(ban: Ban, zone: str, taken_over: Instant | None = None) -> Schedule:
    """The phases of a ban with its wall times read in `zone`; config/ has checked that they come in this order.

    `taken_over`: when a ban that extends it starts. `ends` is its end as stated all the same: what was known of it.
    """
    starts = resolve(ban.starts, zone, Edge.START)
    ends: Instant | None = None
    if ban.expires is not None:
        ends = resolve(ban.expires, zone, Edge.END)
    elif ban.duration is not None:
        ends = add_duration(ban.starts, ban.duration, zone)
    announced = Instant.MIN if ban.announced is None else resolve(ban.announced, zone, Edge.START)
    changes = [PhaseChange(announced, Phase.ANNOUNCED)]
    for moment, phase in ((ban.monitor_from, Phase.MONITOR), (ban.warn_from, Phase.WARN)):
        if moment is not None:
            changes.append(PhaseChange(resolve(moment, zone, Edge.START), phase))
    active = Phase(ban.action.value)
    changes.append(PhaseChange(starts, active))
    if ends is not None:
        holds = ban.on_expiry is OnExpiry.HOLD
        changes.append(PhaseChange(ends, active if holds else Phase.EXPIRED, overdue=holds))
    if taken_over is not None and not (changes[-1].phase is Phase.EXPIRED and changes[-1].at <= taken_over):
        changes = [*(change for change in changes if change.at < taken_over), PhaseChange(taken_over, Phase.EXPIRED)]
    return Schedule(tuple(changes), Weekly(ban.windows, zone), starts, ends)


def _exempting_in(
    zones: Mapping[str, Sequence[Network]], exemptions: Sequence[Exemption]
) -> Mapping[str, Sequence[Exemption]]:
    """The exemptions that may hold in each zone, as far as addresses tell; one that meets no zone stays in all."""
    if len(zones) == 1 or not exemptions:
        return dict.fromkeys(zones, exemptions)
    covers = {zone: Cover(p for network in networks for p in network.prefixes) for zone, networks in zones.items()}
    open_to_all = {zone for zone, networks in zones.items() if not all(network.by_address for network in networks)}
    found: dict[str, list[Exemption]] = {zone: [] for zone in zones}
    for each in exemptions:
        near = [z for z in zones if each.identified or z in open_to_all or any(map(covers[z].meets, each.clients))]
        for zone in near or zones:
            found[zone].append(each)
    return found


class DecisionCache:
    """The last decision for one kind of query, with the span of time over which it holds.

    A kind is what a policy can distinguish: a membership, a match and a signal. Safe to use from any thread.
    """

    __slots__ = ("_last", "match", "membership", "signal")

    def __init__(self, membership: Membership, match: Match, signal: Signal) -> None:
        self.membership: Final = membership
        self.match: Final = match
        self.signal: Final = signal
        self._last: tuple[Instant, Instant, Decision | None] = (Instant.MAX, Instant.MIN, None)

    def remembered(self, at: Instant) -> Decision | None:
        """The decision at `at`, if it is cached."""
        start, end, decision = self._last  # one tuple: another thread may replace it at any time
        return decision if start <= at < end else None

    def remember(self, decision: Decision, span: Span) -> None:
        """Cache a decision that holds over `span`."""
        self._last = (span.start, span.end, decision)


class Snapshot:
    """A compiled policy: its answers never change, and any thread may read it. Its caches of decisions are bounded."""

    MAX_CACHES: Final = 65536

    def __init__(self, policy: Policy, own: Policy = NOTHING) -> None:
        """Compile a policy, which config/ has validated.

        `own`: what an instance enforces beside it for itself. That is in no list, and no client is known by it: who is
        in one of `own_networks` alone is unknown to all that isn't its own, and nothing there is anybody's traffic.
        """
        self.policy: Final = policy
        self.version: Final = policy.version
        self.settings: Final = policy.settings
        self.bans: Final = policy.bans
        services = (*policy.services.values(), *own.services.values())
        self.services: Final = ServiceIndex(services, policy.settings.nat64_prefixes)
        self.tracks: Final = tuple(_tracks(policy))
        self.banned_services: Final = frozenset(name for ban in policy.bans.values() for name in ban.services)
        by_pair: dict[tuple[str, str], list[Track]] = {}
        for track in (*self.tracks, *_tracks(own)):
            for service in track.ban.services:
                for network in track.networks:
                    by_pair.setdefault((service, network), []).append(track)
        self._by_pair: Final = {pair: tuple(tracks) for pair, tracks in by_pair.items()}
        self._with_ban: Final = frozenset(name for track in (*self.tracks, *_tracks(own)) for name in track.networks)
        on_all = [track for track in self.tracks if track.ban.on_all]
        self.on_all: Final[Mapping[str, tuple[Track, ...]]] = {
            name: tuple(track for track in on_all if name in track.networks)
            for name in dict.fromkeys(name for track in on_all for name in track.networks)
        }
        """The tracks of bans on all, by network."""
        self.own_networks: Final = frozenset(own.networks)
        direct = tuple(address for service in own.services.values() for address in service.addresses)
        parents = policy.settings.upstream
        self.upstream: Final = tuple(replace(each, exclusions=(*each.exclusions, *direct)) for each in parents)
        """The parent proxies, none of which carries what is the instance's own."""
        networks = (*policy.networks.values(), *own.networks.values())
        clients = Clients(networks, policy.exemptions, policy.settings, self.own_networks)
        self.identifies: Final = clients.identifies
        self._caches: dict[tuple[Membership, Match, Signal], DecisionCache] = {}
        # No reference cycle leads to a snapshot: once replaced it is freed without the garbage collector.
        self.membership: Final = lru_cache(maxsize=65536)(clients.membership)

    def tracks_for(self, service: str, network: str) -> tuple[Track, ...]:
        """The tracks of all bans on this service in this network, whatever their times."""
        on_all = (track for track in self.on_all.get(network, ()) if service not in track.ban.excepted)
        return (*self._by_pair.get((service, network), ()), *on_all)

    def is_under_ban_on_all(self, membership: Membership) -> bool:
        """Whether there is a ban on all for a client, whatever its times: it may ask for a name of no service."""
        if not self.on_all or self.on_all.keys().isdisjoint(membership.networks):
            return False
        return self.own_networks.isdisjoint(membership.networks)

    def has_ban(self, membership: Membership) -> bool:
        """Whether a ban has one of a client's networks, whatever its times and services."""
        return not self._with_ban.isdisjoint(membership.networks)

    def decision_cache(self, membership: Membership, match: Match, signal: Signal) -> DecisionCache:
        """The cache for a kind of query; made if it doesn't exist."""
        key = (membership, match, signal)
        found = self._caches.get(key)
        if found is None:
            if match.problem is not None:  # such a match is a new object for each name, so it is never found again
                return DecisionCache(membership, match, signal)
            if len(self._caches) >= self.MAX_CACHES:
                self._caches = {}
            found = self._caches.setdefault(key, DecisionCache(membership, match, signal))
        return found


def compile_policy(policy: Policy, own: Policy = NOTHING) -> Snapshot:
    """Compile a valid policy: seconds for 10,000 networks, 1,000 bans, 100,000 names and 100,000 devices."""
    with gc_paused():
        return Snapshot(policy, own)


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the cyclic garbage collector while very many objects are made, none of them garbage.

    Its searches would double the time that a large policy takes to load.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _tracks(policy: Policy) -> Iterable[Track]:
    exemptions: dict[str, list[Exemption]] = {}
    for exemption in policy.exemptions.values():
        exemptions.setdefault(exemption.ban, []).append(exemption)
    extended: dict[str, list[Ban]] = {}
    for ban in policy.bans.values():
        if ban.extends is not None:
            extended.setdefault(ban.extends, []).append(ban)
    for ban in policy.bans.values():
        zones: dict[str, list[Network]] = {}
        for network in map(policy.networks.__getitem__, ban.networks):
            zones.setdefault(network.timezone, []).append(network)
        exempting = _exempting_in(zones, exemptions.get(ban.name, ()))
        for zone, networks in zones.items():
            spans = {
                e.name: Span(
                    Instant.MIN if e.starts is None else resolve(e.starts, zone, Edge.START),
                    resolve(e.until, zone, Edge.END),
                )
                for e in exempting[zone]
            }
            following = extended.get(ban.name, ())
            taken_over = min((resolve(each.starts, zone, Edge.START) for each in following), default=None)
            names = tuple(network.name for network in networks)
            extensions = tuple(each.name for each in following)
            yield Track(ban, zone, names, schedule_of(ban, zone, taken_over), spans, extensions)
