"""What a policy says of addresses, for the kernel: which services' are banned, for whom, and from when to when."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from whenever import Instant

from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Schedule, Span
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.embedded_ipv4 import WELL_KNOWN_NAT64
from tokgate.policy.values.prefix_table import IPNetwork

_U_OCTET_AT: Final = 64
"""The first bit of the octet that holds no part of an address."""


@dataclass(frozen=True, slots=True)
class AddressBan:
    """Addresses of services that clients of some networks must not reach during `blocks`, but for those exempt."""

    addresses: tuple[IPNetwork, ...]
    blocks: Span
    exempt: tuple[tuple[IPNetwork, Span], ...]
    networks: tuple[Network, ...]


def banned_addresses(snapshot: Snapshot, tracks: Iterable[Track]) -> tuple[IPNetwork, ...]:
    """The addresses of the services of these bans, whatever the bans do: disjoint, in order, IPv4 first."""
    services = {name for track in tracks for name in track.ban.services}
    addresses = [address for name in services for address in snapshot.policy.services[name].addresses]
    old = list(collapse_addresses(address for address in addresses if isinstance(address, IPv4Network)))
    prefixes = (WELL_KNOWN_NAT64, *snapshot.settings.nat64_prefixes)
    behind = [behind_nat64(prefix, address) for prefix in prefixes for address in old]
    new = collapse_addresses([*(address for address in addresses if isinstance(address, IPv6Network)), *behind])
    return (*old, *new)


def address_bans(snapshot: Snapshot, tracks: Iterable[Track]) -> tuple[AddressBan, ...]:
    """The bans that block at some time, and whose services have addresses; alike ones are one."""
    found: dict[tuple[tuple[IPNetwork, ...], Span, tuple[tuple[IPNetwork, Span], ...]], dict[str, Network]] = {}
    for track in tracks:
        addresses, blocks = banned_addresses(snapshot, [track]), _blocks(track.schedule)
        if addresses and blocks is not None:
            networks = found.setdefault((addresses, blocks, _exempt(snapshot, track)), {})
            networks.update((name, snapshot.policy.networks[name]) for name in track.networks)
    return tuple(AddressBan(*said, tuple(networks.values())) for said, networks in found.items())


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
