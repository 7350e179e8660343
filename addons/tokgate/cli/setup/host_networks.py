"""The networks that this host is in, as Linux tells them in /proc/net. Link-local prefixes are left out."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, collapse_addresses
from pathlib import Path
from typing import Final

from tokgate.policy.values.prefixes import IPNetwork

_PROC: Final = Path("/proc/net")
_UP: Final = 0x1  # RTF_UP of linux/route.h


def host_networks() -> tuple[IPNetwork, ...]:
    """Loopback, and the prefixes of the host's interfaces: IPv4 first, without those inside others."""
    found4 = [*v4_networks(_lines("route")), IPv4Network("127.0.0.0/8")]
    found6 = [*v6_networks(_lines("if_inet6")), IPv6Network("::1/128")]
    return (*collapse_addresses(found4), *collapse_addresses(found6))


def v4_networks(lines: Iterable[str]) -> Iterator[IPv4Network]:
    """The networks that are reached without a gateway, of the lines of /proc/net/route (numbers in host order)."""
    for line in list(lines)[1:]:
        _, destination, gateway, flags, _, _, _, mask, *_ = line.split()
        if int(flags, 16) & _UP and int(gateway, 16) == 0 and int(mask, 16) != 0:
            network = IPv4Network((_v4(destination), str(_v4(mask))))
            if not network.is_link_local:
                yield network


def v6_networks(lines: Iterable[str]) -> Iterator[IPv6Network]:
    """The networks of the addresses in the lines of /proc/net/if_inet6."""
    for line in lines:
        address, _, length, *_ = line.split()
        network = IPv6Interface((IPv6Address(bytes.fromhex(address)), int(length, 16))).network
        if not (network.is_link_local or network.is_loopback):
            yield network


def _v4(number: str) -> IPv4Address:
    return IPv4Address(bytes.fromhex(number)[::-1])


def _lines(name: str) -> list[str]:
    """The lines of a file in /proc/net; none where there is no such file, as without IPv6."""
    try:
        return (_PROC / name).read_text("ascii").splitlines()
    except OSError:
        return []
