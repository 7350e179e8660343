"""Host names on the wire: what can be dialled, and what the server_name extension (RFC 6066 §3) holds.

Nothing is normalised: case, dots and IDNA are for the policy.
"""

import contextlib
import ipaddress
import re
import struct
from collections.abc import Iterable, Iterator
from enum import StrEnum
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


_list_of_one = struct.Struct("!HBH").unpack_from
"""The length of the list, the type of its first name and that name's length."""

MOST_LEGIBLE: Final = 8
"""Legible parts of what one hello holds, the longest: more than any has that isn't made to hide something."""
_runs = re.compile(rb"[A-Za-z0-9_.-]+").findall
_ipv6_runs = re.compile(rb"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*").findall


class NameStatus(StrEnum):
    """What server_name holds. The last two are suspicious: no ordinary client sends them."""

    VALID = "valid"
    NONE = "none"
    ODD = "odd"
    """One name, which no host has."""
    MALFORMED = "malformed"
    """More than one name, another kind of name, or lengths that don't add up."""


def read_server_name(message: bytes, start: int, end: int) -> tuple[str | None, NameStatus]:
    """Read the ServerNameList (RFC 6066 §3) in `message[start:end]`: the name as sent, or None, and what was found.

    The list may hold one name of each type, and there is but one type: two names are two opinions about where a
    connection goes, and the server might hold the other one. An address literal is not allowed there either, yet some
    clients send it, it says where they want to go, and policy knows addresses: it counts as valid.
    """
    name_start = start + 5
    if end < name_start:
        return None, NameStatus.NONE if message[start:end] in (b"", b"\0\0") else NameStatus.MALFORMED
    list_length, name_type, name_length = _list_of_one(message, start)
    if start + 2 + list_length != end or name_start + name_length != end or name_type:
        return None, NameStatus.MALFORMED
    name = message[name_start:end]
    if can_be_dialled(name):
        return name.decode("ascii"), NameStatus.VALID
    return None, NameStatus.ODD if name else NameStatus.NONE


def listed_names(body: bytes) -> Iterator[bytes]:
    """All names of a ServerNameList, of whatever type, as far as it can be read; what can't be is one more."""
    position = 2
    while position + 3 <= len(body):
        end = position + 3 + (body[position + 1] << 8 | body[position + 2])
        if end > len(body):
            break
        yield body[position + 3 : end]
        position = end
    if position < len(body):
        yield body[position:]


def matches_by_its_end(name: bytes) -> bool:
    """Whether some server serves a name that is no host name: without its port, or by a wildcard, from the end.

    nginx does both (ngx_http_validate_host), and takes any octets but spaces, slashes and brackets before the end. What
    is percent-encoded has another end for who decodes it.
    """
    host, colon, port = name.rpartition(b":")
    try:
        text = (host if colon and port.isdigit() else name).decode()
    except UnicodeDecodeError:
        return False
    labels = text.removesuffix(".").split(".")
    ends = all(label.replace("-", "").replace("_", "").isalnum() for label in labels[-2:])
    return text.isprintable() and not set(text) & set(" %/\\[]") and len(labels) > 1 and ends and not is_address(text)


def legible_names(names: Iterable[bytes]) -> tuple[str, ...]:
    """What in octets that are no host name could be one: each run of a name's characters, and the text as a whole.

    Servers compare names by the octet, and wildcards match from the end: nginx serves its `*.example.org` to
    `a!b.example.org`, to `.example.org` and to a label of 64 octets. Text beyond ASCII is left as it is, for who knows
    IDNA.
    """
    found: dict[str, None] = {}
    for name in names:
        if not name.isascii():
            with contextlib.suppress(UnicodeDecodeError):
                found[name.decode("utf-8")] = None
        parts = (*_ipv6_runs(name), *(part for run in _runs(name) for part in _names_in(run)))
        found |= {part.decode("ascii"): None for part in parts if can_be_dialled(part)}
    longest = sorted(found, key=len, reverse=True)[:MOST_LEGIBLE]
    return tuple(part for part in found if part in longest)


def _names_in(run: bytes) -> Iterator[bytes]:
    """The names between empty labels and labels that are too long; of one that is too long, its end."""
    labels: list[bytes] = []
    for label in (*run.split(b"."), b""):
        if 0 < len(label) < 64:
            labels.append(label)
            continue
        while len(b".".join(labels)) > MAX_NAME:
            del labels[0]
        if labels:
            yield b".".join(labels)
        labels = []
