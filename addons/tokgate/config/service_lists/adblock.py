"""Reads the rules of ad blockers that are about whole host names, as lists for DNS blocking are written.

https://adguard-dns.io/kb/general/dns-filtering-syntax/ describes them: `||name^` is a name and all below it, `|name^`
one name, `@@` before a rule an exception from others, `/…/` a regular expression, and `$` begins options. Rules about
paths, parts of pages or some requests only would ban more than they say, so they are reported and not taken.
"""

import re
from typing import Final

from tokgate.config.service_lists.entries import Entry, EntryKind, Place, ServiceList, numbered, whole_name
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.public_suffix import public_suffix

_COSMETIC: Final = re.compile(r"#[@?$%]{0,3}#|\$\$|\$@\$")
_SAID: Final = re.compile(r"[!#]\s*(title|homepage|licen[cs]e|version|last modified|timeupdated)\s*:\s*(\S.*)", re.I)
_KEYS: Final = {
    "title": "title",
    "homepage": "list",
    "license": "licence",
    "licence": "licence",
    "version": "revision",
    "last modified": "date",
    "timeupdated": "date",
}
_RULE: Final = re.compile(
    r"(?P<start>\|\|(?:\*\.)?|\|(?:https?://|//)?|(?:https?:)?//)?(?P<name>[^/|^$*:\s]*(?:\*[^/|^$*:\s]*)*)"
    r"(?P<end>\^\|?|\||/?)\Z"
)
_PLAIN: Final = re.compile(r"[^\s.^|/*$:]+(\.[^\s.^|/*$:]+)+")
"""A bare host name."""
_WHATEVER_IS_ASKED: Final = {"important", "all", "document", "doc", "third-party", "3p", "~third-party", "~3p"}
"""Options that leave a rule about all of a name, so far as a gateway can tell."""


def read_adblock(file: str, text: str) -> ServiceList:
    """Read a list of rules, and lines of a hosts file among them."""
    found = ServiceList()
    cancelled: set[str] = set()
    for place, line in numbered(file, text):
        said = _SAID.match(line)
        if said is not None:
            found.said.setdefault(_KEYS[said[1].lower()], said[2].strip())
        elif (
            line and not line.startswith("!") and not re.match(r"#(?![@?$%#])|\[Adblock|\[AdGuard", line, re.IGNORECASE)
        ):
            rule = read_rule(found, place, line)
            if rule is not None:
                cancelled.add(rule)
    if cancelled:
        found.entries = [each for each in found.entries if each.value not in cancelled]
    return found


def read_rule(found: ServiceList, place: Place, line: str) -> str | None:
    """Read one rule into the list. Returns the name of a rule that `badfilter` cancels."""
    rule, exception = line.removeprefix("@@"), line.startswith("@@")
    if _COSMETIC.search(line):
        found.refuse(place, line, "a rule for the content of pages, not for a name")
        return None
    if rule.startswith("/") and re.search(r"/(\$[^/]*)?\Z", rule[1:]):
        body, _, limit = rule[1:].rpartition("/")
        if not _about_all(limit.removeprefix("$").split(",")):
            found.refuse(place, line, f"the options `{limit}` limit the rule to some requests")
        else:
            _keep(found, Entry(EntryKind.REGEX, whole_name(body), place), exception)
        return None
    words = rule.split()
    if len(words) > 1 and parse_address(words[0]) is not None:  # a line of a hosts file
        for name in words[1:]:
            _keep(found, Entry(EntryKind.EXACT, name, place), exception)
        return None
    return _read_name(found, place, line, rule, exception)


def _read_name(found: ServiceList, place: Place, line: str, rule: str, exception: bool) -> str | None:
    """Read a rule for a name, with its options."""
    pattern, _, written = rule.partition("$")
    options = [each for each in written.split(",") if each]
    denied = [name for each in options if each.startswith("denyallow=") for name in each[10:].split("|")]
    options = [each for each in options if not each.startswith("denyallow=")]
    limits = [each for each in options if each != "badfilter" and not _about_all([each])]
    shape = _RULE.match(pattern)
    if limits:
        found.refuse(place, line, f"the option `{limits[0]}` limits the rule to some requests")
    elif shape is None or not shape["name"].strip(".*") or (not shape["start"] and not _PLAIN.fullmatch(pattern)):
        found.refuse(place, line, "a rule for parts of URLs, not for a name")
    elif "badfilter" in options:
        return _entry(shape, place).value
    elif _entry(shape, place).kind is EntryKind.REGEX and _open_ended(shape["name"]):
        found.refuse(place, line, "anybody may register a name that it matches")
    else:
        _keep(found, _entry(shape, place), exception)
        found.exceptions += [Entry(EntryKind.SUFFIX, name, place) for name in denied]
    return None


def _about_all(options: list[str]) -> bool:
    return all(each in _WHATEVER_IS_ASKED for each in options if each)


def _keep(found: ServiceList, entry: Entry, exception: bool) -> None:
    (found.exceptions if exception else found.entries).append(entry)


def _entry(shape: re.Match[str], place: Place) -> Entry:
    name, below = shape["name"].rstrip("."), (shape["start"] or "").startswith("||")
    if parse_address(name) is not None:
        return Entry(EntryKind.ADDRESS, name, place)
    if name.startswith("*.") and "*" not in name[2:]:
        return Entry(EntryKind.SUFFIX, name[2:], place)
    if "*" in name:
        inner = "[a-z0-9.-]*".join(re.escape(part).replace("\\-", "-") for part in name.lower().split("*"))
        return Entry(EntryKind.REGEX, f"^(.+\\.)?{inner}$" if below else f"^{inner}$", place)
    return Entry(EntryKind.SUFFIX if below else EntryKind.EXACT, name, place)


def _open_ended(name: str) -> bool:
    """Whether a wildcard reaches into the registrable label, or behind it."""
    filled = name.replace("*", "w--w").strip(".")
    suffix = public_suffix(filled, private=True) or filled.rpartition(".")[2]
    registrable = filled.removesuffix(suffix).rstrip(".").rpartition(".")[2]
    return not registrable or "w--w" in registrable or "w--w" in suffix
