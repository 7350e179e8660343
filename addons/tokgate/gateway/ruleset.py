"""What the nftables table is made of: values from a policy, for an instant. Nothing is read or run here."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from whenever import Instant, TimeDelta

from tokgate.gateway.canary.definition import Clients, among_clients, client_network, servers
from tokgate.gateway.nft_sets import ClientSets
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Schedule, Span
from tokgate.policy.settings import Passage, PortRange, UnknownClients
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.prefixes import WELL_KNOWN_NAT64, IPNetwork, disjoint, merged

TABLE: Final = "tokgate"
"""The name of the table, of family inet."""
DEFAULT_PORT: Final = 8080
REDIRECT_PORTS: Final = PortRange(10443, 10506)
"""64 ports, below those that Linux gives to its own connections (ip-sysctl: ip_local_port_range)."""
DEFAULT_MARK: Final = 0x746B
"""Of packets that are delivered here although they are addressed elsewhere; also the number of their routing table."""
AHEAD: Final = TimeDelta(hours=24)
"""How long before a ban begins its clients come to the gates: what is open when it starts is then known there."""
_ACTING: Final = (Phase.WARN, Phase.BLOCK)
_U_OCTET_AT: Final = 64
"""The first bit of the octet that holds no part of an address."""


@dataclass(frozen=True, slots=True)
class Bypass:
    """How the proxy's own packets are told apart: an nftables condition, and whether forwarded packets can carry it."""

    condition: str
    forwarded: bool

    @classmethod
    def by_uid(cls, uid: int) -> "Bypass":
        """By the user the proxy runs as; only packets that start on this machine have one."""
        return cls(f"meta skuid {uid}", forwarded=False)

    @classmethod
    def by_mark(cls, mark: int) -> "Bypass":
        """By a firewall mark set on the proxy's sockets."""
        return cls(f"meta mark {mark:#x}", forwarded=True)


@dataclass(frozen=True, slots=True)
class Tproxy:
    """Connections are delivered to a transparent listener with their addresses untouched."""

    port: int = DEFAULT_PORT
    mark: int = DEFAULT_MARK

    @property
    def to(self) -> PortRange:
        """The ports that gates listen at."""
        return PortRange(self.port, self.port)


