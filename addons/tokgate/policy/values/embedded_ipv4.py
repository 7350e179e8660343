"""Which IPv4 addresses an IPv6 address stands for: traffic to it ends at them, by way of a translator or a tunnel."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

from tokgate.policy.values.hostname import IPAddress

WELL_KNOWN_NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052 §2.1."""
NAT64_LENGTHS: Final = (32, 40, 48, 56, 64, 96)
"""The lengths that a translator's prefix may have (RFC 6052 §2.2)."""

_LAST_32_BITS: Final = (
    IPv6Network("::/96"),  # IPv4-compatible (RFC 4291 §2.5.5.1), but for `::` and `::1`
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped (RFC 4291 §2.5.5.2)
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated (RFC 2765 §2.1)
)
_UNSPECIFIED_AND_LOOPBACK: Final = (IPv6Address(0), IPv6Address(1))
_U_OCTET: Final = 8
"""The octet that holds no part of an address (RFC 6052 §2.2)."""


def embedded_ipv4(address: IPAddress, nat64_prefixes: Iterable[IPv6Network] = ()) -> tuple[IPv4Address, ...]:
    """The addresses that `address` stands for, each once; none for most. `nat64_prefixes`: what translators here use,
    out of `64:ff9b:1::/48` (RFC 8215) too: its addresses don't show how long a prefix is.

    NAT64 (RFC 6052; the well-known prefix always counts), 6to4 (RFC 3056), the client of a Teredo address (RFC 4380),
    IPv4-compatible, -mapped and -translated addresses.
    """
    if isinstance(address, IPv4Address) or address in _UNSPECIFIED_AND_LOOPBACK:
        return ()
    found = [_last_32_bits(address) for prefix in (*_LAST_32_BITS, WELL_KNOWN_NAT64) if address in prefix]
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.append(address.teredo[1])
    found += [_behind(address, prefix.prefixlen) for prefix in nat64_prefixes if address in prefix]
    return tuple(dict.fromkeys(found))


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(address.packed[12:])


def _behind(address: IPv6Address, length: int) -> IPv4Address:
    """The four octets behind a prefix of `length` bits, in which the u-octet doesn't count."""
    octets = bytearray(address.packed)
    start = length // 8
    if start <= _U_OCTET:
        del octets[_U_OCTET]
    return IPv4Address(bytes(octets[start : start + 4]))
