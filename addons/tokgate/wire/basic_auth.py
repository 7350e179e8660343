"""Names and passwords as clients of a proxy say them: the Basic scheme of HTTP, and SOCKS 5's sub-negotiation."""

import binascii
from dataclasses import dataclass, field
from typing import Final

SOCKS_VERSION: Final = 1
"""Of the sub-negotiation (RFC 1929 §2)."""
ACCEPTED: Final = b"\x01\x00"
REJECTED: Final = b"\x01\x01"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The name and password that a client sends. The password is left out of the repr, so that no log gets it."""

    user: str
    password: str = field(repr=False)


def read_basic(value: str | None) -> Credentials | None:
    """The credentials of a `Proxy-Authorization` field (RFC 7617 §2); None without any that can be read.

    UTF-8, as our challenge says.
    """
    scheme, _, rest = (value or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = binascii.a2b_base64(rest.strip(), strict_mode=True).decode().partition(":")
    except ValueError:
        return None
    return Credentials(user, password) if colon and user else None


def read_password(data: bytes) -> tuple[Credentials, int] | None:
    """The credentials at the start of `data` (RFC 1929 §2) and how many octets they take; None if incomplete.

    Raises:
        ValueError: another version, or text that is not UTF-8.

    """
    if data and data[0] != SOCKS_VERSION:
        raise ValueError("not version 1 of username and password")
    if len(data) < 3 or len(data) < 3 + data[1]:
        return None
    end = 2 + data[1]
    length = end + 1 + data[end]
    if len(data) < length:
        return None
    return Credentials(data[2:end].decode(), data[end + 1 : length].decode()), length
