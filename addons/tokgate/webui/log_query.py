"""What a page shows: period, filters, page and view, read from a URL's query, and as SQL over `lines`. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import urlencode

from whenever import Instant, TimeDelta, TimeZoneNotFoundError

from tokgate.analytics.sql import Chosen, Value, conditions
from tokgate.blocklog.read.reader import Filter, client_filter
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.text import read_moment

PAGE_ROWS: Final = 100
MAX_PAGE: Final = 500
UTC: Final = "UTC"
NOT: Final = "not-"
"""Before a facet's name: the parameter of values that are left out."""


class About(StrEnum):
    """Kinds of records: of traffic, or of tokgate itself."""

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
    "destination_ip": "Destination",
    "url_path": "Path",
    "user_agent": "User agent",
    "ja4": "JA4",
}
"""The facets to filter by: parameter names, which are the log's columns, and labels."""

PERIODS: Final = {
    "1h": ("last hour", TimeDelta(hours=1)),
    "24h": ("last day", TimeDelta(hours=24)),
    "7d": ("last week", TimeDelta(hours=24 * 7)),
    "30d": ("last 30 days", TimeDelta(hours=24 * 30)),
}
"""Periods that end now: parameter value, label, length."""

COLUMNS: Final = {
    "verdict": "Verdict",
    "client": "Client",
    "name": "Name or address",
    "action": "What was done",
    "network": "Network",
    "ban": "Ban",
    "service": "Service",
    "rule": "Rule",
    "signal": "Seen in",
    "reason": "Reason",
    "exemption": "Exemption",
    "gateway": "Gateway",
    "policy": "Policy version",
    "events": "Events",
}
"""The columns of the table of lines, beside the time, and their headings."""
USUAL: Final = ("verdict", "client", "name", "action", "network", "ban", "signal", "events")
"""The columns that are shown unless others are chosen."""
SORTS: Final = {
    "time": '"time"',
    "events": '"events"',
    "client": '"client"',
    "name": 'coalesce("name", "destination_ip")',
    **{name: f'"{name}"' for name in COLUMNS if name not in ("events", "client", "name")},
}
"""By what lines can be sorted: parameter value, and SQL."""
NEWEST: Final = "-time"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How lines are shown. `zone` is an IANA name; `sort` a key of SORTS, behind `-` for descending."""

    zone: str = UTC
    sort: str = NEWEST
    columns: tuple[str, ...] = USUAL

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """The parameters that differ from their default."""
        usual = View()
        if self.zone != usual.zone:
            yield "zone", self.zone
        if self.sort != usual.sort:
            yield "sort", self.sort
        if self.columns != usual.columns:
            yield from (("column", name) for name in self.columns)

    @property
    def order(self) -> str:
        """The expression behind SQL's ORDER BY, for the lines of the log."""
        name, direction = self.sort.removeprefix("-"), "DESC" if self.sort.startswith("-") else "ASC"
        return f"{SORTS[name]} {direction} NULLS LAST, rowid {direction if name == 'time' else 'DESC'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """The filters of a page over `[since, until)`. Filters are pairs of facet and value; `upto` hides later lines."""

    since: Instant | None = None
    until: Instant | None = None
    period: str = ""
    """A key of PERIODS, from which `since` was computed; empty: another period."""
    about: About = About.TRAFFIC
    filters: tuple[tuple[str, str], ...] = ()
    excluded: tuple[tuple[str, str], ...] = ()
    page: int = 1
    upto: int | None = None
    view: View = field(default_factory=View)

    def values(self, facet: str) -> list[str]:
        """The values of which a line must have one; empty if any."""
        return [value for name, value in self.filters if name == facet]

    def with_filter(self, facet: str, *values: str) -> Self:
        """The lines with one of these values of a facet, instead of others, or with any; from page 1."""
        rest = {(name, said) for name, said in self.filters if name != facet}
        chosen = rest | {(facet, value) for value in values}
        return replace(self, filters=tuple(sorted(chosen, key=_order)), page=1, upto=None)

    def less(self, facet: str, value: str) -> Self:
        """The same without one value of a filter, from page 1."""
        return self.with_filter(facet, *(said for said in self.values(facet) if said != value))

    def without(self, facet: str, value: str) -> Self:
        """The query without the lines that have this value, from page 1."""
        excluded = tuple(sorted({*self.excluded, (facet, value)}, key=_order))
        return replace(self, excluded=excluded, page=1, upto=None)

    def again_with(self, facet: str, value: str) -> Self:
        """The query with the lines that `without` left out, from page 1."""
        excluded = tuple(pair for pair in self.excluded if pair != (facet, value))
        return replace(self, excluded=excluded, page=1, upto=None)

    @property
    def without_filters(self) -> Self:
        """The query without any filter, from page 1."""
        return replace(self, filters=(), excluded=(), page=1, upto=None)

    def during(self, since: Instant | None, until: Instant | None) -> Self:
        """The query over another period, from page 1."""
        return replace(self, since=since, until=until, period="", page=1, upto=None)

    def during_last(self, period: str) -> Self:
        """The same over a period of PERIODS, whose beginning `read` computes; on page 1."""
        return replace(self.during(None, None), period=period)

    def before(self, now: Instant) -> Self | None:
        """The same over the period before, which is as long; None if this one has no beginning."""
        if self.since is None:
            return None
        length = (self.until or now) - self.since
        earlier = self.during(self.since - length, self.since)
        return replace(earlier, view=View())

    def on_page(self, page: int, upto: int) -> Self:
        """Another page of the same result: `upto` keeps lines that came later out of it."""
        return replace(self, page=page, upto=upto)

    def seen_as(self, **view: Any) -> Self:
        """The same lines in another view, from page 1."""
        return replace(self, view=replace(self.view, **view), page=1, upto=None)

    def sorted_by(self, name: str) -> Self:
        """The same lines by a column, from page 1: descending at first, then the other way round."""
        return self.seen_as(sort=name if self.view.sort == f"-{name}" else f"-{name}")

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The parameters of a URL's query, without those that have their default; the inverse of `read`."""
        said = {
            "period": self.period,
            "since": self.since and not self.period and as_typed(self.since, self.view.zone),
            "until": self.until and as_typed(self.until, self.view.zone),
            "about": None if self.about is About.TRAFFIC else self.about.value,
        }
        pages = {"page": None if self.page == 1 else str(self.page), "upto": self.upto}
        return [
            *((key, str(value)) for key, value in said.items() if value),
            *self.filters,
            *((NOT + facet, value) for facet, value in self.excluded),
            *self.view.pairs,
            *((key, str(value)) for key, value in pages.items() if value is not None),
        ]

    @property
    def encoded(self) -> str:
        """The query as it stands behind `?` in a URL, percent-encoded."""
        return urlencode(self.pairs)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters as the audit log records them: several values of one, with commas between them."""
        said: dict[str, list[str]] = {}
        for key, value in self.pairs:
            said.setdefault(key, []).append(value)
        return {key: ", ".join(values) for key, values in said.items()}

    def chosen(self) -> Chosen:
        """The lines that meet the filters, as SQL."""
        terms = ["readable", "traffic" if self.about is About.TRAFFIC else "NOT traffic"]
        period = conditions(Filter(since=self.since, until=self.until), lambda name: f"${name}")
        terms.append(period.where)
        parameters: dict[str, Any] = dict(period.said)
        met: dict[str, list[str]] = {}
        for number, (facet, value) in enumerate(self.filters):
            sql, said = _condition(facet, value, f"is_{number}")
            met.setdefault(facet, []).append(f"({sql})")
            parameters |= said
        terms += [f"({' OR '.join(each)})" for each in met.values()]
        for number, (facet, value) in enumerate(self.excluded):
            sql, said = _condition(facet, value, f"not_{number}")
            terms.append(f"NOT coalesce({sql}, false)")
            parameters |= said
        if self.upto is not None:
            terms.append("n <= $upto")
            parameters["upto"] = self.upto
        return Chosen(" AND ".join(terms), parameters)


def as_typed(at: Instant, zone: str = UTC) -> str:
    """An instant in the format of `<input type="datetime-local">`: the time of a zone, without saying which.

    The second time that a clock shows an hour is written in UTC, with a Z.
    """
    local = at.to_tz(zone).to_plain()
    if local.assume_tz(zone, disambiguation="compatible").to_instant() != at:
        return at.format_iso()
    text = local.format_iso(unit="microsecond").removesuffix(".000000")
    return text[:16] if text.endswith(":00") else text


def _condition(facet: str, value: str, prefix: str) -> tuple[str, dict[str, Value]]:
    """SQL for lines that have this value of a facet, and its parameters."""
    if facet == "client":
        met = conditions(Filter(client=_client(value)), lambda name: f"${prefix}_{name}")
        return met.where, {f"{prefix}_{name}": said for name, said in met.said.items()}
    if facet == "name":
        name = f"${prefix}"
        return f'("name" = {name} OR ends_with("name", \'.\' || {name}) OR "target" = {name})', {prefix: value}
    if facet == "url_path":
        return f'"url_path" = ${prefix} OR starts_with("url_path", ${prefix} || \'/\')', {prefix: value.rstrip("/")}
    if facet == "user_agent":
        return f'strpos(lower("user_agent"), lower(${prefix})) > 0', {prefix: value}
    return f'"{facet}" = ${prefix}', {prefix: value}


def _client(value: str) -> Any:
    try:
        return client_filter(value)
    except ValueError:  # as some other version, or another hand, may have named it
        return value


def _order(pair: tuple[str, str]) -> tuple[int, str]:
    return list(FACETS).index(pair[0]), pair[1]


MAX_KEY: Final = 64
"""Most characters of an unknown parameter's name that are repeated."""
MAX_VALUE: Final = 1024
"""Longest text of a filter; the log keeps none that is longer."""
MAX_DIGITS: Final = 15
_ALMOST_ADDRESS: Final = re.compile(r"[0-9a-f:.]*[:.][0-9a-f:.]*(/.*)?|.*/[0-9]*", re.IGNORECASE)
"""What was meant as an address or a prefix; a pseudonym is neither."""