@dataclass(frozen=True, slots=True)
class Redirect:
    """Connections are translated to this machine's address and one of these ports, by a hash of the destination.

    With one port, connections stall: a client's port that is in TIME_WAIT for one server meets a SYN for another with
    an older timestamp, which the kernel drops (PAWS, RFC 7323 §5).
    """

    to: PortRange = REDIRECT_PORTS
    """The ports that gates listen at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """What the policy doesn't say. `local`: how the connections of this machine's own programs reach the gates."""

    forwarded: Tproxy | Redirect = Tproxy()
    local: Redirect | None = None
    bypass: Bypass | None = None


@dataclass(frozen=True, slots=True)
class KernelBan:
    """What the kernel itself refuses to clients of some networks during `blocks`, but for those exempt."""

    blocks: Span
    """Of a ban on all, windows count: outside of them another table is due."""
    exempt: tuple[tuple[IPNetwork, Span], ...]
    networks: tuple[Network, ...]
    addresses: tuple[IPNetwork, ...] = ()
    """Of services, which must not be reached; empty: a ban on all, by which all is refused that gates don't take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """`strangers`: clients of no network are refused."""

    options: TableOptions
    version: str
    holds: Span
    """When this is the table that is due, as long as the policy stays."""
    known: tuple[Network, ...]
    """All networks of the policy."""
    clients: tuple[Network, ...]
    """Those with a ban in sight: not over, and beginning within a day."""
    under_ban: tuple[Network, ...]
    """Those with a ban that acts."""
    canary: tuple[Network, ...]
    """The canary as a network, if there is one: its connections come to the gates as clients' do."""
    canary_servers: tuple[IPv4Address | IPv6Address, ...]
    """The addresses of its server, which comes at any port: see `canary.links`."""
    canary_clients: Clients
    """Where it asks besides: in networks under a ban that acts."""
    other_ports: tuple[PortRange, ...]
    """Where the web is besides 80 and 443."""
    addresses: tuple[IPNetwork, ...]
    """Of the services of the bans in sight, disjoint."""
    address_bans: tuple[KernelBan, ...]
    all_clients: tuple[Network, ...]
    """Those with a ban on all in sight: all their TCP goes to the gates."""
    all_bans: tuple[KernelBan, ...]
    strangers: bool
    on_crash: Passage

    @property
    def until(self) -> Instant | None:
        """When another table is due, although the policy stays; None for never."""
        return None if self.holds.end == Instant.MAX else self.holds.end

    @property
    def known_sets(self) -> ClientSets:
        """All networks of the policy: who is in none is a stranger."""
        return ClientSets("known", "All clients of the policy.", (*self.known, *self.canary), self._local)

    @property
    def client_sets(self) -> ClientSets:
        """The networks with a ban that is in force or begins within a day."""
        purpose = "Clients under a ban that is not over and begins within a day: their TCP goes to the gates."
        return ClientSets("clients", purpose, (*self.clients, *self.canary), self._local)

    @property
    def ban_sets(self) -> ClientSets:
        """The networks with a ban that acts."""
        purpose = "Clients under a ban that warns or blocks now: what they have open past the gates is reset."
        return ClientSets("under_ban", purpose, (*self.under_ban, *self.canary), self._local)

    @property
    def banned_sets(self) -> tuple[ClientSets, ...]:
        """Whom each of `address_bans` keeps from its addresses."""
        purpose = "Whom a ban keeps from addresses."
        return tuple(
            ClientSets(f"banned{number}_clients", purpose, ban.networks, self._local)
            for number, ban in enumerate(self.address_bans, 1)
        )

    @property
    def all_sets(self) -> ClientSets:
        """The networks with a ban on all in sight."""
        return ClientSets("all_ports", "Clients under a ban on all: all their TCP.", self.all_clients, self._local)

    @property
    def all_ban_sets(self) -> tuple[ClientSets, ...]:
        """Whom each of `all_bans` keeps from all."""
        return tuple(
            ClientSets(f"all{number}_clients", "Whom a ban on all keeps from all else.", ban.networks, self._local)
            for number, ban in enumerate(self.all_bans, 1)
        )

    @property
    def ports(self) -> tuple[PortRange, ...]:
        """The ports of the web, disjoint and in order."""
        others = ((each.first, each.last) for each in self.other_ports)
        return tuple(PortRange(*each) for each in merged([(80, 80), (443, 443), *others]))

    @property
    def _local(self) -> bool:
        return self.options.local is not None

    def draining(self) -> "Ruleset":
        """The same without any client: what the gates have stays with them, all else passes."""
        nobody = replace(self, known=(), clients=(), under_ban=(), canary=(), canary_servers=(), canary_clients={})
        nobody = replace(nobody, addresses=(), address_bans=(), strangers=False)
        return replace(nobody, all_clients=(), all_bans=())


def ruleset_of(snapshot: Snapshot, now: Instant, options: TableOptions) -> Ruleset:
    """The ruleset for a policy at an instant."""
    tracks, networks, settings = in_sight(snapshot, now), snapshot.policy.networks, snapshot.settings
    canary = settings.gateway.canary
    tproxy = isinstance(options.forwarded, Tproxy)
    addresses_of = cache(partial(_addresses_of, snapshot))  # of 200,000 each call takes seconds
    under_ban = _networks(snapshot, acting(tracks, now))
    acts, among = {network.name for network in under_ban}, among_clients(snapshot.policy) if canary.enabled else {}
    return Ruleset(
        options=options,
        version=snapshot.version,
        holds=unchanged(snapshot, now),
        known=tuple(networks.values()),
        clients=_networks(snapshot, tracks),
        under_ban=under_ban,
        canary=(client_network(canary),) if canary.enabled else (),
        canary_servers=servers(canary) if canary.enabled and tproxy else (),
        canary_clients={name: addresses for name, addresses in among.items() if name in acts},
        other_ports=settings.gateway.ports,
        addresses=addresses_of(frozenset(name for track in tracks for name in track.ban.services)),
        address_bans=_address_bans(snapshot, tracks, addresses_of),
        all_clients=_networks(snapshot, (track for track in tracks if track.ban.on_all)),
        all_bans=tuple(_all_bans(snapshot, tracks, now)),
        strangers=settings.unknown_clients is UnknownClients.BLOCK,
        on_crash=settings.gateway.on_crash,
    )


def _networks(snapshot: Snapshot, tracks: Iterable[Track]) -> tuple[Network, ...]:
    """The networks of these bans, in the order of the policy."""
    names = {name for track in tracks for name in track.networks}
    return tuple(network for network in snapshot.policy.networks.values() if network.name in names)


# -- which bans concern the kernel, and when


def current(snapshot: Snapshot, now: Instant) -> tuple[Track, ...]:
    """Bans, announced or in force, that are not over at `now`."""
    return tuple(track for track in snapshot.tracks if track.schedule.state_at(now).phase is not Phase.EXPIRED)


