"""Where a name that an explicit client gave may lead: the addresses behind it are decided about, too.

An address counts as the destination of a redirected connection does: what is banned by its address is banned under any
name. And the proxy lends nobody its own place in the network: what only this machine can reach, because it is on its
loopback or on a link beside it, is closed to clients from elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.identity import Identity
from tokgate.policy.services import NO_MATCH
from tokgate.policy.values.embedded_ipv4 import embedded_ipv4
from tokgate.policy.values.hostname import parse_address
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
        """Whether there were addresses, none of them banned, all of them this machine's own affair."""
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
    """Whether it can make a difference to where this client's names lead."""
    return enforcer.snapshot.services.knows_addresses or _is_elsewhere(client)


def is_closed(client: str, destination: str, nat64_prefixes: Iterable[IPv6Network]) -> bool:
    """Whether an address, or one that it stands for, is this machine's own affair, and the client from elsewhere."""
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