SEVERAL: Final = ("client", "name", "destination_ip")
"""Facets whose text may be several values, with commas between them."""
KNOWN: Final = frozenset({
    "since", "until", "period", "about", "zone", "sort", "column", "page", "upto", "by", "after",
    "down", "across", *FACETS, *(NOT + facet for facet in FACETS),
})  # fmt: skip
"""The parameters of a URL's query."""

type Problems = dict[str, str]
"""What is wrong, by parameter."""


def read(said: Iterable[tuple[str, str]], now: Instant) -> tuple[LogQuery, Problems]:
    """What the pairs of a query ask for, and what is wrong; invalid parameters are left out."""
    pairs = [(key, value.strip()) for key, value in said]
    texts = dict(pairs)
    problems: Problems = {key[:MAX_KEY]: "There is no such parameter." for key, _ in pairs if key not in KNOWN}
    sort, columns = texts.get("sort", ""), {value for key, value in pairs if key == "column"}
    view = View(
        zone=_zone(texts.get("zone", ""), problems),
        sort=sort if sort.removeprefix("-") in SORTS else NEWEST,
        columns=tuple(name for name in COLUMNS if name in columns) or USUAL,
    )
    query = replace(_over_time(texts, view.zone, now, problems), view=view)
    for facet in FACETS:
        typed = [text for key, text in pairs if key == facet]
        parts = [part.strip() for text in typed for part in (text.split(",") if facet in SEVERAL else (text,))]
        query = query.with_filter(facet, *filter(None, (_value(facet, part, problems) for part in parts)))
    for key, text in pairs:
        facet = key.removeprefix(NOT)
        if key != facet and facet in FACETS and (value := _value(facet, text, problems)):
            query = query.without(facet, value)
    about = About.TOKGATE if texts.get("about") == About.TOKGATE else About.TRAFFIC
    page = min(MAX_PAGE, max(1, _number(texts, "page") or 1))
    return replace(query, about=about, page=page, upto=_number(texts, "upto")), problems


