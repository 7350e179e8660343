"""Services: named sets of name patterns, addresses and store listings, and the index that finds them by name.

Names match at label boundaries only, never as substrings. The cost of a look-up depends on the number of labels in the
name, not on the number of patterns.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from ipaddress import IPv6Network
from itertools import chain
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import ref

import re2

from tokgate.policy.stores import StoreListing, listings, store_of_front
from tokgate.policy.values import Origin
from tokgate.policy.values.hostname import (
    AddressLiteral,
    InvalidName,
    is_canonical,
    normalise,
    public_suffix,
)
from tokgate.policy.values.prefixes import IPNetwork, PrefixEntry, PrefixTable, embedded_ipv4


class PatternKind(StrEnum):
    """How a name pattern matches, the most specific first: of several rules the first is reported."""

    EXACT = "exact"
    SUFFIX = "suffix"
    REGEX = "regex"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """One entry under `names:`; `value` is canonical (see `hostname.normalise`), or a regular expression for REGEX."""

    kind: PatternKind
    value: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class ServiceSource:
    """The public list from which the names of a service were imported; the fields are the keys of `source` in YAML."""

    list: str
    """Its URL, or the name of its file."""
    format: str
    revision: str | None = None
    licence: str | None = None
    date: str | None = None
    """Of which day the list is, as YYYY-MM-DD."""
    attributes: tuple[str, ...] = ()
    subdomains: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A named set of name patterns, address prefixes and store listings."""

    name: str
    title: str
    patterns: tuple[NamePattern, ...] = ()
    addresses: tuple[IPNetwork, ...] = ()
    stores: tuple[StoreListing, ...] = ()
    origin: Origin | None = None
    description: str | None = None
    source: ServiceSource | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a policy takes from the catalogue inside the package: the catalogue's version, and the services' names."""

    version: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """A service matched by a rule (`suffix:tiktok.com`). `front` marks a store's own host, which names no app yet.

    Compared by identity: an index has one for each rule.
    """

    service: str
    rule: str
    origin: Origin | None = None
    front: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """All services that a name belongs to, one hit each. Interned: equal hits are one object."""

    hits: tuple[Hit, ...]
    problem: str | None = None


NO_MATCH: Final = Match(())
ANYTHING: Final = Hit("all", "all")
"""What a ban on all has of a name of no service."""


def registrable_label(name: str) -> str | None:
    """The label directly under the ICANN public suffix: `tiktok` for `www.tiktok.co.uk`; None where there is none."""
    suffix = public_suffix(name)
    return None if suffix is None else name.removesuffix(suffix).rstrip(".").rpartition(".")[2] or None


def is_public_suffix(name: str) -> bool:
    """Whether `name` itself is a public suffix, of a registry or of a private provider (`co.uk`, `github.io`)."""
    return public_suffix(name, private=True) == name


def compile_regex(pattern: str) -> Any:
    """Compile with RE2, which matches in linear time. Raises ValueError (look-around, back-references, syntax)."""
    try:
        return re2.compile(pattern, _regex_options())
    except re2.error as error:
        detail = error.args[0] if error.args else error
        raise ValueError(detail.decode() if isinstance(detail, bytes) else str(detail)) from error


def _regex_options() -> Any:
    options = re2.Options()
    options.case_sensitive = False
    options.log_errors = False
    options.max_mem = 256 << 20
    return options


class _Node:
    """A node in the tree of reversed labels: hits for the name itself, for the name and all below it, and children."""

    __slots__ = ("below", "exact", "match", "suffix")

    def __init__(self) -> None:
        self.exact: tuple[Hit, ...] = ()
        self.suffix: tuple[Hit, ...] = ()
        self.below: dict[str, _Node] | None = None
        self.match: Match | None = None
        """By the tree, of names that end here or leave it here; None until the first is asked for."""


class ServiceIndex:
    """Immutable index over the patterns of many services."""

    def __init__(self, services: Iterable[Service], nat64_prefixes: Iterable[IPv6Network] = ()) -> None:
        """Index all patterns, which config/ has validated.

        An IPv6 address also matches services of the IPv4 addresses that it embeds (RFC 6052 with these prefixes).
        """
        self._nat64: Final = tuple(nat64_prefixes)
        self._names: Final = _Node()
        self._labels: dict[str, tuple[Hit, ...]] = {}
        self._listings: dict[tuple[str, str], tuple[Hit, ...]] = {}
        self._fronts: dict[str, tuple[Hit, ...]] = {}
        self._regex_hits: list[Hit] = []
        self._interned: dict[tuple[Hit, ...], Match] = {(): NO_MATCH}
        addresses: list[tuple[IPNetwork, Hit]] = []
        regexes = re2.Set.FullMatchSet(_regex_options())
        for service in services:
            for pattern in service.patterns:
                hit = Hit(service.name, f"{pattern.kind}:{pattern.value}", pattern.origin)
                if pattern.kind is PatternKind.REGEX:
                    regexes.Add(pattern.value)
                    self._regex_hits.append(hit)
                elif pattern.kind is PatternKind.LABEL:
                    _append(self._labels, pattern.value, hit)
                else:
                    self._add_name(pattern, hit)
            addresses += [(p, Hit(service.name, f"address:{p}", service.origin)) for p in service.addresses]
            for entry in service.stores:
                rule = f"store:{entry.store}/{entry.identifier}"
                _append(self._listings, (entry.store, entry.identifier.lower()), Hit(service.name, rule, entry.origin))
            for store in sorted({entry.store for entry in service.stores}):
                _append(self._fronts, store, Hit(service.name, f"store:{store}", service.origin, front=True))
        self._regex: Any = None
        if self._regex_hits:
            regexes.Compile()
            self._regex = regexes
        self.knows_addresses: Final = bool(addresses)
        """Whether any service has addresses."""
        self._addresses: Final = PrefixTable(addresses, self._by_address)
        # A weak reference: a reference cycle would only be freed by the garbage collector.
        self.match: Final = lru_cache(maxsize=8192)(partial(_match, ref(self)))
        """The services that a host (in any spelling, or an address literal) belongs to; cached: names come again."""

    def _add_name(self, pattern: NamePattern, hit: Hit) -> None:
        node = self._names
        for label in reversed(pattern.value.split(".")):
            if node.below is None:
                node.below = {}
            node = node.below.setdefault(sys.intern(label), _Node())
        if pattern.kind is PatternKind.EXACT:
            node.exact = (*node.exact, hit)
        else:
            node.suffix = (*node.suffix, hit)

    def find(self, host: str) -> Match:
        """`match` without its cache."""
        if is_canonical(host):
            return self._match_name(host)
        normal = normalise(host)
        if isinstance(normal, AddressLiteral):
            match = self._addresses.find(normal.address)
            behind = [self._addresses.find(each).hits for each in embedded_ipv4(normal.address, self._nat64)]
            return self._intern(match.hits + tuple(chain(*behind))) if any(behind) else match
        if isinstance(normal, InvalidName):
            return Match((), normal.problem)
        return self._match_name(normal.value)

    def _match_name(self, name: str) -> Match:
        # From the top-level label down: a name of no service leaves the tree after a label or two.
        labels = name.split(".")
        node = self._names
        for label in reversed(labels):
            below = None if node.below is None else node.below.get(label)
            if below is None:
                break
            node = below
        found = node.match
        if found is None or node.exact:
            found = self._intern(self._named(labels))
            if not node.exact:  # with a million names each read of memory counts: four are spared
                node.match = found
        hits: tuple[Hit, ...] = ()
        if self._regex is not None:
            regex = self._regex.Match(name)
            if regex:
                hits = tuple(self._regex_hits[number] for number in sorted(regex))
        if self._labels and not self._labels.keys().isdisjoint(labels):  # only then is the suffix looked up
            hits += self._labels.get(registrable_label(name) or "", ())
        if self._fronts:
            store = store_of_front(name)
            if store is not None:
                hits += self._fronts.get(store, ())
        return self._intern(found.hits + hits) if hits else found

    def _named(self, labels: list[str]) -> tuple[Hit, ...]:
        """The hits in the tree, the longest suffix first."""
        node = self._names
        hits: tuple[Hit, ...] = ()
        for label in reversed(labels):
            below = None if node.below is None else node.below.get(label)
            if below is None:
                return hits
            node = below
            hits = node.suffix + hits
        return node.exact + hits

    def match_url(self, url: str) -> Match:
        """The services that an absolute URL belongs to: by the store listings that it shows, and by its host."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return Match((), "the URL is malformed")
        by_host = self.match(host)
        hits: tuple[Hit, ...] = ()
        for shown in listings(url):
            hits += self._listings.get((shown.store, shown.identifier.lower()), ())
        return self._intern(hits + by_host.hits) if hits else by_host

    def lists(self, store: str, identifier: str) -> bool:
        """Whether a listing, its identifier in lower case, belongs to any service."""
        return (store, identifier) in self._listings

    def _by_address(self, holders: tuple[PrefixEntry[Hit], ...]) -> Match:
        return self._intern(tuple(entry.value for entry in holders))

    def _intern(self, hits: tuple[Hit, ...]) -> Match:
        """One hit for each service, the most specific; equal combinations share one Match."""
        found = self._interned.get(hits)
        if found is None:
            first: dict[str, Hit] = {}
            for hit in hits:
                first.setdefault(hit.service, hit)  # a store's own host comes last
            unique = tuple(first.values())
            found = self._interned.setdefault(unique, Match(unique))
            self._interned[hits] = found
        return found


def _match(index: "ref[ServiceIndex]", host: str) -> Match:
    known = index()
    if known is None:
        raise ReferenceError("the index is gone")
    return known.find(host)


def _append[K](table: dict[K, tuple[Hit, ...]], key: K, hit: Hit) -> None:
    table[key] = (*table.get(key, ()), hit)
