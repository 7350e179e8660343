"""What a list holds, in whatever format: entries with their lines, exceptions, and lines that say nothing usable."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from tokgate.policy.values import Word


class EntryKind(StrEnum):
    """How an entry of a list is compared with names."""

    SUFFIX = "suffix"
    """The name and all names below it."""
    EXACT = "exact"
    REGEX = "regex"
    """The whole name, in RE2 syntax."""
    KEYWORD = "keyword"
    """Any part of a name."""
    ADDRESS = "address"
    """An address prefix."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a list, counted from 1; `file` is its name as it was given."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the list has it: not normalised, and not yet known to be a name."""

    kind: EntryKind
    value: str
    place: Place
    attributes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Problem:
    """A line, or the name in it, that is not taken, and why."""

    place: Place
    text: str
    why: str


@dataclass(slots=True)
class ServiceList:
    """The content of a list. Unreadable lines are collected, none ends the reading."""

    entries: list[Entry] = field(default_factory=list)
    exceptions: list[Entry] = field(default_factory=list)
    """Names that the list takes out of its entries again."""
    unreadable: list[Problem] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)
    """What the list says of itself, by the keys of a service's `source`; and its `title`."""

    def add(self, kind: EntryKind, value: str, place: Place, attributes: frozenset[str] = frozenset()) -> None:
        """Add an entry that `place` of the list holds, with the attributes it has there."""
        self.entries.append(Entry(kind, value, place, attributes))

    def refuse(self, place: Place, text: str, why: str) -> None:
        """Note a line of the list that can't be read, and why."""
        self.unreadable.append(Problem(place, text.strip(), why))


def numbered(file: str, text: str) -> Iterator[tuple[Place, str]]:
    """The lines of a list with their places, without line breaks and surrounding space."""
    for number, line in enumerate(text.splitlines(), 1):
        yield Place(file, number), line.strip()


class ListFormat(Word):
    """The formats, by the words of `--format` and of `source.format`."""

    DOMAIN_LIST = "domain-list-community", "Lists of v2fly/domain-list-community."
    HOSTS = "hosts", "hosts(5), or names one a line."
    ADBLOCK = "adblock", "Rules of ad blockers and of AdGuard's DNS filter."


def whole_name(pattern: str) -> str:
    """A regular expression that matches somewhere in a name as one for the whole name."""
    if pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$") and "|" not in pattern:
        return pattern
    return f"^.*(?:{pattern}).*$"