def _zone(text: str, problems: Problems) -> str:
    try:
        Instant.from_timestamp(0).to_tz(text or UTC)
    except (TimeZoneNotFoundError, ValueError):
        problems["zone"] = "This is no time zone: UTC, Europe/Brussels."
        return UTC
    return text or UTC


def _over_time(texts: Mapping[str, str], zone: str, now: Instant, problems: Problems) -> LogQuery:
    """The period: what was typed goes before the name of one that ends now."""
    since, until = (_instant(texts, edge, zone, problems) for edge in ("since", "until"))
    if since is not None and until is not None and since >= until:
        problems["until"] = "This has to be after the beginning."
        until = None
    period = texts.get("period", "")
    if period and period not in PERIODS:
        problems["period"] = f"This is none of {', '.join(PERIODS)}."
    if since is None and until is None and period in PERIODS:
        return LogQuery(since=now.round("minute", mode="ceil") - PERIODS[period][1], period=period)
    return LogQuery(since=since, until=until)


def _value(facet: str, text: str, problems: Problems) -> str:
    """The value of a facet as the log has it; empty if there is none, or none that makes sense."""
    if len(text) > MAX_VALUE or not text.isprintable():
        problems[facet] = "No line of the log says that."
        return ""
    if facet == "client" and _ALMOST_ADDRESS.fullmatch(text) is not None:
        try:
            client_filter(text)
        except ValueError:
            problems[facet] = "This is no address and no prefix: 192.0.2.7, 192.0.2.0/24, 2001:db8::/48."
            return ""
    if facet == "name":
        name = normalise(text)
        return name.value if isinstance(name, DomainName) else text
    return text


def _instant(texts: Mapping[str, str], edge: str, zone: str, problems: Problems) -> Instant | None:
    text = texts.get(edge, "")
    if not text:
        return None
    try:
        moment = read_moment(text)
        if isinstance(moment, Instant):
            return moment
        return moment.assume_tz(zone, disambiguation="compatible").to_instant()
    except ValueError:
        problems[edge] = "This is no time: 2023-03-10T08:00, in the zone that is chosen, or with an offset."
        return None


def _number(texts: Mapping[str, str], key: str) -> int | None:
    text = texts.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None
