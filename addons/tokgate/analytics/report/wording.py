"""The report's words in its languages, its times and its numbers. A text is its own key; English needs no other."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any, Final
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from tokgate.analytics.report.ban_facts import Scope
from tokgate.analytics.report.templating import grouped
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Visibility


class Language(StrEnum):
    """The languages of the report."""

    EN = "en"
    FR = "fr"
    NL = "nl"
    DE = "de"


_FORMAT: Final = "%Y-%m-%d %H:%M"
SIGNALS: Final = {
    Signal.SNI: "TLS name (SNI)",
    Signal.QUIC_SNI: "QUIC name (SNI)",
    Signal.HTTP_HOST: "HTTP host",
    Signal.URL: "URL",
    Signal.DNS_NAME: "DNS name",
    Signal.ADDRESS: "address",
    Signal.CERTIFICATE: "certificate",
}
"""By which identifier a client was judged, in words that are keys of the catalogues."""
VISIBILITIES: Final = {
    Visibility.SNI: "TLS name (SNI)",
    Visibility.QUIC_SNI: "QUIC name (SNI)",
    Visibility.ECH_OUTER: "only the name of an ECH provider",
    Visibility.NONE: "TLS without a name",
    Visibility.DECRYPTED: "request that could be read",
    Visibility.DNS: "DNS question",
    Visibility.ADDRESS: "address alone",
    Visibility.UNREADABLE: "unreadable",
}


class Wording:
    """Translates into one language, and writes instants with the local time of one zone."""

    def __init__(self, language: Language, zone: str | None = None) -> None:
        """`zone` is an IANA name; None: UTC alone. Raises ZoneInfoNotFoundError."""
        self._texts: Final = texts(language)
        self._zone: Final = None if zone is None else ZoneInfo(zone)

    def __call__(self, text: str, **values: Any) -> Markup:
        """The text in this language, with `{name}` replaced; values are escaped unless they are markup."""
        return escape(self.plain(text)).format(**values)

    def plain(self, text: str) -> str:
        """The text in this language, as it is."""
        return self._texts.get(text, text)

    def moment(self, at: datetime | None) -> Markup:
        """An instant, which is UTC without `tzinfo`, and the local time of the zone beside it."""
        if at is None:
            return Markup("–")
        said = escape(at.strftime(_FORMAT))
        if self._zone is None:
            return said
        local = at.replace(tzinfo=UTC).astimezone(self._zone)
        shown = local.strftime("%H:%M %Z") if local.date() == at.date() else local.strftime(_FORMAT + " %Z")
        return said + Markup(' <span class="local">({})</span>').format(shown)

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


def utc(at: datetime) -> str:
    """An instant in UTC alone, for a title."""
    return at.strftime(_FORMAT)


@cache
def texts(language: Language) -> dict[str, str]:
    """The translations by English text; a text that is missing stays English."""
    path = files("tokgate.analytics.report") / "locales" / f"{language}.json"
    found: dict[str, str] = json.loads(path.read_text("utf-8"))
    return found
