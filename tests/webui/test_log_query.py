"""What is looked at: from URLs and back, and as SQL in which nothing that was typed stands."""

import re
from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import at, present
from tokgate.webui import log_query
from tokgate.webui.log_query import (
    COLUMNS,
    FACETS,
    MAX_PAGE,
    PERIODS,
    SEVERAL,
    SORTS,
    USUAL,
    About,
    LogQuery,
    View,
    as_typed,
)

NOW = at("2023-03-20T12:00:30Z")
ZONES = ("UTC", "Europe/Brussels", "America/New_York", "Asia/Kathmandu")
values = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
moments = st.integers(0, 2_000_000_000).map(Instant.from_timestamp)


def read(said: Iterable[tuple[str, str]]) -> tuple[LogQuery, dict[str, str]]:
    return log_query.read(said, NOW)


@st.composite
def views(draw: st.DrawFn) -> View:
    """Any view that a page can link to."""
    chosen = draw(st.sets(st.sampled_from(list(COLUMNS))))
    return View(
        zone=draw(st.sampled_from(ZONES)),
        sort=draw(st.sampled_from(["", "-"])) + draw(st.sampled_from(list(SORTS))),
        columns=tuple(name for name in COLUMNS if name in chosen) or USUAL,
    )


@st.composite
def queries(draw: st.DrawFn) -> LogQuery:
    """Any query that a page can link to."""
    since = draw(st.none() | moments)
    until = draw(st.none() | moments)
    if since is not None and until is not None and since >= until:
        until = None
    query = LogQuery(about=draw(st.sampled_from(About)), view=draw(views())).during(since, until)
    if draw(st.booleans()):
        (name, (_, length)) = draw(st.sampled_from(list(PERIODS.items())))
        query = replace(query, since=NOW.round("minute", mode="ceil") - length, until=None, period=name)
    free = [facet for facet in FACETS if facet not in SEVERAL]
    for facet in draw(st.sets(st.sampled_from(free))):
        query = query.with_filter(facet, *draw(st.lists(values, min_size=1, max_size=3)))
    for facet in draw(st.lists(st.sampled_from(free))):
        query = query.without(facet, draw(values))
    return query.on_page(draw(st.integers(1, MAX_PAGE)), draw(st.integers(1, 10**12)))


@given(queries())
def test_a_link_leads_to_the_query_that_made_it(query: LogQuery) -> None:
    assert read(parse_qsl(query.encoded, keep_blank_values=True)) == (query, {})


@given(st.dictionaries(st.sampled_from([*FACETS, *(f"not-{facet}" for facet in FACETS)]), values))
def test_nothing_that_was_typed_stands_in_the_sql(said: dict[str, str]) -> None:
    """It is the same for any values of the same kind; they are parameters."""
    typed, _ = read(said.items())
    kinds = [*(facet for facet, _ in typed.filters), *(f"not-{facet}" for facet, _ in typed.excluded)]
    plain, _ = read(
        [(facet, f"x{number}") for number, (facet, _) in enumerate(typed.filters)]
        + [(key, "x") for key in said if key in kinds and key not in FACETS]
    )
    clients = [value for facet, value in (*typed.filters, *typed.excluded) if facet == "client"]
    if not any("/" in value or ":" in value or "." in value for value in clients):
        assert typed.chosen().where == plain.chosen().where
    assert all(re.fullmatch(r"(is|not)_[0-9]+(_client(_first|_last)?)?", key) for key in typed.chosen().said)


def test_several_values_of_a_filter() -> None:
    """A line has to have one of them; of addresses and names several may be typed into one field."""
    query, problems = read([("client", "192.0.2.7, 192.0.2.9"), ("client", "carol"), ("ban", "b"), ("ban", "a, c")])
    assert problems == {}
    assert query.values("client") == ["192.0.2.7", "192.0.2.9", "carol"]
    assert query.values("ban") == ["a, c", "b"]
    assert " OR " in query.chosen().where
    assert query.less("client", "carol").values("client") == ["192.0.2.7", "192.0.2.9"]
    assert query.with_filter("ban", "x").values("ban") == ["x"]
    assert query.with_filter("ban").values("ban") == []
    assert query.parameters["client"] == "192.0.2.7, 192.0.2.9, carol"


def test_what_is_no_parameter_is_told() -> None:
    """A filter that is misspelt would look like a log in which everybody did it."""
    query, problems = read([("clinet", "192.0.2.7"), ("x" * 500, "y"), ("period", "1y")])
    assert query == LogQuery()
    assert list(problems) == ["clinet", "x" * 64, "period"]


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "10.0.0", "192.0.2.300", "2001:db8::/129", "2001:db8:::1", "office/24"]
)
def test_a_mistyped_address_is_told(text: str) -> None:
    """An empty page would say that the client did nothing."""
    for key in ("client", "not-client"):
        query, problems = read([(key, text)])
        assert (list(problems), query.filters, query.excluded) == (["client"], (), ())


