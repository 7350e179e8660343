"""Reads from a URL's query what a page shows, and says what makes no sense in it. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from whenever import Instant, TimeZoneNotFoundError

from tokgate.blocklog.read.reader import client_filter
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.text import read_moment
from tokgate.webui.log_query import (
    COLUMNS,
    FACETS,
    MAX_PAGE,
    NEWEST,
    NOT,
    PERIODS,
    REFRESHES,
    SORTS,
    USUAL,
    UTC,
    About,
    LogQuery,
    View,
)

MAX_VALUE: Final = 1024
"""Longest text of a filter; the log keeps none that is longer."""
MAX_DIGITS: Final = 15
_ALMOST_ADDRESS: Final = re.compile(r"[0-9a-f:.]*[:.][0-9a-f:.]*(/.*)?|.*/[0-9]*", re.IGNORECASE)
"""What was meant as an address or a prefix; a pseudonym is neither."""

type Problems = dict[str, str]
"""What is wrong, by parameter."""


def read(said: Iterable[tuple[str, str]], now: Instant) -> tuple[LogQuery, Problems]:
    """What the pairs of a query ask for, and what is wrong; invalid parameters are left out."""
    pairs = [(key, value.strip()) for key, value in said]
    texts = dict(pairs)
    problems: Problems = {}
    view = _view(pairs, texts, problems)
    query = replace(_over_time(texts, view.zone, now, problems), view=view)
    for facet in FACETS:
        if value := _value(facet, texts.get(facet, ""), problems):
            query = query.with_filter(facet, value)
    for key, text in pairs:
        facet = key.removeprefix(NOT)
        if key != facet and facet in FACETS and (value := _value(facet, text, problems)):
            query = query.without(facet, value)
    about = About.TOKGATE if texts.get("about") == About.TOKGATE else About.TRAFFIC
    page = min(MAX_PAGE, max(1, _number(texts, "page") or 1))
    return replace(query, about=about, page=page, upto=_number(texts, "upto")), problems


def _view(pairs: Iterable[tuple[str, str]], texts: Mapping[str, str], problems: Problems) -> View:
    sort = texts.get("sort", "")
    chosen = {value for key, value in pairs if key == "column"}
    refresh = _number(texts, "refresh")
    return View(
        zone=_zone(texts.get("zone", ""), problems),
        sort=sort if sort.removeprefix("-") in SORTS else NEWEST,
        columns=tuple(name for name in COLUMNS if name in chosen) or USUAL,
        dense=texts.get("dense") == "1",
        refresh=refresh if refresh in REFRESHES else 0,
    )


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
