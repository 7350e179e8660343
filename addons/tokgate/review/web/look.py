"""What somebody looks at: the time, the filters and the page, as they stand in a URL, and as SQL over `lines`. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Self
from urllib.parse import urlencode

from whenever import Date, Instant, PlainDateTime, Time

from tokgate.blocklog.reader import Filter, client_filter
from tokgate.policy.names import DomainName, normalise
from tokgate.review.conditions import conditions, utc_text

MAX_VALUE: Final = 1024
"""Longest text of a filter; the log keeps none that is longer."""
PAGE_ROWS: Final = 100
MAX_PAGE: Final = 500
_YEARS: Final = (Instant.from_utc(1900, 1, 1), Instant.from_utc(9900, 1, 1))


class About(StrEnum):
    """Which records are meant."""

    TRAFFIC = "traffic"
    TOKGATE = "tokgate"


FACETS: Final = {
    "verdict": "Verdict",
    "action": "What was done",
    "client": "Client",
    "user": "User",
    "name": "Name",
    "network": "Network",
    "ban": "Ban",
    "service": "Service",
    "signal": "Seen in",
    "reason": "Reason",
    "exemption": "Exemption",
    "gateway": "Gateway",
    "policy": "Policy version",
}
"""What can be filtered by: names in URLs, which are the log's, and what people read."""
_EQUAL: Final = tuple(facet for facet in FACETS if facet not in ("client", "name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A look at `[since, until)`. `filters` are pairs of facet and value; `upto` hides lines that came later."""

    since: Instant | None = None
    until: Instant | None = None
    about: About = About.TRAFFIC
    filters: tuple[tuple[str, str], ...] = ()
    page: int = 1
    upto: int | None = None

    def value(self, facet: str) -> str:
        """What is asked of a facet; empty for anything."""
        return dict(self.filters).get(facet, "")

    def with_filter(self, facet: str, value: str) -> Self:
        """The same, narrowed to a value, or widened by leaving it empty. Begins at the first page."""
        rest = [(name, said) for name, said in self.filters if name != facet]
        chosen = [*rest, (facet, value)] if value else rest
        return replace(self, filters=tuple(sorted(chosen, key=_order)), page=1, upto=None)

    def during(self, since: Instant | None, until: Instant | None) -> Self:
        """The same in another time. Begins at the first page."""
        return replace(self, since=since, until=until, page=1, upto=None)

    def on_page(self, page: int, upto: int) -> Self:
        """Another page of the same lines."""
        return replace(self, page=page, upto=upto)

    @property
    def query(self) -> str:
        """As the query part of a URL, which `read` reads back."""
        return urlencode(self.parameters)

    @property
    def parameters(self) -> dict[str, str]:
        """What the query says."""
        said = {
            "since": self.since and as_typed(self.since),
            "until": self.until and as_typed(self.until),
            "about": None if self.about is About.TRAFFIC else self.about.value,
            **dict(self.filters),
            "page": None if self.page == 1 else str(self.page),
            "upto": None if self.upto is None else str(self.upto),
        }
        return {key: str(value) for key, value in said.items() if value}

    def where(self) -> tuple[str, dict[str, Any]]:
        """SQL that is true of the lines meant, and its parameters; nothing that was typed stands in the SQL."""
        terms = ["readable", "traffic" if self.about is About.TRAFFIC else "NOT traffic"]
        met = conditions(Filter(since=self.since, until=self.until, client=self._client()), lambda name: f"${name}")
        terms.append(met.sql)
        parameters: dict[str, Any] = dict(met.variables)
        for facet in _EQUAL:
            if value := self.value(facet):
                terms.append(f'"{facet}" = $is_{facet}')
                parameters[f"is_{facet}"] = value
        if name := self.value("name"):
            terms.append('("name" = $name OR ends_with("name", \'.\' || $name) OR "target" = $name)')
            parameters["name"] = name
        if self.upto is not None:
            terms.append("n <= $upto")
            parameters["upto"] = self.upto
        return " AND ".join(terms), parameters

    def _client(self) -> IPv4Network | IPv6Network | str | None:
        value = self.value("client")
        if not value:
            return None
        try:
            return client_filter(value)
        except ValueError:  # what a log shows of a client that has no address
            return value


def read(said: Iterable[tuple[str, str]]) -> tuple[Look, dict[str, str]]:
    """A look from the pairs of a query, and what is wrong with which field; what is wrong is left out."""
    texts = {key: value.strip() for key, value in said}
    problems: dict[str, str] = {}
    since, until = (_instant(texts, edge, problems) for edge in ("since", "until"))
    if since is not None and until is not None and since >= until:
        problems["until"] = "This has to be after the beginning."
        until = None
    about = About.TOKGATE if texts.get("about") == About.TOKGATE else About.TRAFFIC
    filters = []
    for facet in FACETS:
        value = texts.get(facet, "")
        if len(value) > MAX_VALUE or not value.isprintable():
            problems[facet] = "No line of the log says that."
        elif value:
            filters.append((facet, _spelt(facet, value)))
    return Look(
        since=since, until=until, about=about, filters=tuple(filters),
        page=min(MAX_PAGE, max(1, _number(texts, "page") or 1)), upto=_number(texts, "upto"),
    ), problems  # fmt: skip


def as_typed(at: Instant) -> str:
    """An instant as `datetime-local` takes it, in UTC."""
    text = utc_text(at).removesuffix(".000000")
    return text[:16] if text.endswith(":00") else text


def _spelt(facet: str, value: str) -> str:
    """Names as the log spells them."""
    if facet != "name":
        return value
    name = normalise(value)
    return name.value if isinstance(name, DomainName) else value


def _instant(texts: Mapping[str, str], edge: str, problems: dict[str, str]) -> Instant | None:
    text = texts.get(edge, "")
    if not text:
        return None
    for reader in (
        Instant.parse_iso,
        lambda said: PlainDateTime.parse_iso(said).assume_utc(),
        lambda said: Date.parse_iso(said).at(Time.MIDNIGHT).assume_utc(),
    ):
        try:
            at = reader(text)
        except ValueError:
            continue
        if _YEARS[0] <= at < _YEARS[1]:
            return at
    problems[edge] = "This is no time: 2023-03-10T08:00 (UTC), or with an offset."
    return None


def _number(texts: Mapping[str, str], key: str) -> int | None:
    text = texts.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _order(pair: tuple[str, str]) -> int:
    return list(FACETS).index(pair[0])
