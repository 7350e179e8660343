"""The page's languages: the texts of each, from a file in `locales/`, and which of them a client prefers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Formatter
from typing import Any, Final

from werkzeug.datastructures import LanguageAccept
from werkzeug.http import parse_accept_header
from whenever import Date, Instant, Time

from tokgate.policy.schedule import Duration
from tokgate.policy.values import Language

DEFAULT: Final = Language.EN
LANGUAGES: Final = tuple(Language)
"""Tags of all languages; of several that a client likes equally the first is taken."""
MAX_HEADER: Final = 1024
"""Characters of a header that are parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningTexts:
    """The texts of the warning page that a refusal does not have. `{…}` are filled in."""

    warned: str
    title: str
    lead: str
    blocked_from: str
    choice: str
    holds: str
    holds_less: str
    """Where the ban blocks or ends before `continue_for` is over."""
    recorded: str
    button: str
    nothing_yet: str
    event: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """All texts of one language. Plain text: the template escapes. `{…}` are filled in."""

    language: Language
    """Its tag (RFC 5646), which is the name of its file."""
    title: str
    this_address: str
    """Stands for the service in the title where no service is known."""
    refused: str
    lead: str
    why: str
    nothing_else: str
    inspected: str
    """What the policy opens besides, where it does."""
    opened: str
    asked: str
    service: str
    ban: str
    authority: str
    basis: str
    reason: str
    reference: str
    since: str
    extends: str
    """Before an earlier term of the same measure."""
    pauses: str
    window: str
    """Until when a measure applies that has windows."""
    until: str
    lifted: str
    overdue: str
    contact: str
    event: str
    event_note: str
    unreadable: Mapping[str, str]
    """The page about what could not be understood: `title`, `lead`, `nothing_sent`."""
    failure: Mapping[str, Any]
    """The page about what can't be passed on: by kind of `render.Failure`, and the labels of its facts."""
    without_ban: Mapping[str, str]
    """An explanation by `Reason`, and under `other` that of the other reasons, where no ban explains a refusal."""
    months: Sequence[str]
    moment: str
    through: str
    """Until the end of a date, inclusive."""
    date: str
    first_day: str
    """The first day of a month: `1er` in French."""
    units: Mapping[str, Sequence[str]]
    """The singular and the plural of each unit of a duration."""
    warning: WarningTexts

    def local_moment(self, at: Instant, zone: str) -> str:
        """An instant as it is written in this language: `10 March 2023, 00:00 (Europe/Brussels)`."""
        local = at.to_tz(zone)
        return self.moment.format(**self._calendar(local.date()), time=f"{local.hour:02}:{local.minute:02}", zone=zone)

    def last_day(self, ends: Instant, zone: str) -> str | None:
        """The last whole day before an end at midnight, which is how people think of it; None for other ends."""
        local = ends.to_tz(zone)
        if local.time() != Time.MIDNIGHT:
            return None
        return self.date.format(**self._calendar(local.date().subtract(days=1)))

    def lasting(self, duration: Duration) -> str:
        """A duration as it is written: `1 day, 12 hours`."""
        return ", ".join(f"{value} {self.units[unit][value != 1]}" for unit, value in duration.items() if value)

    def _calendar(self, date: Date) -> dict[str, str]:
        day = self.first_day.format(day=1) if date.day == 1 else str(date.day)
        return {"day": day, "month": self.months[date.month - 1], "year": str(date.year)}


def load_texts(folder: Traversable) -> dict[str, Texts]:
    """The texts of all languages by tag.

    Raises:
        ValueError: the keys of a language, or the placeholders of a text, differ from those of the default.
    """
    read = {language: json.loads((folder / f"{language}.json").read_text("utf-8")) for language in LANGUAGES}
    expected = _placeholders(read[DEFAULT])
    for language, texts in read.items():
        differing = {key for key, _ in _placeholders(texts).items() ^ expected.items()}
        if differing:
            raise ValueError(f"{language}.json differs from {DEFAULT}.json: {', '.join(sorted(differing))}")
    return {
        language: Texts(language=language, **texts | {"warning": WarningTexts(**texts["warning"])})
        for language, texts in read.items()
    }


def _placeholders(texts: Any, key: str = "") -> dict[str, frozenset[str]]:
    """The placeholders of each text, by its path of keys and places: `without_ban.other`, `months.0`."""
    if isinstance(texts, str):
        return {key: frozenset(name for _, name, _, _ in Formatter().parse(texts) if name is not None)}
    parts = texts.items() if isinstance(texts, dict) else enumerate(texts)
    return {
        name: found for part, each in parts for name, found in _placeholders(each, f"{key}.{part}".lstrip(".")).items()
    }


TEXTS: Final = load_texts(files("tokgate.block_page") / "locales")
"""By language tag."""


def choose_language(accept_language: str | None, otherwise: Language | None = None) -> Language:
    """The preferred language by q-values (RFC 9110 §12.5.4). `fr-BE` matches French; `q=0` excludes a language.

    `otherwise`: the network's own, for who prefers none of them.
    """
    accepted = parse_accept_header((accept_language or "")[:MAX_HEADER], LanguageAccept)
    return Language(accepted.best_match(TEXTS, otherwise or DEFAULT) or DEFAULT)
