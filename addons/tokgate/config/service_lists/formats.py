"""The formats of lists: how they are told apart, and their readers; rules of ad blockers have a module of their own."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from tokgate.config.service_lists import adblock
from tokgate.config.service_lists.entries import EntryKind, ListFormat, Place, ServiceList, numbered, whole_name
from tokgate.policy.values.hostname import parse_address

_LOOKED_AT: Final = 2000
"""Lines by which a format is told."""

Included = Callable[[str], str | None]
"""The text of another list by its name; None if there is none."""


def detect(text: str) -> ListFormat | None:
    """The format of a list by what most of its lines are; None where nothing tells."""
    votes = Counter(vote for line in text.splitlines()[:_LOOKED_AT] if (vote := _vote(line.strip())) is not None)
    return votes.most_common(1)[0][0] if votes else None


def _vote(line: str) -> ListFormat | None:
    words = line.split()
    if not line or line.startswith("#"):
        return None
    if line.startswith(("||", "@@", "!", "[Adblock", "[AdGuard", "|", "/")) or re.search(r"\^(\$|\Z)", line):
        return ListFormat.ADBLOCK
    if len(words) > 1 and parse_address(words[0].partition("%")[0]) is not None:
        return ListFormat.HOSTS
    if line.startswith(("*.", ".")):
        return ListFormat.HOSTS
    bare = re.match(r"(?:(?:domain|full|keyword|regexp|include):)?\S+(\s+[@&#].*)?\Z", line)
    return ListFormat.DOMAIN_LIST if bare else None


def read_list(chosen: ListFormat, file: str, text: str, included: Included) -> ServiceList:
    """Read a list, and those that it includes."""
    match chosen:
        case ListFormat.DOMAIN_LIST:
            return read_domain_list(file, text, included)
        case ListFormat.HOSTS:
            return read_hosts(file, text)
        case ListFormat.ADBLOCK:
            return adblock.read_adblock(file, text)


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


_LOCAL: Final = {
    *("localhost", "localhost.localdomain", "local", "broadcasthost", "0.0.0.0"),
    *(f"ip6-{name}" for name in ("localhost", "loopback", "localnet", "mcastprefix")),
    *(f"ip6-{name}" for name in ("allnodes", "allrouters", "allhosts")),
}
"""Names that every hosts file begins with."""

_SAID: Final = re.compile(r"#+\s*(title|homepage|url|licen[cs]e|version|last modified|date|updated)\s*:\s*(\S.*)", re.I)

_KEYS: Final = {
    "title": "title",
    "homepage": "list",
    "url": "list",
    "license": "licence",
    "licence": "licence",
    "version": "revision",
    "last modified": "date",
    "date": "date",
    "updated": "date",
}


def read_hosts(file: str, text: str) -> ServiceList:
    """Read a hosts file. Each name is one host; `*.name` is the name and all below it."""
    found = ServiceList()
    for place, line in numbered(file, text):
        said = _SAID.match(line)
        if said is not None:
            found.said.setdefault(_KEYS[said[1].lower()], said[2].strip())
        words = line.partition("#")[0].split()
        names = words[1:] if words and parse_address(words[0].partition("%")[0]) is not None else words
        if words and not names:
            found.refuse(place, line, "an address without a name")
        elif len(words) > 1 and names is words:
            found.refuse(place, line, f"`{words[0]}` is no address, and a list of bare names has one a line")
        else:
            for name in names:
                if name.lower() in _LOCAL:
                    continue
                wild = name.startswith(("*.", "."))
                found.add(EntryKind.SUFFIX if wild else EntryKind.EXACT, name.removeprefix("*").lstrip("."), place)
    return found
