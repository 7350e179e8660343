"""The client of a request: the peer, or, behind trusted proxies, the address that they forward in X-Forwarded-For."""

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

type IPNetwork = IPv4Network | IPv6Network
_SITE: Final = 64
"""A site's prefix in IPv6 (RFC 6177): within it whoever likes changes addresses."""


def is_among(peer: str, networks: Sequence[IPNetwork]) -> bool:
    """Whether an address is in one of the networks; not if it is no address."""
    address = _address(peer)
    return address is not None and any(address in each for each in networks)


def client_address(peer: str, forwarded: Sequence[str], proxies: Sequence[IPNetwork]) -> str:
    """The client behind `proxies`: from the right, the first address of X-Forwarded-For that is none of theirs.

    What stands further left the client may have written itself. `forwarded` are the header's values.
    """
    client = peer
    for word in reversed(",".join(forwarded).split(",")):
        if not is_among(client, proxies):
            break
        address = _address(word.strip())
        if address is None:
            break
        client = str(address)
    return client


def site_of(client: str) -> str:
    """The key by which failures are counted: an IPv4 address, or the /64 prefix of an IPv6 address."""
    address = _address(client)
    return str(ip_network((address, _SITE), strict=False)) if isinstance(address, IPv6Address) else client


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """`192.0.2.7`, `192.0.2.7:443`, `2001:db8::7` or `[2001:db8::7]:443`."""
    without_port = text.partition("]")[0][1:] if text.startswith("[") else text
    if without_port.count(":") == 1:
        without_port = without_port.partition(":")[0]
    with suppress(ValueError):
        address = ip_address(without_port)
        return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    return None
