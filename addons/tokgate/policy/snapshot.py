"""A policy in its two forms: as stated, and compiled to an immutable snapshot in which deciding is a few look-ups.

Compiling joins what the policy keeps apart: each ban becomes one track for each time zone among its networks.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from whenever import Instant

from tokgate.policy import collector
from tokgate.policy.bans import Ban, Exemption, OnExpiry, Settings, UnknownClients
from tokgate.policy.decision import Decision, Phase, Reason, Response, Signal, Verdict
from tokgate.policy.identity import Identity, IdentityIndex, narrowest_first
from tokgate.policy.names import parse_address
from tokgate.policy.networks import Network
from tokgate.policy.prefixes import Held, IPNetwork, PrefixTable
from tokgate.policy.schedule import Edge, PhaseChange, Schedule, Span, Weekly, add_duration, resolve
from tokgate.policy.services import Match, Service, ServiceIndex

if TYPE_CHECKING:
    from tokgate.policy.resemblance import Resemblance

Progress = Callable[[int, int], None]
"""Called with (done, total) while compiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A valid policy as stated in the files; `version` is a short hash of what was said."""

    services: Mapping[str, Service]
    networks: Mapping[str, Network]
    bans: Mapping[str, Ban]
    exemptions: Mapping[str, Exemption]
    settings: Settings
    version: str


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One ban in one time zone: its schedule and the exemptions from it, with all times resolved."""

    ban: Ban
    zone: str
    networks: tuple[str, ...]
    schedule: Schedule
    exemptions: Mapping[str, Span]


_NO_SERVICE: Final = Decision(Verdict.ALLOW, Reason.NO_SERVICE)


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """What the policy says of a client: its networks, narrowest first, and the exemptions that name it.

    `networks` maps to the length of the prefix through which the client belongs; for what is no prefix, see
    `identity`. Interned: clients that no policy can tell apart share one.
    """

    networks: Mapping[str, int]
    exemptions: frozenset[str]
    unconcerned: Decision = _NO_SERVICE
    """What is decided at any time of a name that belongs to no service; of every name, for a client in no network."""


def schedule_of(ban: Ban, zone: str) -> Schedule:
    """The phases of a ban with its wall times read in `zone`."""
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
        held = ban.on_expiry is OnExpiry.HOLD
        changes.append(PhaseChange(ends, active if held else Phase.EXPIRED, overdue=held))
    changes.sort(key=lambda change: change.at)  # stable: of two at once the later in life wins
    return Schedule(tuple(changes), Weekly(ban.windows, zone), starts, ends)


def _exemption_span(exemption: Exemption, zone: str) -> Span:
    start = Instant.MIN if exemption.starts is None else resolve(exemption.starts, zone, Edge.START)
    return Span(start, resolve(exemption.until, zone, Edge.END))


_Remembered = tuple[Instant, Instant, Decision | None]
"""Start, end, and the decision between them."""


class Course:
    """The decisions for one kind of query over all time, found as they are asked for and remembered.

    A kind is what a policy can tell apart: a membership, a match and a signal.
    """

    __slots__ = ("_known", "_last", "match", "membership", "signal")

    LIMIT: Final = 4096
    """Spans remembered: years of daily windows. What is forgotten is decided again."""

    def __init__(self, membership: Membership, match: Match, signal: Signal) -> None:
        """Start without any decision."""
        self.membership: Final = membership
        self.match: Final = match
        self.signal: Final = signal
        self._known: list[_Remembered] = []
        self._last: _Remembered = (Instant.MAX, Instant.MIN, None)

    def remembered(self, at: Instant) -> Decision | None:
        """The decision at `at` if it was made before."""
        start, end, decision = self._last  # one tuple: another thread may exchange it at any time
        if start <= at < end:
            return decision
        known = self._known
        index = bisect_right(known, at, key=itemgetter(0)) - 1
        if index < 0:
            return None
        start, end, decision = entry = known[index]
        if not start <= at < end:
            return None
        self._last = entry
        return decision

    def remember(self, decision: Decision, span: Span) -> None:
        """Keep a decision that holds over `span`."""
        known = self._known
        if len(known) >= self.LIMIT:
            self._known = known = []
        entry: _Remembered = (span.start, span.end, decision)
        known.insert(bisect_right(known, span.start, key=itemgetter(0)), entry)
        self._last = entry


