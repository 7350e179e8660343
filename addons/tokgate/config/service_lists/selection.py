"""What of a list becomes patterns of a service, and what is dropped: never in silence, and never a stranger's names."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import PydanticCustomError

from tokgate.config.format import name_patterns
from tokgate.config.service_lists.entries import Entry, EntryKind, Problem, ServiceList
from tokgate.config.service_lists.shared_hosts import shared_host
from tokgate.policy.services import is_public_suffix
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.prefix_table import IPNetwork

_KINDS: Final = (EntryKind.SUFFIX, EntryKind.EXACT, EntryKind.REGEX, EntryKind.ADDRESS)


@dataclass(frozen=True, slots=True)
class Options:
    """Which entries of a list are taken into a service, and how."""

    attributes: frozenset[str] = frozenset()
    """Of entries with attributes only those with these, and none with those that begin with `-`; empty: all."""
    subdomains: bool = False
    """Take single hosts with all names below them."""
    keywords: bool = False
    """Take keywords as regular expressions for parts of names."""


@dataclass(slots=True)
class Selection:
    """The patterns by kind, each once and in order, and what was not taken, with its reason."""

    patterns: dict[EntryKind, list[str]]
    dropped: list[Problem] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    repeated: int = 0
    """Entries that another entry holds as well."""

    @property
    def count(self) -> int:
        """How many patterns of all kinds were taken."""
        return sum(map(len, self.patterns.values()))


def select(found: ServiceList, options: Options = Options()) -> Selection:
    """Choose from a list. Public suffixes, shared hosts and what exceptions take out are dropped."""
    kept: dict[EntryKind, dict[str, Entry]] = {kind: {} for kind in _KINDS}
    selection = Selection({}, unreadable=list(found.unreadable))
    for entry in found.entries:
        if _asked_for(entry, options.attributes):
            _take(entry, kept, selection, options)
    _except(found.exceptions, kept, selection)
    suffixes = kept[EntryKind.SUFFIX]
    for kind in (EntryKind.SUFFIX, EntryKind.EXACT):
        inner = [value for value in kept[kind] if _above(value, suffixes, itself=kind is EntryKind.EXACT)]
        for value in inner:
            selection.repeated += 1
            del kept[kind][value]
    selection.patterns = {kind: sorted(values) for kind, values in kept.items()}
    selection.dropped.sort(key=lambda each: (each.place.file, each.place.line))
    selection.unreadable.sort(key=lambda each: (each.place.file, each.place.line))
    return selection


def _asked_for(entry: Entry, asked: frozenset[str]) -> bool:
    wanted = {word for word in asked if not word.startswith("-")}
    refused = {word[1:] for word in asked if word.startswith("-")}
    return not refused & entry.attributes and (not wanted or bool(wanted & entry.attributes))


def _take(entry: Entry, kept: dict[EntryKind, dict[str, Entry]], selection: Selection, options: Options) -> None:
    kind, value = entry.kind, entry.value
    if kind is EntryKind.KEYWORD:
        if not options.keywords:
            _drop(selection, entry, "a keyword matches parts of strangers' names; `--keywords` takes it all the same")
            return
        kind, value = EntryKind.REGEX, f"^.*{re.escape(value.lower())}.*$"
    if kind in (EntryKind.SUFFIX, EntryKind.EXACT):
        name = normalise(value)
        if not isinstance(name, DomainName):
            why = getattr(name, "problem", "an address, not a name")
            selection.unreadable.append(Problem(entry.place, value, f"no host name: {why}"))
            return
        value = name.value
        if "." not in value or is_public_suffix(value):
            _drop(selection, entry, "a public suffix: everybody's names are below it")
            return
        if options.subdomains:
            kind = EntryKind.SUFFIX
        shared = shared_host(value) if kind is EntryKind.SUFFIX else None
        if shared is not None:
            what = "a shared host" if shared == value else f"it holds the shared host {shared}"
            _drop(selection, entry, f"{what}: other customers' names are below it")
            return
    else:
        parse: Callable[[Any], str | IPNetwork] = (
            name_patterns.regex if kind is EntryKind.REGEX else name_patterns.address
        )
        try:
            value = str(parse(value))
        except PydanticCustomError as error:
            selection.unreadable.append(Problem(entry.place, entry.value, error.message()))
            return
    if value in kept[kind]:
        selection.repeated += 1
    else:
        kept[kind][value] = entry


def _drop(selection: Selection, entry: Entry, why: str) -> None:
    selection.dropped.append(Problem(entry.place, entry.value, why))


def _except(exceptions: Iterable[Entry], kept: dict[EntryKind, dict[str, Entry]], selection: Selection) -> None:
    """Take out what exceptions name. One below a suffix can't be expressed, and is reported."""
    named: dict[EntryKind, dict[str, Entry]] = {EntryKind.SUFFIX: {}, EntryKind.EXACT: {}}
    for exception in exceptions:
        name = normalise(exception.value)
        if exception.kind in named and isinstance(name, DomainName):
            named[exception.kind].setdefault(name.value, exception)
        else:
            why = "an exception that is no name: look whether what it excepts is among the names"
            selection.unreadable.append(Problem(exception.place, exception.value, why))
    whole, single = named[EntryKind.SUFFIX], named[EntryKind.EXACT]
    for kind, values in ((kind, kept[kind]) for kind in named):
        for value in list(values):
            above = _above(value, whole, itself=True)
            by = whole[above] if above is not None else single.get(value) if kind is EntryKind.EXACT else None
            if by is not None:
                _drop(selection, values.pop(value), f"excepted by {by.place}")
    for value, exception in (*whole.items(), *single.items()):
        outer = _above(value, kept[EntryKind.SUFFIX], itself=True)
        if outer is not None:
            why = f"an exception from `{outer}`, which takes in all names below it"
            selection.unreadable.append(Problem(exception.place, exception.value, why))


def _above(value: str, suffixes: dict[str, Entry], *, itself: bool) -> str | None:
    """The nearest suffix that holds a name."""
    if itself and value in suffixes:
        return value
    parents = (value.split(".", depth)[-1] for depth in range(1, value.count(".") + 1))
    return next((parent for parent in parents if parent in suffixes), None)
