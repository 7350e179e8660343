"""Normalises an observed host: a domain name in its canonical spelling, an address literal, or neither.

Also divides names by the Public Suffix List bundled with tldextract: loaded at first use, never fetched or written.
`services` decides whether a name belongs to a service.
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import idna

if TYPE_CHECKING:
    from tldextract import TLDExtract

IPAddress = IPv4Address | IPv6Address

MAX_NAME = 253
"""Longest domain name in characters without the trailing dot (RFC 1035 §2.3.4)."""
MAX_LABEL = 63

# Nearly all observed names are canonical: lower-case letters, digits, hyphens and (as in DNS, RFC 2181 §11) underscores
# in labels of 1-63, the last of which is not all digits (as in address literals).
_CANONICAL = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*(?![0-9]+\Z)[a-z0-9_-]{1,63}", re.ASCII)
_PORT = re.compile(r":[0-9]{1,5}\Z", re.ASCII)


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
    """Neither a domain name nor an address; `problem` says why, in English."""

    raw: str
    problem: str

    def __str__(self) -> str:
        return self.raw


Name = DomainName | AddressLiteral | InvalidName


def is_canonical(raw: str) -> bool:
    """Whether `raw` is a domain name that `normalise` would not change."""
    return _CANONICAL.fullmatch(raw) is not None


def parse_address(raw: str) -> IPAddress | None:
    """Parse an IPv4 or IPv6 address without brackets or port. A zone is dropped, IPv4-mapped IPv6 becomes IPv4.

    None if it is no address.
    """
    try:
        address = ip_address(raw.partition("%")[0] if ":" in raw else raw)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def normalise(raw: str) -> Name:
    """Bring an observed host to its canonical form. Idempotent; never raises.

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
        try:
            labels = idna.uts46_remap(text, std3_rules=False, transitional=False).split(".")
            text = ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels)
        except UnicodeError:  # of which idna.IDNAError is one
            return InvalidName(raw, "the name is not valid in IDNA (UTS 46)")
    text = text.lower().removesuffix(".")
    if is_canonical(text):
        return DomainName(text)
    address = parse_address(text)  # full-width digits, or an address with a trailing dot
    if address is not None:
        return AddressLiteral(address)
    return InvalidName(raw, _problem(text))


def _problem(text: str) -> str:
    labels = text.split(".")
    if len(text) > MAX_NAME:
        return f"the name is longer than {MAX_NAME} characters"
    if not all(labels):
        return "a label is empty"
    if any(len(label) > MAX_LABEL for label in labels):
        return f"a label is longer than {MAX_LABEL} characters"
    if labels[-1].isdigit():
        return "the last label is a number, but the whole is no IPv4 address"
    return "a character is not allowed in a host name"


def public_suffix(name: str, *, private: bool = False) -> str | None:
    """The public suffix that a canonical name has or is; None under a top-level domain that the list doesn't have.

    `private`: also suffixes of providers who give names below them to strangers, such as `github.io`.
    """
    return _suffix_list().extract_str(name, include_psl_private_domains=private).suffix or None


def load_suffix_list() -> None:
    """Load the list, which takes some 50 ms. Latency-sensitive callers do it at their start."""
    _suffix_list()


@cache
def _suffix_list() -> "TLDExtract":
    import tldextract

    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@dataclass(frozen=True, slots=True)
class DomainParts:
    """`www.shop` + `example.co.uk` + `co.uk`, as ECS names them; absent parts are None."""

    registered_domain: str | None
    subdomain: str | None
    top_level_domain: str | None


@lru_cache(maxsize=8192)
def domain_parts(name: str) -> DomainParts:
    """Split a canonical domain name; a name under no public suffix has no registered domain."""
    suffix = public_suffix(name)
    below, _, label = name.removesuffix(suffix or "").rstrip(".").rpartition(".")
    return DomainParts(f"{label}.{suffix}" if suffix and label else None, below or None, suffix)
