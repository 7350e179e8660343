"""Public lists of names: their formats, the entries in them with their lines, and the lines that can't be used."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from tokgate.config.format.services import ListFormat
from tokgate.policy.services import PatternKind
from tokgate.policy.values.hostname import parse_address


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

    kind: PatternKind | None
    """None: a keyword, which is compared with any part of a name."""
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
    unreadable: list[Problem] = field(default_factory=list)

    def add(self, kind: PatternKind | None, value: str, place: Place, attributes: frozenset[str] = frozenset()) -> None:
        """Add an entry that `place` of the list holds, with the attributes it has there."""
        self.entries.append(Entry(kind, value, place, attributes))

    def refuse(self, place: Place, text: str, why: str) -> None:
        """Note a line of the list that can't be read, and why."""
        self.unreadable.append(Problem(place, text.strip(), why))


Included = Callable[[str], str | None]
"""The text of another list by its name; None if there is none."""


def detect(text: str) -> ListFormat:
    """`hosts` for a list of which most lines begin with an address or a wildcard, else `domain-list-community`."""
    firsts = [words[0] for line in text.splitlines() if (words := line.partition("#")[0].split())]
    hosts = sum(first.startswith(("*.", ".")) or _is_address(first) for first in firsts)
    return ListFormat.HOSTS if hosts * 2 > len(firsts) else ListFormat.DOMAIN_LIST


def _is_address(word: str) -> bool:
    return parse_address(word.partition("%")[0]) is not None


_KINDS: Final = {
    "domain": PatternKind.SUFFIX,
    "full": PatternKind.EXACT,
    "keyword": None,
    "regexp": PatternKind.REGEX,
}
_TYPED: Final = re.compile(r"(domain|full|keyword|regexp|include):", re.IGNORECASE)
_RELEASED: Final = re.compile(r":(@[^\s:]+)\Z")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_WORD: Final = re.compile(r"[^\s/|^*,=$]+")
_DEEPEST: Final = 20


def read_domain_list(file: str, text: str, included: Included) -> ServiceList:
    """Read a list and those that it includes; lines of these are named after their list."""
    found = ServiceList()
    _read(found, file, text, included, frozenset(), ())
    return found


def _read(
    found: ServiceList, file: str, text: str, included: Included, asked: frozenset[str], above: tuple[str, ...]
) -> None:
    for place, line in _numbered(file, text):
        words = _COMMENT.sub("", line).split()
        if not words:
            continue
        rule, marks = words[0], words[1:]
        released = None if rule.lower().startswith("regexp:") else _RELEASED.search(rule)
        if released is not None:  # releases write `domain:example.org:@cn,@ads`
            rule, marks = rule[: released.start()], [*released[1].split(","), *marks]
        strange = [mark for mark in marks if mark[0] not in "@&" or len(mark) == 1]
        if strange:
            found.refuse(place, line, f"`{strange[0]}` is neither an `@attribute` nor an `&affiliation`")
            continue
        attributes = frozenset(mark.removeprefix("@") for mark in marks if mark.startswith("@"))
        typed = _TYPED.match(rule)
        kind = "domain" if typed is None else typed[1].lower()
        value = rule if typed is None else rule[typed.end() :]
        if not value or (kind != "regexp" and not _WORD.fullmatch(value)):
            found.refuse(place, line, "not a line of a domain list")
        elif kind == "include":
            within = (*above, PurePath(file).name)
            if value in within or len(within) > _DEEPEST:
                found.refuse(place, f"include:{value}", "the lists include each other in a circle")
            elif (other := included(value)) is None:
                found.refuse(place, f"include:{value}", f"there is no list `{value}` in the folder of this one")
            else:  # of its entries those with all the attributes, and none with those behind `-`
                _read(found, value, other, included, attributes, within)
        elif all((word[1:] not in attributes) if word.startswith("-") else (word in attributes) for word in asked):
            found.add(_KINDS[kind], whole_name(value) if kind == "regexp" else value, place, attributes)


def whole_name(pattern: str) -> str:
    """A regular expression that matches somewhere in a name as one for the whole name."""
    if pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$") and "|" not in pattern:
        return pattern
    return f"^.*(?:{pattern}).*$"


_LOCAL: Final = {
    *("localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"),
    *(f"ip6-{name}" for name in ("localhost", "loopback", "localnet", "mcastprefix")),
    *(f"ip6-{name}" for name in ("allnodes", "allrouters", "allhosts")),
}
"""Names that every hosts file begins with."""


def read_hosts(file: str, text: str) -> ServiceList:
    """Read a hosts file. Each name is one host; `*.name` is the name and all below it."""
    found = ServiceList()
    for place, line in _numbered(file, text):
        words = line.partition("#")[0].split()
        names = words[1:] if words and _is_address(words[0]) else words
        if words and not names:
            found.refuse(place, line, "an address without a name")
        elif len(words) > 1 and names is words:
            found.refuse(place, line, f"`{words[0]}` is no address, and a list of bare names has one a line")
        else:
            for name in names:
                if name.lower() in _LOCAL:
                    continue
                wild = name.startswith(("*.", "."))
                found.add(PatternKind.SUFFIX if wild else PatternKind.EXACT, name.removeprefix("*").lstrip("."), place)
    return found


def _numbered(file: str, text: str) -> Iterator[tuple[Place, str]]:
    """The lines of a list with their places, without line breaks and surrounding space."""
    for number, line in enumerate(text.splitlines(), 1):
        yield Place(file, number), line.strip()