@pytest.mark.parametrize("text", ["192.0.2.7", "192.0.2.0/24", "2001:db8::7", "p-3fa2-7kq0x", "carol's phone"])
def test_clients_are_addresses_prefixes_or_pseudonyms(text: str) -> None:
    """Whatever the log may name them."""
    assert read([("client", text)]) == (LogQuery().with_filter("client", text), {})


@pytest.mark.parametrize(
    ("text", "zone", "meant"),
    [
        ("2023-03-26T01:59", "Europe/Brussels", "2023-03-26T00:59:00Z"),
        ("2023-03-26T03:00", "Europe/Brussels", "2023-03-26T01:00:00Z"),
        ("2023-10-29T02:30", "Europe/Brussels", "2023-10-29T00:30:00Z"),
        ("2023-10-29T01:30:00Z", "Europe/Brussels", "2023-10-29T01:30:00Z"),
        ("2023-03-10T08:00-05:00", "Europe/Brussels", "2023-03-10T13:00:00Z"),
        ("2023-03-10T08:00:30", "", "2023-03-10T08:00:30Z"),
        ("2023-03-10", "", "2023-03-10T00:00:00Z"),
    ],
)
def test_times_are_those_of_the_zone(text: str, zone: str, meant: str) -> None:
    """UTC without one; also where clocks are set. What is shown can be typed again."""
    in_zone = [("zone", zone)] * bool(zone)
    query, problems = read([("since", text), *in_zone])
    assert (query.since, problems) == (at(meant), {})
    assert read([("since", as_typed(at(meant), zone or "UTC")), *in_zone])[0].since == at(meant)


def test_a_zone_that_is_none() -> None:
    """Is told, and times stay UTC."""
    for text in ("Europe/Brussel", "../../etc/passwd", "x y"):
        query, problems = read([("zone", text)])
        assert (list(problems), query.view.zone) == (["zone"], "UTC")


def test_a_period_that_ends_now_moves() -> None:
    """A saved view of the last day shows the last day, whenever it is opened; typed times go before."""
    query, _ = read([("period", "24h")])
    assert (query.since, query.until) == (at("2023-03-19T12:01:00Z"), None)
    assert query.encoded == "period=24h"
    typed, _ = read([("period", "24h"), ("since", "2023-03-01")])
    assert (typed.period, typed.since) == ("", at("2023-03-01T00:00:00Z"))
    assert read([("period", "decade")])[0] == LogQuery()


def test_the_period_before() -> None:
    """As long as this one, with the same filters."""
    query, _ = read([("since", "2023-03-10"), ("until", "2023-03-13"), ("ban", "b")])
    before = present(query.before(NOW))
    assert (before.since, before.until) == (at("2023-03-07T00:00:00Z"), at("2023-03-10T00:00:00Z"))
    assert before.filters == query.filters
    open_ended = present(read([("since", "2023-03-20T11:00")])[0].before(NOW))
    assert open_ended.since == at("2023-03-20T09:59:30Z")
    assert LogQuery().before(NOW) is None


def test_a_heading_turns_the_order_round() -> None:
    """Descending at first, then the other way."""
    once = LogQuery().sorted_by("client")
    assert (once.view.sort, once.sorted_by("ban").view.sort) == ("-client", "-ban")
    assert once.sorted_by("client").view.sort == "client"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([("sort", "events")], View(sort="events")),
        ([("sort", "-client")], View(sort="-client")),
        ([("sort", 'n"; DROP TABLE lines; --')], View()),
        ([("column", "ban"), ("column", "client"), ("column", "secret")], View(columns=("client", "ban"))),
    ],
)
def test_views_are_from_closed_sets(said: list[tuple[str, str]], expected: View) -> None:
    """Nothing else reaches the SQL, or makes browsers load a page again and again."""
    assert read(said)[0].view == expected
    assert read(said)[0].view.order.count(";") == 0


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"since": "yesterday"}, "since"),
        ({"until": "2023-02-30"}, "until"),
        ({"until": "0001-01-01"}, "until"),
        ({"since": "2023-03-10", "until": "2023-03-10"}, "until"),
        ({"ban": "x" * 2000}, "ban"),
        ({"network": "a\x00b"}, "network"),
        ({"client": "a\nb"}, "client"),
    ],
)
def test_what_makes_no_sense_is_told(said: dict[str, str], field: str) -> None:
    """By field, and left out."""
    query, problems = read(said.items())
    assert list(problems) == [field]
    assert field not in query.parameters


@pytest.mark.parametrize(
    ("text", "page"), [("0", 1), ("-3", 1), ("x", 1), ("", 1), ("7", 7), ("9" * 30, 1), ("99999", MAX_PAGE)]
)
def test_pages_have_bounds(text: str, page: int) -> None:
    """Whatever somebody writes into the address."""
    assert read([("page", text)])[0].page == page
