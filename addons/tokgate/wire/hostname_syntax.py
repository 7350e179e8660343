"""The bytes that can be a host name on the wire. Nothing is normalised: case, dots and IDNA are the policy's."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

# Letters, digits, hyphens (RFC 1123 §2.1) and the underscore, which real names carry; labels of 1 to 63 octets
# (RFC 1035 §2.3.4), the root's dot at most once. `fullmatch` and not `$`: `$` would let a final newline pass.
_LABEL = rb"[A-Za-z0-9_-]{1,63}"
_is_dns_name = re.compile(rb"%b(?:\.%b)*\.?" % (_LABEL, _LABEL)).fullmatch

_NUMBER_ENDS: Final = b"0123456789abcdefABCDEFxX."
_is_number = re.compile(rb"[0-9]+|0[xX][0-9A-Fa-f]*").fullmatch

MAX_NAME: Final = 253
"""255 octets of RFC 1035 §2.3.4, written with dots instead of length octets and without the root."""


def is_host_name(name: bytes) -> bool:
    """Whether `name` is a DNS name, absolute or not, or the text of an IP address without brackets."""
    if _is_dns_name(name):
        return len(name) <= MAX_NAME or (len(name) == MAX_NAME + 1 and name.endswith(b"."))
    return is_ipv6_address(name)


def is_address(name: str) -> bool:
    """Whether a name that can be dialled is an address, with or without a last dot."""
    return ":" in name or name.removesuffix(".").rpartition(".")[2].isdigit()


def can_be_dialled(name: bytes) -> bool:
    """Whether `name` is a DNS name or an address in the one spelling of which nobody has another idea.

    System resolvers take 2130706433, 0x7f.1 and 0177.0.0.1 for addresses as well (inet_aton(3)), which policy doesn't.
    No DNS name ends in a number: https://url.spec.whatwg.org/#ends-in-a-number-checker.
    """
    if not is_host_name(name):
        return False
    if name[-1] not in _NUMBER_ENDS:
        return True
    name = name.removesuffix(b".")
    if b":" in name or not _is_number(name.rpartition(b".")[2]):
        return True
    try:
        ipaddress.IPv4Address(name.decode("ascii"))
    except ValueError:
        return False
    return True


def is_ipv6_address(name: bytes) -> bool:
    """Whether `name` is an IPv6 address; not one with a zone (`%eth0`), which means something on its own host only."""
    if b"%" in name:
        return False
    try:
        ipaddress.IPv6Address(name.decode("ascii"))
    except ValueError:
        return False
    return True
