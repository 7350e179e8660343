"""The page's languages: the texts of each, from a file in `locales/`, and which of them a client prefers."""

import json
from importlib.resources import files
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


class Texts(dict[str, Any]):
    """All texts of one language, by the keys of its file. Plain text: the template escapes. `{…}` are filled in.

    `this_address` stands for the service in the title where none is known. `inspected` is what the policy opens
    besides, where it does. `extends` stands before an earlier term of the same measure, `window` where it has windows;
    `through` is until the end of a date, inclusive, `first_day` the first of a month (`1er` in French). `unreadable` is
    the page about what could not be understood, `failure` that about what can't be passed on, by `render.Failure.kind`.
    `without_ban` explains by `Reason`, or under `other`, where no ban does. `units` have a singular and a plural.
    `warning` has what a refusal lacks: `holds_less` where the ban blocks or ends before `continue_for` is over.
    """

    def local_moment(self, at: Instant, zone: str) -> str:
        """An instant as it is written in this language: `10 March 2023, 00:00 (Europe/Brussels)`."""
        local = at.to_tz(zone)
        time = f"{local.hour:02}:{local.minute:02}"
        return str(self["moment"]).format(**self._calendar(local.date()), time=time, zone=zone)

    def last_day(self, ends: Instant, zone: str) -> str | None:
        """The last whole day before an end at midnight, which is how people think of it; None for other ends."""
        local = ends.to_tz(zone)
        if local.time() != Time.MIDNIGHT:
            return None
        return str(self["date"]).format(**self._calendar(local.date().subtract(days=1)))

    def lasting(self, duration: Duration) -> str:
        """A duration as it is written: `1 day, 12 hours`."""
        return ", ".join(f"{value} {self['units'][unit][value != 1]}" for unit, value in duration.items() if value)

    def _calendar(self, date: Date) -> dict[str, str]:
        day = self["first_day"].format(day=1) if date.day == 1 else str(date.day)
        return {"day": day, "month": self["months"][date.month - 1], "year": str(date.year)}


_LOCALES: Final = files("tokgate.block_page") / "locales"
TEXTS: Final[dict[str, Texts]] = {
    language: Texts(json.loads((_LOCALES / f"{language}.json").read_text("utf-8")), language=language)
    for language in LANGUAGES
}
"""By language tag. A test compares their keys and placeholders."""


def choose_language(accept_language: str | None, otherwise: Language | None = None) -> Language:
    """The preferred language by q-values (RFC 9110 §12.5.4). `fr-BE` matches French; `q=0` excludes a language.

    `otherwise`: the network's own, for who prefers none of them.
    """
    accepted = parse_accept_header((accept_language or "")[:MAX_HEADER], LanguageAccept)
    return Language(accepted.best_match(TEXTS, otherwise or DEFAULT) or DEFAULT)
