"""Warnings of names and prefixes that are valid and reach nobody, or far more than was meant."""

import re
import unicodedata
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from tokgate.config.catalogue import catalogue_files
from tokgate.config.diagnostics import Code
from tokgate.config.sections import Sections
from tokgate.config.service_lists.selection import shared_host
from tokgate.config.yaml.source import Report, Source, TextSpan
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
        remedy = _remedy(value)
        if remedy is not None:
            message = f"no host matches `{value}`: a regex is matched against the whole name, as `www.example.org`"
            report.warning(source, place, Code.MATCHES_NOTHING, f"{message}; {remedy}")
        return
    if "xn--" in value:
        _look_alike(value, source, place, report)
    shared = shared_host(value) if kind is PatternKind.SUFFIX else None
    if shared is not None or (kind is PatternKind.SUFFIX and value in LARGEST):
        file = catalogue_files().get(service)
        if file is not None and re.search(rf"- {re.escape(value)}\s", file.read_text("utf-8")) is not None:
            return  # the catalogue's service of this name has it
        holds = f", which holds `{shared}`," if shared not in (None, value) else ""
        message = f"`{value}`{holds} is far more than one service: name the hosts below it that are meant"
        report.warning(source, place, Code.SHARED_SUFFIX, message)


def check_everybody(sections: Sections, report: Report) -> None:
    """Report prefixes that together are every address, as `0.0.0.0/0` is by itself."""
    for service in sections.services.values():
        for whole in _together(() if service.model is None else service.model.addresses):
            message = f"together these take in every IPv{whole.version} address"
            report.error(service.source, service.at("addresses"), Code.MATCHES_EVERYTHING, message)
    for network in sections.networks.values():
        for whole in _together(() if network.model is None else network.model.cidrs):
            message = f"together these are every IPv{whole.version} address: if that is meant, write `{whole}`"
            report.warning(network.source, network.at("cidrs"), Code.EVERYBODY, message)


def _together(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    """`0.0.0.0/0` or `::/0`, or both, that several prefixes make up together and none of them is."""
    given = list(prefixes)
    held = Cover(given)
    return [whole for whole in _ALL if whole not in given and held.holds(whole)]


# -- letters of other scripts

_LIKE_LATIN: Final = frozenset("аеорсхуіѕјԁһӏԛԝ")
"""Letters of Cyrillic."""
_MIXED: Final = ("CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
"""Scripts that share the shapes of letters with Latin, and never share a word with it."""


def _look_alike(value: str, source: Source, place: TextSpan, report: Report) -> None:
    """Warn of a label that mixes Latin with another script, or whose Cyrillic letters all look like Latin ones."""
    labels = [_unicode(label) for label in value.split(".")]
    for label in labels[:-1] if len(labels) > 1 else labels:
        foreign = [letter for letter in label if unicodedata.name(letter, "").startswith(_MIXED)]
        mixed = any("a" <= letter <= "z" for letter in label)
        disguised = labels[-1].isascii() and _LIKE_LATIN.issuperset(foreign)
        if foreign and (mixed or disguised):
            letter, name = foreign[0], unicodedata.name(foreign[0]).lower()
            message = f"the `{letter}` in `{'.'.join(labels)}` is {name}, U+{ord(letter):04X}"
            report.warning(source, place, Code.LOOK_ALIKE, message)
            return


def _unicode(label: str) -> str:
    try:
        return label[4:].encode().decode("punycode") if label.startswith("xn--") else label
    except UnicodeError:
        return label


# -- regular expressions that no host matches

_MAY_READ_A_DOT: Final = re.compile(r"\.|\[[\[^]|\W-|\\[A-Z0-7px]")
_OPTIONAL: Final = re.compile(r"\([^()]*\)[?*]")
_CLASS: Final = re.compile(r"\[[^\]]*\]")
_SURELY: Final = r"(?![?*{])"
"""Behind a part of a pattern: it has to be there."""


def _remedy(pattern: str) -> str | None:
    """What to write in place of a pattern that matches no name of two labels or more; None where it may match one."""
    if not _MAY_READ_A_DOT.search(pattern):
        label = re.fullmatch(r"\^?([a-z0-9-]+)\$?", pattern, re.IGNORECASE)
        return f"write `{label[1]}` under `label`" if label else "write `.*` where more of it may stand"
    if "|" not in pattern and re.match(rf"\^?\\\.{_SURELY}", pattern):
        return "write `.*` where more of it may stand"
    needed = _OPTIONAL.sub("", _CLASS.sub("a", pattern))
    found = None if re.search(r"[(|]", needed) else re.search(rf"[^\0-.0-\x7f]{_SURELY}", needed)
    if found is None:
        return None
    return "leave out scheme, port and path" if found[0] == "/" else "write it in ASCII (`xn--…`)"
