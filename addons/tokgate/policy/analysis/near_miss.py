"""Names that resemble a banned service and match no rule: candidates for its service file.

Resemblance never decides anything, since brands occur in many names of others. The words that are searched for are
derived from the service's own rules.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import re2
from rapidfuzz.distance import OSA
from rapidfuzz.process import extractOne

from tokgate.policy.analysis.likeness import How, Likeness
from tokgate.policy.services import PatternKind, Service, registrable_label

SHORTEST: Final = 6
"""Least letters of a word that is searched for inside labels; shorter words occur in too many."""
SHORTEST_ALONE: Final = 4
"""Least letters of a label that is searched for as a whole, under another suffix."""
STEM_OF: Final = 3
"""How many of a service's domains must contain a word for it to be the brand; all of them, if there are fewer."""
MOST_WORDS: Final = 1000
"""Most words of each kind that are searched for; those of the first rules."""
_LENGTHS: Final = ((6, 1), (10, 2))
"""(Length, errors): from so many letters on, so many may be wrong, missing, added or transposed."""
_NOTHING: Final = r"[^\x{0}-\x{10FFFF}]"
_DIGITS: Final = str.maketrans("013457", "oleast")


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of all services, each with the service that it belongs to."""

    domains: dict[str, str]
    labels: dict[str, str]
    brands: dict[str, str]


class Resemblance:
    """Finds how names resemble services. Its answers never change; one takes some microseconds."""

    def __init__(self, services: Iterable[Service]) -> None:
        """Derive the words from `services`, which should be the banned ones."""
        words = _words(services)
        self._domains: Final = {domain.replace(".", "-"): (domain, name) for domain, name in words.domains.items()}
        self._labels: Final = words.labels
        self._brands: Final = words.brands
        self._known: Final = [word for word in dict.fromkeys((*words.brands, *words.labels)) if len(word) >= SHORTEST]
        self._brand_words: Final = list(words.brands)
        self._aliases: Final = _either(self._domains, r"(?:^|[.-])(%s)(?:[.-]|$)")
        self._stems: Final = _either(self._brands, "(%s)")
        self._similar: Final = lru_cache(maxsize=8192)(self._like)

    def find(self, name: str) -> Likeness | None:
        """How a canonical name that matched no rule resembles a service; None if it doesn't."""
        labels = name.split(".")
        own = registrable_label(name) if self._may_resemble(name, labels) else None
        if own is None:
            return None
        depth = _position(labels, own)
        return (
            self._alias(labels, depth)
            or self._same(labels, depth)
            or self._contained(labels, depth)
            or self._misspelt(labels, depth)
        )

    def _may_resemble(self, name: str, labels: list[str]) -> bool:
        """A cheap test, before the public suffix is looked up: a few microseconds."""
        if self._stems.search(name) or self._stems.search(_respelt(name)):
            return True
        if self._aliases.search(name.replace(".", "-")):
            return True
        return any(label in self._labels or self._in_part(label) for label in labels[-4:-1])

    def _in_part(self, label: str) -> tuple[str, str] | None:
        """What a label resembles, whole or in one of its parts between hyphens; parts are compared with brands only."""
        if (found := self._similar(label, True)) is not None or "-" not in label:
            return found
        return next((found for part in label.split("-") if (found := self._similar(part, False)) is not None), None)

    def _alias(self, labels: list[str], depth: int) -> Likeness | None:
        spelled = "-".join(labels[:depth])
        found = self._aliases.search(spelled)
        if found is None:
            return None
        domain, service = self._domains[found.group(1)]
        first = spelled[: found.start(1)].count("-")
        start = _label_at(labels, first)
        return Likeness(".".join(labels[start:]), service, domain, How.ALIAS)

    def _same(self, labels: list[str], depth: int) -> Likeness | None:
        service = self._labels.get(labels[depth])
        if service is None:
            return None
        return Likeness(".".join(labels[depth:]), service, labels[depth], How.SAME_LABEL)

    def _contained(self, labels: list[str], depth: int) -> Likeness | None:
        """The topmost label that contains a brand, ignoring hyphens and reading digits as letters."""
        for start in range(depth, -1, -1):
            label = labels[start]
            for spelled in (label, _respelt(label)):
                found = self._stems.search(spelled)
                if found is not None:
                    word = found.group(1)
                    return Likeness(".".join(labels[start:]), self._brands[word], word, How.CONTAINS)
        return None

    def _misspelt(self, labels: list[str], depth: int) -> Likeness | None:
        found = self._in_part(labels[depth])
        return None if found is None else Likeness(".".join(labels[depth:]), *found, How.SIMILAR)

    def _like(self, token: str, whole: bool) -> tuple[str, str] | None:
        """The service and the word from which a token differs by a few letters."""
        allowed = max((wrong for length, wrong in _LENGTHS if len(token) >= length), default=0)
        if not allowed:
            return None
        words = self._known if whole else self._brand_words
        found = extractOne(token, words, scorer=OSA.distance, score_cutoff=allowed)
        if found is None:
            return None
        word = found[0]
        if found[1] > max((wrong for length, wrong in _LENGTHS if len(word) >= length), default=0):
            return None
        service = self._brands.get(word) or self._labels[word]
        return service, word


