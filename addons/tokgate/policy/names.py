"""What an observed host name *is*: a domain name in its one canonical spelling, an address literal, or neither.

Normalisation only; whether a name belongs to a service is the business of `services`.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

IPAddress = IPv4Address | IPv6Address

MAX_NAME = 253
"""Longest domain name in characters without the trailing dot (RFC 1035 §2.3.4)."""

# The spelling that nearly all observed names have already: lower-case letters, digits, hyphens and (as in DNS itself,
# RFC 2181 §11) underscores, in labels of 1-63, not ending in a digits-only label (those are address literals or junk).
_CANONICAL = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[a-z0-9_-]{1,63}", re.ASCII)
_PORT = re.compile(r":[0-9]{1,5}\Z", re.ASCII)
_DOTS = str.maketrans({"\u3002": ".", "\uff0e": ".", "\uff61": "."})  # RFC 3490 §3.1: the other full stops


@dataclass(frozen=True, slots=True)
class DomainName:
    """A domain name: lower case, A-labels, no trailing dot."""

    value: str

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class AddressLiteral:
    """An IP address where a name was expected. IPv4-mapped IPv6 (RFC 4291 §2.5.5.2) is IPv4."""

    address: IPAddress

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class InvalidName:
    """Something that can be neither; `problem` says in words why."""

    raw: str
    problem: str

    def __str__(self) -> str:
        return self.raw


Name = DomainName | AddressLiteral | InvalidName


def is_canonical(raw: str) -> bool:
    """Whether `raw` already is what `normalise` would make of a domain name (the fast path)."""
    return _CANONICAL.fullmatch(raw) is not None


def parse_address(raw: str) -> IPAddress | None:
    """Read an IPv4 or IPv6 address without brackets, port or zone; IPv4-mapped becomes IPv4; None if it is none."""
    try:
        address = ip_address(raw.partition("%")[0] if ":" in raw else raw)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def normalise(raw: str) -> Name:
    """Bring an observed host to its canonical form: idempotent, and never an exception.

    Case, one trailing dot, a port, brackets around IPv6 and IDNA spellings (UTS 46, non-transitional, to A-labels of
    RFC 5890) make no difference. Labels that DNS allows but IDNA does not (underscores, hyphens anywhere) are kept:
    they are seen on the wire.
    """
    if is_canonical(raw):
        return DomainName(raw)
    text = raw
    if not text:
        return InvalidName(raw, "the name is empty")
    if text.startswith("["):
        literal, closed, rest = text[1:].partition("]")
        address = parse_address(literal) if closed and (not rest or _PORT.fullmatch(rest)) else None
        if address is None or ":" not in literal:
            return InvalidName(raw, "brackets hold no IPv6 address")
        return AddressLiteral(address)
    address = parse_address(text)
    if address is None and text.count(":") == 1:
        text = _PORT.sub("", text)
        address = parse_address(text)
    if address is not None:
        return AddressLiteral(address)
    return _domain(raw, text)


def _domain(raw: str, text: str) -> Name:
    if not text.isascii():
        mapped = _to_a_labels(text.translate(_DOTS))
        if mapped is None:
            return InvalidName(raw, "the name is not valid in IDNA (UTS 46)")
        text = mapped
    text = text.lower().removesuffix(".")
    if is_canonical(text):
        return DomainName(text)
    address = parse_address(text)  # full-width digits, or an address with a trailing dot
    if address is not None:
        return AddressLiteral(address)
    return InvalidName(raw, _problem(text))


def _to_a_labels(text: str) -> str | None:
    try:
        mapped = idna.uts46_remap(text, std3_rules=False, transitional=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split("."))
    except (idna.IDNAError, UnicodeError, IndexError):
        return None


def _problem(text: str) -> str:
    labels = text.split(".")
    if len(text) > MAX_NAME:
        return f"the name is longer than {MAX_NAME} characters"
    if not all(labels):
        return "a label is empty"
    if any(len(label) > 63 for label in labels):
        return "a label is longer than 63 characters"
    if labels[-1].isdigit():
        return "the last label is a number, but the whole is no IPv4 address"
    return "a character is not allowed in a host name"
