"""Warnings of names and prefixes that are valid and reach nobody, or far more than was meant."""

import re
import unicodedata
from collections.abc import Iterable
from ipaddress import ip_network
from re import _parser  # type: ignore[attr-defined]  # CPython's own, in which hypothesis reads patterns as well
from typing import Any, Final

from tokgate.config.catalogue import catalogue_files
from tokgate.config.checks.sections import Sections
from tokgate.config.diagnostics import Code
from tokgate.config.service_lists.selection import shared_host
from tokgate.config.yaml.source import Report, Source, TextSpan
from tokgate.config.yaml.suggestions import listed
from tokgate.policy.services import PatternKind
from tokgate.policy.values.prefixes import Cover, IPNetwork

_LARGEST: Final = """
    amazon.com apple.com github.com google.com icloud.com live.com microsoft.com microsoftonline.com office.com
    office365.com outlook.com sharepoint.com wikipedia.org windows.com windowsupdate.com yahoo.com
"""
LARGEST: Final = frozenset(_LARGEST.split())
"""Domains below which one company has many services; below shared hosts many customers have theirs."""
_ALL: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def check_pattern(service: str, kind: PatternKind, value: str, source: Source, place: TextSpan, report: Report) -> None:
    """Warn of a pattern of a service that no host matches, or that many others' hosts match."""
    if kind is PatternKind.REGEX:
        if not _matches_some_host(value):
            report.warning(source, place, Code.MATCHES_NOTHING, _matches_nothing(value))
        return
    if "xn--" in value:
        _look_alike(value, source, place, report)
    shared = shared_host(value) if kind is PatternKind.SUFFIX else None
    if (shared is not None or (kind is PatternKind.SUFFIX and value in LARGEST)) and not _shipped(service, value):
        holds = f", which holds `{shared}`," if shared not in (None, value) else ""
        message = f"`{value}`{holds} is far more than one service: name the hosts below it that are meant"
        report.warning(source, place, Code.SHARED_SUFFIX, message)


def _shipped(service: str, value: str) -> bool:
    """Whether the catalogue's service of this name has the suffix."""
    file = catalogue_files().get(service)
    return file is not None and re.search(rf"- {re.escape(value)}\s", file.read_text("utf-8")) is not None


def check_everybody(sections: Sections, report: Report) -> None:
    """Report prefixes that together are every address, as `0.0.0.0/0` is by itself."""
    for service in sections.services.values():
        for whole in _together(() if service.model is None else service.model.addresses):
            message = f"together these take in every IPv{whole.version} address"
            report.error(service.source, service.at("addresses"), Code.MATCHES_EVERYTHING, message)
    stated = {name: each.model.cidrs for name, each in sections.networks.items() if each.model is not None}
    told: set[str] = set()
    for name, cidrs in stated.items():
        for whole in _together(cidrs):
            told.add(name)
            entry = sections.networks[name]
            message = f"together these are every IPv{whole.version} address: if that is meant, write `{whole}`"
            report.warning(entry.source, entry.at("cidrs"), Code.EVERYBODY, message)
    for ban in sections.bans.values():
        names = [name for name, _ in ban.items("networks")]
        for whole in () if told & {*names} else _together(cidr for name in names for cidr in stated.get(name, ())):
            message = (
                f"together {listed(names)} hold every IPv{whole.version} address: if that is meant, name one network "
                f"with `{whole}`"
            )
            report.warning(ban.source, ban.at("networks"), Code.EVERYBODY, message)