def _words(services: Iterable[Service]) -> _Words:
    domains: dict[str, str] = {}
    labels: dict[str, str] = {}
    brands: dict[str, str] = {}
    for service in services:
        own = list(dict.fromkeys(_labels_of(service, domains)))
        for label in own:
            if len(label) >= SHORTEST_ALONE:
                labels.setdefault(label, service.name)
        said = {pattern.value for pattern in service.patterns if pattern.kind is PatternKind.LABEL}
        for brand in _brands(own, said):
            brands.setdefault(brand, service.name)
    return _Words(_first(domains), _first(labels), _first(brands))


def _labels_of(service: Service, domains: dict[str, str]) -> Iterator[str]:
    """The registrable labels of a service's rules. Adds registrable domains to `domains`, but no names below them."""
    for pattern in service.patterns:
        if pattern.kind is PatternKind.LABEL:
            yield pattern.value
        elif pattern.kind in (PatternKind.SUFFIX, PatternKind.EXACT):
            label = registrable_label(pattern.value)
            if label is not None and pattern.value.split(".")[0] == label:
                if len(label) >= SHORTEST_ALONE:
                    domains.setdefault(pattern.value, service.name)
                yield label


def _brands(labels: list[str], said: set[str]) -> Iterator[str]:
    """The longest words with which several of the labels begin; none contains another."""
    spelled = [label.replace("-", "") for label in labels]
    words = {word for label in labels for word in (label.replace("-", ""), label.partition("-")[0])}
    support = {word: sum(each.startswith(word) for each in spelled) for word in words if len(word) >= SHORTEST}
    needed = min(STEM_OF, len(labels))
    able = [word for word, number in support.items() if number >= needed or word in said]
    kept: list[str] = []
    for word in sorted(able, key=lambda word: (len(word), word)):
        more_said = any(
            other.startswith(word) and support[other] >= support[word] - 1 for other in able if other != word
        )
        if word not in said and more_said:
            continue  # the longer word matches the same labels but one, and fewer names of others
        if not any(shorter in word for shorter in kept):
            kept.append(word)
    yield from kept


def _respelt(text: str) -> str:
    """The text without hyphens, with digits replaced by the letters that they look like."""
    return text.replace("-", "").translate(_DIGITS)


def _first(words: dict[str, str]) -> dict[str, str]:
    return dict(list(words.items())[:MOST_WORDS])


def _either(words: Iterable[str], pattern: str) -> Any:
    """One regular expression for all words, the longest first; one that finds nothing without words."""
    spelled = [re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word))] or [_NOTHING]
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 64 << 20
    return re2.compile(pattern % "|".join(spelled), options)


def _position(labels: list[str], own: str) -> int:
    """The index of the registrable label: the topmost that equals `own`."""
    return len(labels) - 1 - labels[::-1].index(own)


def _label_at(labels: list[str], hyphens: int) -> int:
    """The index of the label that has `hyphens` hyphens before it in the whole name, counting dots as hyphens."""
    ends = accumulate(label.count("-") + 1 for label in labels)
    return next(number for number, end in enumerate(ends) if hyphens < end)