def in_sight(snapshot: Snapshot, now: Instant) -> tuple[Track, ...]:
    """Bans that are not over at `now`, and that monitor, warn or block within AHEAD from then."""
    return tuple(track for track in current(snapshot, now) if _begins(track) - now <= AHEAD)


def acting(tracks: Iterable[Track], now: Instant) -> Iterator[Track]:
    """The bans that warn or block at `now`, whatever their windows."""
    return (track for track in tracks if track.schedule.state_at(now).phase in _ACTING)


def unchanged(snapshot: Snapshot, now: Instant) -> Span:
    """The span around `now` in which the same table is due, as long as the policy stays."""
    changes = [at for track in snapshot.tracks for at in _changes(track)]
    start = max((at for at in changes if at <= now), default=Instant.MIN)
    span = Span(start, min((at for at in changes if at > now), default=Instant.MAX))
    for track in snapshot.tracks:
        if track.ban.on_all:
            span &= track.schedule.state_at(now).span
    return span


def _begins(track: Track) -> Instant:
    """The first instant at which it does anything."""
    return next(change.at for change in track.schedule.changes if change.phase is not Phase.ANNOUNCED)


def _changes(track: Track) -> Iterator[Instant]:
    begins = _begins(track)
    yield begins - AHEAD
    yield from (change.at for change in track.schedule.changes if change.at >= begins)


# -- addresses of banned services


def _addresses_of(snapshot: Snapshot, services: frozenset[str]) -> tuple[IPNetwork, ...]:
    """Disjoint, in order, IPv4 first."""
    found = disjoint(address for name in services for address in snapshot.policy.services[name].addresses)
    prefixes = (WELL_KNOWN_NAT64, *snapshot.settings.nat64_prefixes)
    old = [address for address in found if isinstance(address, IPv4Network)]
    behind = (behind_nat64(prefix, address) for prefix in prefixes for address in old)
    return (*old, *disjoint((*found[len(old) :], *behind)))


def _address_bans(
    snapshot: Snapshot, tracks: Iterable[Track], addresses_of: Callable[[frozenset[str]], tuple[IPNetwork, ...]]
) -> tuple[KernelBan, ...]:
    """The bans that block at some time, and whose services have addresses; alike ones are one."""
    found: dict[tuple[Span, tuple[tuple[IPNetwork, Span], ...], tuple[IPNetwork, ...]], dict[str, Network]] = {}
    for track in tracks:
        addresses, blocks = addresses_of(frozenset(track.ban.services)), _blocks(track.schedule)
        if addresses and blocks is not None:
            networks = found.setdefault((blocks, _exempt(snapshot, track), addresses), {})
            networks.update((name, snapshot.policy.networks[name]) for name in track.networks)
    return tuple(KernelBan(*said[:2], tuple(networks.values()), said[2]) for said, networks in found.items())


def _all_bans(snapshot: Snapshot, tracks: Iterable[Track], now: Instant) -> Iterator[KernelBan]:
    for track in tracks:
        state = track.schedule.state_at(now)
        if track.ban.on_all and state.phase is Phase.BLOCK and state.idle is None:
            networks = tuple(snapshot.policy.networks[name] for name in track.networks)
            yield KernelBan(state.span, _exempt(snapshot, track), networks)


def _blocks(schedule: Schedule) -> Span | None:
    """From the first instant at which it refuses to its end. Windows are left out: the kernel has no calendar."""
    start = next((change.at for change in schedule.changes if change.phase is Phase.BLOCK), None)
    end = next((change.at for change in schedule.changes if change.phase is Phase.EXPIRED), Instant.MAX)
    return None if start is None else Span(start, end)


def _exempt(snapshot: Snapshot, track: Track) -> tuple[tuple[IPNetwork, Span], ...]:
    exemptions = snapshot.policy.exemptions
    return tuple((cidr, span) for name, span in track.exemptions.items() for cidr in exemptions[name].clients)


def behind_nat64(prefix: IPv6Network, network: IPv4Network) -> IPv6Network:
    """The addresses by which a NAT64 with that prefix reaches a network: octet 8 is skipped (RFC 6052 §2.2)."""
    before = max(_U_OCTET_AT - prefix.prefixlen, 0)
    shift = 128 - prefix.prefixlen - network.max_prefixlen
    embedded = int(network.network_address) << shift
    length = prefix.prefixlen + network.prefixlen
    if prefix.prefixlen <= _U_OCTET_AT:
        first = embedded >> _U_OCTET_AT << _U_OCTET_AT
        embedded = first | (embedded - first) >> 8
        length += 8 if network.prefixlen > before else 0
    return IPv6Network((int(prefix.network_address) | embedded, length))
