"""Decides about the addresses to which the name in an explicit client's request resolves.

An address counts as the destination of a redirected connection does: one that is banned is banned under any name.
Addresses that only this machine can reach, on its loopback or its links, are closed to clients on other machines.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity
from tokgate.policy.services import NO_MATCH
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import embedded_ipv4
from tokgate.traffic.enforcer import Enforcer, Ruling


@dataclass(frozen=True, slots=True)
class TargetAddresses:
    """The result of deciding about the addresses of a name."""

    open: tuple[str, ...]
    """Those that the client may be connected to, in the order in which they were found."""
    plain: bool
    """All are open, and none belongs to a service: it makes no difference which is taken."""
    banned: tuple[str, ...] = ()
    ruling: Ruling | None = None
    """The ruling about the first of the banned ones."""

    @property
    def closed(self) -> bool:
        """Whether there are addresses, and all of them are closed: this machine alone may reach them."""
        return not (self.plain or self.open or self.banned)


def decide_targets(
    enforcer: Enforcer, client: str, host: str, addresses: Sequence[str], identity: Identity | None = None
) -> TargetAddresses:
    """Decide about the addresses to which `host` resolves; nothing is counted or recorded."""
    nat64 = enforcer.snapshot.settings.nat64_prefixes
    outer = tuple(address for address in addresses if not is_closed(client, address, nat64))
    match = enforcer.snapshot.services.match
    known = {address for address in outer if match(address) is not NO_MATCH}
    if not known:
        return TargetAddresses(outer, plain=len(outer) == len(addresses))
    found, banned, first = [], [], None
    for address in outer:
        names = (Sighting(Signal.HTTP_HOST, host), Sighting(Signal.ADDRESS, address))
        ruling = enforcer.judge(client, names, identity) if address in known else None
        if ruling is None or not ruling.blocks:
            found.append(address)
        else:
            banned.append(address)
            first = first or ruling
    return TargetAddresses(tuple(found), plain=False, banned=tuple(banned), ruling=first)


def matters(enforcer: Enforcer, client: str) -> bool:
    """Whether an address to which this client's names resolve may be banned or closed."""
    return enforcer.snapshot.services.knows_addresses or _is_elsewhere(client)


def is_closed(client: str, destination: str, nat64_prefixes: Iterable[IPv6Network]) -> bool:
    """Whether an address, or the IPv4 address embedded in it, is closed: the client is on another machine."""
    return _is_inside(destination, nat64_prefixes) and _is_elsewhere(client)


def _is_elsewhere(client: str) -> bool:
    """Whether a client is another machine, as far as its address tells: this one's programs come from loopback."""
    address = parse_address(client)
    return address is None or not address.is_loopback


def _is_inside(destination: str, nat64_prefixes: Iterable[IPv6Network]) -> bool:
    """Whether an address means this machine itself (RFC 1122 §3.2.1.3, RFC 4291 §2.5) or a link that it is on.

    No router passes link-local destinations on (RFC 3927 §7, RFC 4291 §2.5.6), and metadata services of clouds, which
    hand out the machine's credentials, rely on that.
    """
    address = parse_address(destination)
    if address is None:
        return False
    meant = (address, *embedded_ipv4(address, nat64_prefixes))
    return any(each.is_loopback or each.is_unspecified or each.is_link_local for each in meant)
