"""Clients under a ban that may choose another address on their link, which is in no network of the policy."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from itertools import groupby
from typing import Final

from whenever import Instant

from tokgate.cli.policy.outlook import warning
from tokgate.config.diagnostics import Code, Diagnostic
from tokgate.gateway.ruleset import current
from tokgate.policy.networks import Network
from tokgate.policy.settings import UnknownClients
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.prefixes import Cover, IPNetwork

_IPV6_LINK: Final = 64
"""Hosts make their addresses up within a /64 (RFC 4291 §2.5.1), new ones every day (RFC 8981)."""
_IPV4_LINK: Final = 24
"""How large a link usually is, where a network names its clients one by one; nothing says what it is."""


def free_addresses(snapshot: Snapshot, now: Instant) -> Iterator[Diagnostic]:
    """A warning for each network under a ban whose clients may take another address, and so leave the network."""
    if snapshot.settings.unknown_clients is UnknownClients.BLOCK:
        return
    covered = Cover(prefix for network in snapshot.policy.networks.values() for prefix in network.prefixes)
    under_ban = {name: track.ban for track in reversed(current(snapshot, now)) for name in track.networks}
    for network in snapshot.policy.networks.values():
        ban = under_ban.get(network.name)
        links = [] if ban is None else [link for link in _links(network) if not covered.holds(link)]
        if ban is not None and links:
            more = f" (and {len(links) - 1} more)" if len(links) > 1 else ""
            text = (
                f"clients of `{network.name}`, which is under the ban `{ban.name}`, may take another address of "
                f"{links[0]}{more}: some are in no network, and pass. A whole prefix or `interfaces` holds them; "
                "`settings.unknown_clients: block` refuses them"
            )
            yield warning(Code.FREE_ADDRESSES, text, network.origin, network.name)


def _links(network: Network) -> Iterator[IPNetwork]:
    """The links on which a network holds a part of the addresses, where nothing but addresses names its clients."""
    if network.by_address:
        links = (link for prefix in network.prefixes if (link := _link(prefix)) is not None)
        yield from (link for link, _ in groupby(sorted(links, key=lambda link: (link.version, link))))


def _link(prefix: IPNetwork) -> IPNetwork | None:
    if prefix.is_loopback or prefix.is_link_local:
        return None
    if isinstance(prefix, IPv4Network):
        return prefix.supernet(new_prefix=_IPV4_LINK) if prefix.prefixlen == prefix.max_prefixlen else None
    return prefix.supernet(new_prefix=_IPV6_LINK) if prefix.prefixlen > _IPV6_LINK else None
