"""Templates and words of the report and of the review page: in each language, escaped, with times and numbers.

A forged log line may hold characters that reverse the order in which text is displayed: every value is escaped as
markup, and its invisible characters are shown as escapes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tokgate.analytics.report.report_data import Scope
from tokgate.policy.values.text import escaped


def environment(package: str) -> Environment:
    """The templates of a package. A value that must stay exact, such as a form field's, goes through `| e`."""
    made = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = lambda value: Markup(grouped(int(value)))  # noqa: S704  (digits)
    return made


def grouped(number: int) -> str:
    """A number with narrow no-break spaces between its thousands (ISO 80000-1): the same in every language."""
    return f"{number:,}".replace(",", "\u202f")


class Language(StrEnum):
    """The languages of the report."""

    EN = "en"
    FR = "fr"
    NL = "nl"
    DE = "de"


_DAY, _MINUTE, _SECOND = "%Y-%m-%d ", "%H:%M", "%H:%M:%S"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The words of a language: those of the log's codes by their kind, and translations by English text."""

    codes: Mapping[str, Mapping[str, str]]
    texts: Mapping[str, str]


class Wording:
    """Translates into one language, and writes instants with the local time of one zone."""

    def __init__(self, language: Language, zone: str | None = None) -> None:
        """`zone` is an IANA name; None: UTC alone. Raises ZoneInfoNotFoundError."""
        catalogue = catalogue_of(language)
        self.codes: Final = catalogue.codes
        self._texts: Final = catalogue.texts
        self._zone: Final = None if zone is None else ZoneInfo(zone)

    def __call__(self, text: str, **values: Any) -> Markup:
        """The text in this language, with `{name}` replaced; values are escaped unless they are markup."""
        return escape(self.plain(text)).format(**values)

    def plain(self, text: str) -> str:
        """The text in this language, as it is."""
        return self._texts.get(text, text)

    def word(self, kind: str, code: str) -> str:
        """The word for a code of the log, such as a verdict; the code itself where there is none."""
        return self.codes[kind].get(code, code)

    def moment(self, at: datetime | None, zone: str | None = None, *, exact: bool = False) -> Markup:
        """An instant, which is UTC without `tzinfo`, and beside it the local time of `zone`, else of the report's.

        With `exact` to the second.
        """
        if at is None:
            return Markup("–")
        time = _SECOND if exact else _MINUTE
        said = escape(at.strftime(_DAY + time))
        there = self._zone if zone is None else ZoneInfo(zone)
        if there is None:
            return said
        local = at.replace(tzinfo=UTC).astimezone(there)
        shown = local.strftime(("" if local.date() == at.date() else _DAY) + time + " %Z")
        return said + Markup(' <span class="local">({})</span>').format(shown)

    def sentence(self, record: Mapping[str, Any]) -> Markup:
        """What a record says, made of its columns; its own message is in English."""
        did = self(self.codes["action"].get(record["action"], "{what}"), what=record["what"])
        where = f" ({record['network']})" if record["network"] else ""
        why = self.plain(": ") + record["rule_title"] if record["rule_title"] else ""
        return escape(f"{record['client'] or '–'}{where} ") + did + f"{why}."

    def scope(self, network: Scope) -> Markup:
        """A network, and in parentheses who belongs to it."""
        counted = {
            "devices: {count}": network.devices,
            "users: {count}": network.users,
            "groups: {count}": network.groups,
        }
        parts = [escape(member) for member in network.members]
        parts += [self(text, count=grouped(count)) for text, count in counted.items() if count]
        parts += [self("except {clients}", clients=", ".join(network.without))] if network.without else []
        return escape(network.name) + (Markup(" ({})").format(Markup(", ").join(parts)) if parts else "")


@cache
def catalogue_of(language: Language) -> Catalogue:
    """The catalogue in the file of a language."""
    path = files("tokgate.analytics.report") / "locales" / f"{language}.json"
    return Catalogue(**json.loads(path.read_text("utf-8")))