class Snapshot:
    """A compiled policy: immutable in what it answers, and safe to read from any thread.

    It remembers decisions, so that asking again is cheap; what it remembers is bounded.
    """

    MAX_COURSES: Final = 65536

    def __init__(self, policy: Policy, progress: Progress | None = None) -> None:
        """Compile; `policy` must be valid (config/ has checked it)."""
        self.policy: Final = policy
        self.version: Final = policy.version
        self.settings: Final = policy.settings
        self.bans: Final = policy.bans
        self.services: Final = ServiceIndex(policy.services.values())
        self.tracks: Final = tuple(_tracks(policy, progress))
        self.banned_services: Final = frozenset(name for ban in policy.bans.values() for name in ban.services)
        self.resemblance: Final = _resemblance(policy, self.banned_services)
        by_pair: dict[tuple[str, str], list[Track]] = {}
        for track in self.tracks:
            for service in track.ban.services:
                for network in track.networks:
                    by_pair.setdefault((service, network), []).append(track)
        self._by_pair: Final = {pair: tuple(tracks) for pair, tracks in by_pair.items()}
        clients = _Clients(policy)
        self.identifies: Final = clients.identifies
        self._courses: dict[tuple[Membership, Match, Signal], Course] = {}
        # Nothing in a snapshot refers back to it: when it is replaced it is freed without a search by the collector.
        self.membership: Final = lru_cache(maxsize=65536)(clients.membership)

    def tracks_for(self, service: str, network: str) -> tuple[Track, ...]:
        """The bans, by zone, that cover this service in this network, at any time."""
        return self._by_pair.get((service, network), ())

    def services_banned_at(self, at: Instant) -> frozenset[str]:
        """The services with a ban that is announced or in force, in whatever phase, and not over."""
        over = (None, Phase.EXPIRED)
        tracks = (track for track in self.tracks if track.schedule.standing(at).phase not in over)
        return frozenset(service for track in tracks for service in track.ban.services)

    def course(self, membership: Membership, match: Match, signal: Signal) -> Course:
        """The course of decisions for a kind of query."""
        key = (membership, match, signal)
        found = self._courses.get(key)
        if found is None:
            if match.problem is not None:  # such a match is made anew for each name, so it would never be found again
                return Course(membership, match, signal)
            if len(self._courses) >= self.MAX_COURSES:
                self._courses = {}
            found = self._courses.setdefault(key, Course(membership, match, signal))
        return found


def compile_policy(policy: Policy, progress: Progress | None = None) -> Snapshot:
    """Compile a valid policy: seconds for 10,000 networks, 1,000 bans, 100,000 names and 100,000 devices."""
    with collector.paused():
        return Snapshot(policy, progress)


def _resemblance(policy: Policy, banned: frozenset[str]) -> "Resemblance | None":
    """What names are compared with, where the policy wants to hear of them."""
    if not policy.settings.log.near_misses:
        return None
    from tokgate.policy.resemblance import Resemblance  # its library takes a while to import

    return Resemblance(service for name, service in policy.services.items() if name in banned)


def _tracks(policy: Policy, progress: Progress | None) -> Iterable[Track]:
    exemptions: dict[str, list[Exemption]] = {}
    for exemption in policy.exemptions.values():
        exemptions.setdefault(exemption.ban, []).append(exemption)
    for done, ban in enumerate(policy.bans.values(), 1):
        zones: dict[str, list[str]] = {}
        for network in ban.networks:
            zones.setdefault(policy.networks[network].timezone, []).append(network)
        for zone, networks in zones.items():
            holes = {e.name: _exemption_span(e, zone) for e in exemptions.get(ban.name, ())}
            yield Track(ban, zone, tuple(networks), schedule_of(ban, zone), holes)
        if progress is not None:
            progress(done, len(policy.bans))


class _Clients:
    """Finds the membership of clients."""

    def __init__(self, policy: Policy) -> None:
        self._memberships: Final = _Memberships(policy.settings)
        self._addresses: Final = PrefixTable(_client_entries(policy), self._memberships.of_holders)
        self._nowhere: Final = Membership({}, frozenset(), _stranger(policy.settings, Reason.INVALID_CLIENT))
        self._identities: Final = IdentityIndex(policy.networks.values())
        self.identifies: Final = self._identities.identifies

    def membership(self, client: str, identity: Identity | None = None) -> Membership:
        """The networks and exemptions of a client: its address in any spelling, and what else was found out."""
        address = parse_address(client)
        by_address = self._nowhere if address is None else self._addresses.find(address)
        if identity is None:
            return by_address
        found = list(self._identities.find(identity, 128 if address is None else address.max_prefixlen))
        if not found:
            return by_address
        return self._memberships.of(narrowest_first(by_address.networks, found), by_address.exemptions)


def _client_entries(policy: Policy) -> Iterable[tuple[IPNetwork, Network | Exemption]]:
    for network in policy.networks.values():
        yield from ((prefix, network) for prefix in network.prefixes)
    for exemption in policy.exemptions.values():
        yield from ((cidr, exemption) for cidr in exemption.clients)


class _Memberships:
    """Makes memberships, the same one for what is the same."""

    def __init__(self, settings: Settings) -> None:
        self._stranger: Final = _stranger(settings, Reason.UNKNOWN_CLIENT)
        self._known: Final[dict[tuple[tuple[tuple[str, int], ...], frozenset[str]], Membership]] = {}

    def of_holders(self, holders: tuple[Held[Network | Exemption], ...]) -> Membership:
        """Of the clients that all these prefixes hold, narrowest first."""
        networks: dict[str, int] = {}
        exemptions: set[str] = set()
        for held in holders:
            if isinstance(held.value, Network):
                networks.setdefault(held.value.name, held.prefix.prefixlen)
            else:
                exemptions.add(held.value.name)
        return self.of(networks, frozenset(exemptions))

    def of(self, networks: dict[str, int], exemptions: frozenset[str]) -> Membership:
        """With these networks, narrowest first, and exemptions. Safe to call from any thread."""
        key = (tuple(networks.items()), exemptions)
        found = self._known.get(key)
        if found is None:
            if networks:
                unconcerned = Decision(Verdict.ALLOW, Reason.NO_SERVICE, network=next(iter(networks)))
            else:
                unconcerned = self._stranger
            found = self._known.setdefault(key, Membership(networks, exemptions, unconcerned))
        return found


def _stranger(settings: Settings, reason: Reason) -> Decision:
    """What is decided of everything that a client in no network asks for."""
    if settings.unknown_clients is UnknownClients.BLOCK:
        return Decision(Verdict.BLOCK, reason, response=Response.REFUSE)
    return Decision(Verdict.ALLOW, reason)