def _together(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    """`0.0.0.0/0` or `::/0`, or both, that several prefixes make up together and none of them is."""
    given = list(prefixes)
    held = Cover(given)
    return [whole for whole in _ALL if whole not in given and held.holds(whole)]


# -- letters of other scripts

_CYRILLIC: Final = dict(zip("аеорсхуіѕјԁһӏԛԝ", "aeopcxyisjdhlqw", strict=True))
_SIMILAR: Final = _CYRILLIC | dict(zip("ктмвнгοανικρτυχε", "ktmbhroavikptuxe", strict=True))
_MIXED: Final = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Scripts that share the shapes of letters with Latin, and never share a word with it."""


def _look_alike(value: str, source: Source, place: TextSpan, report: Report) -> None:
    """Warn of a label that mixes Latin with another script, or whose Cyrillic letters all look like Latin ones."""
    labels = [_unicode(label) for label in value.split(".")]
    for label in labels[:-1] if len(labels) > 1 else labels:
        foreign = [letter for letter in label if unicodedata.name(letter, "").startswith(_MIXED)]
        mixed = any("a" <= letter <= "z" for letter in label)
        disguised = labels[-1].isascii() and all(letter in _CYRILLIC for letter in foreign)
        if foreign and (mixed or disguised):
            name, latin = ".".join(labels), "".join(_SIMILAR.get(letter, letter) for letter in ".".join(labels))
            other = f"is not `{latin}`" if latin.isascii() else "mixes scripts"
            message = f"`{name}` {other}: its `{foreign[0]}` is {unicodedata.name(foreign[0]).lower()}"
            report.warning(source, place, Code.LOOK_ALIKE, f"{message}, U+{ord(foreign[0]):04X}")
            return


def _unicode(label: str) -> str:
    try:
        return label[4:].encode().decode("punycode") if label.startswith("xn--") else label
    except UnicodeError:
        return label


# -- regular expressions that no host matches

_OTHERWISE: Final = re.compile(r"\[\[|\[:|--|&&|~~|\|\||\\[pPQECz]")
"""What RE2 reads in another way than `re`, or than later versions of `re`."""
_LABEL: Final = re.compile(r"\^?([a-z0-9-]+)\$?", re.IGNORECASE)
_FIRST, _IN_FIRST, _DOT, _LATER, _ENDED = range(5)
"""Before the first label, in it, behind a dot, in a later label, behind `$`."""
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789_-"
_AFTER_LETTER: Final = {_FIRST: _IN_FIRST, _IN_FIRST: _IN_FIRST, _DOT: _LATER, _LATER: _LATER}
_AFTER_DOT: Final = {_IN_FIRST: _DOT, _LATER: _DOT}
_States = frozenset[int]


class _Unclear(Exception):
    """A part of a pattern that isn't understood here."""


def _matches_nothing(value: str) -> str:
    message = f"no host matches `{value}`: a regex is matched against the whole name, as `www.example.org`"
    plain = _LABEL.fullmatch(value)
    if plain:
        return f"{message}; write `{plain[1]}` under `label`"
    if not value.isascii():
        return f"{message}, and in ASCII (`xn--…`)"
    return message + (", without scheme, port or path" if "/" in value else "; write `.*` where more of it may stand")


def _matches_some_host(pattern: str) -> bool:
    """Whether some name of two labels or more matches as a whole; True where that isn't certain."""
    if _OTHERWISE.search(pattern):
        return True
    try:
        return not _after(_parser.parse(pattern), frozenset({_FIRST})).isdisjoint({_LATER, _ENDED})
    except (re.error, _Unclear, RecursionError, OverflowError):
        return True


def _after(items: Iterable[Any], states: _States) -> _States:
    """Where in a name one may be after these items, having been in one of `states` before them."""
    for op, value in items:
        match str(op):
            case "BRANCH":
                states = frozenset().union(*(_after(each, states) for each in value[1]))
            case "SUBPATTERN":
                states = _after(value[3], states)
            case "MAX_REPEAT" | "MIN_REPEAT":
                states = _repeated(value[2], states, value[0], value[1])
            case "AT" if str(value).startswith("AT_BEGINNING"):
                states &= {_FIRST}
            case "AT" if str(value).startswith("AT_END"):
                states = frozenset({_ENDED}) if states & {_LATER, _ENDED} else frozenset()
            case "AT":
                pass  # `\b`, `\B`: somewhere
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                found = {_AFTER_DOT[each] for each in states & _AFTER_DOT.keys() if _reads(op, value, ".")}
                if any(_reads(op, value, each) for each in _LETTERS):
                    found |= {_AFTER_LETTER[each] for each in states & _AFTER_LETTER.keys()}
                states = frozenset(found)
            case _:
                raise _Unclear
    return states


def _repeated(items: Any, states: _States, least: int, most: int) -> _States:
    for _ in range(least):
        before, states = states, _after(items, states)
        if states == before:
            break
    reached, fresh = states, states
    while most > least and (fresh := _after(items, fresh) - reached):
        reached |= fresh
    return reached


def _reads(op: Any, value: Any, character: str) -> bool:
    """Whether an item for one character reads this one, whatever the case."""
    both = (ord(character), ord(character.upper()))
    match str(op):
        case "LITERAL":
            return chr(value).lower() == character
        case "NOT_LITERAL":
            return chr(value).lower() != character
        case "RANGE":
            return any(value[0] <= each <= value[1] for each in both)
        case "CATEGORY":
            return re.fullmatch(_CATEGORIES[str(value)], character) is not None
        case "IN":
            negated = str(value[0][0]) == "NEGATE"
            return any(_reads(op, each, character) for op, each in value[negated:]) is not negated
    return True


_CATEGORIES: Final = {
    f"CATEGORY_{way}{kind}": f"\\{letter.upper() if way else letter}"
    for way in ("", "NOT_")
    for kind, letter in (("DIGIT", "d"), ("SPACE", "s"), ("WORD", "w"))
}
