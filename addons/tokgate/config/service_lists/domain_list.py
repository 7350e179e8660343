"""Reads lists of domain-list-community (https://github.com/v2fly/domain-list-community), of `data/` and of releases.

A line is `[TYPE:]VALUE [@ATTRIBUTE…] [&LIST…] [# comment]`: `domain:` (the default), `full:`, `keyword:`, `regexp:`, or
`include:LIST [@ATTRIBUTE] [@-ATTRIBUTE]` for another list in the same folder.
"""

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from tokgate.config.service_lists.entries import EntryKind, Place, ServiceList, numbered

Included = Callable[[str], str | None]
"""The text of another list by its name; None if there is none."""

_KINDS: Final = {
    "domain": EntryKind.SUFFIX,
    "full": EntryKind.EXACT,
    "keyword": EntryKind.KEYWORD,
    "regexp": EntryKind.REGEX,
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


def whole_name(pattern: str) -> str:
    """A regular expression that matches somewhere in a name as one for the whole name."""
    if pattern.startswith("^") and pattern.endswith("$") and not pattern.endswith("\\$") and "|" not in pattern:
        return pattern
    return f"^.*(?:{pattern}).*$"


def _read(
    found: ServiceList, file: str, text: str, included: Included, asked: frozenset[str], above: tuple[str, ...]
) -> None:
    for place, line in numbered(file, text):
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
            _include(found, place, value, included, attributes, (*above, PurePath(file).name))
        elif _wanted(attributes, asked):
            found.add(_KINDS[kind], whole_name(value) if kind == "regexp" else value, place, attributes)


def _include(
    found: ServiceList,
    place: Place,
    name: str,
    included: Included,
    attributes: frozenset[str],
    above: tuple[str, ...],
) -> None:
    if name in above or len(above) > _DEEPEST:
        found.refuse(place, f"include:{name}", "the lists include each other in a circle")
        return
    text = included(name)
    if text is None:
        found.refuse(place, f"include:{name}", f"there is no list `{name}` in the folder of this one")
        return
    _read(found, name, text, included, attributes, above)


def _wanted(attributes: frozenset[str], asked: frozenset[str]) -> bool:
    """Whether an entry is part of what an `include:` with these attributes asks for: all it names, none with `-`."""
    return all((word[1:] not in attributes) if word.startswith("-") else (word in attributes) for word in asked)
