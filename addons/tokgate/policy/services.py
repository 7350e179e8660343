"""Services: named sets of name patterns, addresses and store listings, and the index that finds them by name.

Matching is by label boundary only, never by substring. The cost of a look-up depends on the labels of the name asked
for, not on how many names are known.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import ref

import re2

from tokgate.policy.names import AddressLiteral, InvalidName, is_canonical, normalise
from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import Held, IPNetwork, PrefixTable
from tokgate.policy.stores import StoreListing, listing, store_of_front
from tokgate.policy.suffixes import suffix_list


class PatternKind(StrEnum):
    """How a name pattern is read; the order is that of specificity, which decides the rule that is reported."""

    EXACT = "exact"
    SUFFIX = "suffix"
    REGEX = "regex"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """One entry under `names:`; `value` is canonical (see `names.normalise`), or a regular expression for REGEX."""

    kind: PatternKind
    value: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """A named set of name patterns, address prefixes and store listings."""

    name: str
    title: str
    patterns: tuple[NamePattern, ...] = ()
    addresses: tuple[IPNetwork, ...] = ()
    stores: tuple[StoreListing, ...] = ()
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """A service matched by a rule (`suffix:tiktok.com`). `front` marks a store's own host: no banned app was named yet.

    Compared by identity: an index makes one for each rule.
    """

    service: str
    rule: str
    origin: Origin | None = None
    front: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """All services that a name belongs to, one hit each. Interned: the same hits are the same object."""

    hits: tuple[Hit, ...]
    problem: str | None = None


NO_MATCH: Final = Match(())


def registrable_label(name: str) -> str | None:
    """The label directly under the ICANN public suffix: `tiktok` for `www.tiktok.co.uk`; None where there is none."""
    parts = suffix_list().extract_str(name)
    return parts.domain if parts.suffix and parts.domain else None


def is_public_suffix(name: str) -> bool:
    """Whether `name` itself is a public suffix, of a registry or of a private provider (`co.uk`, `github.io`)."""
    parts = suffix_list().extract_str(name, include_psl_private_domains=True)
    return parts.suffix == name


def compile_regex(pattern: str) -> Any:
    """Compile in the linear-time engine; raises ValueError (look-around, back-references, bad syntax)."""
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
    """A place in the tree of reversed labels: what is said of the name itself, of all below it, and the next labels."""

    __slots__ = ("below", "exact", "suffix")

    def __init__(self) -> None:
        self.exact: tuple[Hit, ...] = ()
        self.suffix: tuple[Hit, ...] = ()
        self.below: dict[str, _Node] | None = None


class ServiceIndex:
    """Immutable index over the patterns of many services."""

    def __init__(self, services: Iterable[Service]) -> None:
        """Index all patterns; they must be valid (config/ has checked them)."""
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
                _append(self._listings, (entry.store, entry.identifier), Hit(service.name, rule, entry.origin))
            for store in sorted({entry.store for entry in service.stores}):
                _append(self._fronts, store, Hit(service.name, f"store:{store}", service.origin, front=True))
        if self._labels:
            suffix_list()  # not at the first name that needs it
        self._regex: Any = None
        if self._regex_hits:
            regexes.Compile()
            self._regex = regexes
        self.knows_addresses: Final = bool(addresses)
        """Whether any service is known by addresses."""
        self._addresses: Final = PrefixTable(addresses, self._by_address)
        # By a weak reference: an index that referred back to itself would be freed by a search alone.
        self.match_unusual: Final = lru_cache(maxsize=8192)(partial(_match_unusual, ref(self)))
        """`match` for what is known to be no canonical name, such as an address: remembered, so all the quicker."""

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

    def match(self, host: str) -> Match:
        """The services that a host (any spelling, or an address literal) belongs to."""
        return self._match_name(host) if is_canonical(host) else self.match_unusual(host)

    def unusual(self, host: str) -> Match:
        """Whatever is not a canonical name already: addresses above all, asked for again and again."""
        normal = normalise(host)
        if isinstance(normal, AddressLiteral):
            return self._addresses.find(normal.address)
        if isinstance(normal, InvalidName):
            return Match((), normal.problem)
        return self._match_name(normal.value)

    def _match_name(self, name: str) -> Match:
        # From the top-level label down: a name that belongs to nobody leaves the tree after a label or two.
        labels = name.split(".")
        node: _Node | None = self._names
        hits: tuple[Hit, ...] = ()
        for label in reversed(labels):
            node = node.below.get(label) if node is not None and node.below is not None else None
            if node is None:
                break
            if node.suffix:
                hits = node.suffix + hits  # the longer suffix first
        if node is not None and node.exact:
            hits = node.exact + hits
        if self._regex is not None:
            regex = self._regex.Match(name)
            if regex:
                hits += tuple(self._regex_hits[number] for number in sorted(regex))
        if self._labels:
            hits += self._label_hits(name, labels)
        if self._fronts:
            store = store_of_front(name)
            if store is not None:
                hits += self._fronts.get(store, ())
        return self._intern(hits) if hits else NO_MATCH

    def match_url(self, url: str) -> Match:
        """The services that an absolute URL belongs to: by its store listing and by its host."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            return Match((), "the URL is malformed")
        by_host = self.match(host)
        shown = listing(url)
        hits = self._listings.get((shown.store, shown.identifier), ()) if shown else ()
        return self._intern(hits + by_host.hits) if hits else by_host

    def _label_hits(self, name: str, labels: list[str]) -> tuple[Hit, ...]:
        if self._labels.keys().isdisjoint(labels):
            return ()  # the public suffix is looked up only for names that have such a label at all
        label = registrable_label(name)
        return self._labels.get(label, ()) if label else ()

    def _by_address(self, holders: tuple[Held[Hit], ...]) -> Match:
        return self._intern(tuple(held.value for held in holders))

    def _intern(self, hits: tuple[Hit, ...]) -> Match:
        """One hit a service, the most specific first met; equal combinations share one Match."""
        found = self._interned.get(hits)
        if found is None:
            first: dict[str, Hit] = {}
            for hit in hits:
                if hit.service not in first or (first[hit.service].front and not hit.front):
                    first[hit.service] = hit
            unique = tuple(first.values())
            found = self._interned.setdefault(unique, Match(unique))
            self._interned[hits] = found
        return found


def _match_unusual(index: "ref[ServiceIndex]", host: str) -> Match:
    held = index()
    if held is None:
        raise ReferenceError("the index is gone")
    return held.unusual(host)


def _append[K](table: dict[K, tuple[Hit, ...]], key: K, hit: Hit) -> None:
    table[key] = (*table.get(key, ()), hit)
