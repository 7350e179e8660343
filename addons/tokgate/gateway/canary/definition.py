"""The canary as the policy sees it: a network, services and bans that the gateway adds to what it enforces.

They decide as any others do. They show that enforcement works from the first packet to the answer, whatever is banned.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import islice
from typing import Any, Final

from whenever import Instant

from tokgate.gateway.nft_sets import ClientSets
from tokgate.policy.bans import Action, Ban
from tokgate.policy.networks import Network
from tokgate.policy.services import NamePattern, PatternKind, Service
from tokgate.policy.settings import CanarySettings
from tokgate.policy.snapshot import NOTHING, Policy, Snapshot, compile_policy
from tokgate.policy.values.prefixes import last_host

BANNED: Final = "banned.canary.tokgate.invalid"
ALLOWED: Final = "allowed.canary.tokgate.invalid"
"""Names that no resolver knows (RFC 6761 §6.4)."""
PORT: Final = 443
_NETWORK: Final = "the gateway's canary"
"""Not a name that a policy file may give, like those below."""
_AMONG_CLIENTS: Final = "the gateway's canary among clients"
_MOST_NETWORKS: Final = 16
"""In so many networks of the policy it asks; a probe takes a thread."""

type Clients = Mapping[str, tuple[str, ...]]
"""Addresses by the network of the policy in which they are."""


@dataclass(frozen=True, slots=True)
class CanaryLink:
    """One of two links with four addresses of a prefix: the gateway's end, and the far one."""

    near: IPv4Address | IPv6Address
    far: IPv4Address | IPv6Address
    length: int
    """Of the link's prefix, in bits."""


def client_link(settings: CanarySettings, version: int) -> CanaryLink:
    """The link on which the canary asks."""
    return _link(settings, version, 0)


def server_link(settings: CanarySettings, version: int) -> CanaryLink:
    """The link on which it answers itself."""
    return _link(settings, version, 4)


def _link(settings: CanarySettings, version: int, first: int) -> CanaryLink:
    prefix: IPv4Network | IPv6Network = settings.ipv4 if version == 4 else settings.ipv6  # noqa: PLR2004
    return CanaryLink(prefix[first + 1], prefix[first + 2], prefix.max_prefixlen - 2)


def servers(settings: CanarySettings) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses at which it answers itself."""
    return tuple(server_link(settings, version).far for version in (4, 6))


def client_network(settings: CanarySettings) -> Network:
    """The addresses from which it asks."""
    return Network(_NETWORK, (IPv4Network(client_link(settings, 4).far), IPv6Network(client_link(settings, 6).far)))


def among_clients(policy: Policy) -> Clients:
    """An address of each version in the first network of each ban: the last host's of the first prefix, if any."""
    networks = dict.fromkeys(policy.networks[ban.networks[0]] for ban in policy.bans.values() if ban.networks)
    found = ((network.name, tuple(_addresses(network))) for network in networks)
    return dict(islice(((name, addresses) for name, addresses in found if addresses), _MOST_NETWORKS))


def _addresses(network: Network) -> Iterable[str]:
    clients = ClientSets("", "", (network,), loopback=False)
    for version in (4, 6):
        first = next(iter(clients.prefixes(version)), None)
        if first is not None:
            yield str(last_host(first))


def compile_with_canary(policy: Policy) -> Snapshot:
    """Compile a policy together with the canary's own, where the settings want one."""
    settings = policy.settings.gateway.canary
    return compile_policy(policy, own=canary_policy(settings, among_clients(policy)) if settings.enabled else NOTHING)


def canary_policy(settings: CanarySettings, clients: Clients) -> Policy:
    """One name is banned; the other, and the canary's server, are under a ban that only monitors, and so known.

    The one is banned for addresses among `clients`, too. Whoever has such an address is a client as before.
    """
    addresses = [ip_network(address) for each in clients.values() for address in each]
    prefixes = tuple((IPv4Network if each.version == 4 else IPv6Network)(each) for each in servers(settings))  # noqa: PLR2004
    parts = (
        ("the canary's banned name", BANNED, (), Action.BLOCK),
        ("the canary's allowed name", ALLOWED, prefixes, Action.MONITOR),
    )
    return replace(
        NOTHING,
        services={
            name: Service(name, name, (NamePattern(PatternKind.EXACT, host),), served)
            for name, host, served, _ in parts
        },
        networks={_NETWORK: client_network(settings), _AMONG_CLIENTS: Network(_AMONG_CLIENTS, tuple(addresses))},
        bans={
            name: Ban(name=name, title=name, services=(name,), networks=where, starts=Instant.MIN, action=action)
            for name, _, _, action in parts
            for where in [(_NETWORK, _AMONG_CLIENTS) if action is Action.BLOCK else (_NETWORK,)]
        },
    )


def as_json(settings: CanarySettings) -> dict[str, Any]:
    """What the canary's process is told."""
    return {"seconds": settings.seconds, "ipv4": str(settings.ipv4), "ipv6": str(settings.ipv6)}


def from_json(said: dict[str, Any]) -> CanarySettings:
    """The settings of `as_json`."""
    return CanarySettings(seconds=said["seconds"], ipv4=IPv4Network(said["ipv4"]), ipv6=IPv6Network(said["ipv6"]))
