"""A log in ClickHouse: summaries, reports and queries say the same as DuckDB does of the files."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from whenever import Instant

from labs.siem import needs_chdb
from labs.waiting import until
from tokgate.analytics.clickhouse_log import ClickHouseLog
from tokgate.analytics.columns import listing
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.index import Index
from tokgate.analytics.report.report_data import case_records, collect
from tokgate.analytics.sql import LogError
from tokgate.analytics.summary import By, summarise
from tokgate.blocklog.integrity.evidence import NoProof
from tokgate.blocklog.read.reader import Filter, client_filter
from tokgate.webui import queries
from tokgate.webui.log_query import FACETS, About, LogQuery, View
from tokgate.webui.queries import Source

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

pytestmark = needs_chdb
NOW = Instant("2026-11-26T12:00:00Z")
FILTERS = {
    "everything": Filter(),
    "a network": Filter(client=client_filter("10.0.0.0/9")),
    "a network of IPv6": Filter(client=client_filter("2001:db8::/32")),
    "a client": Filter(client=client_filter("10.0.0.1")),
    "a name and those under it": Filter(name="tiktok.com"),
    "a period": Filter(since=Instant("2026-11-24T10:00:00.5Z"), until=Instant("2026-11-24T15:00:00Z")),
    "hostile text": Filter(ban="' OR 1=1 --\\", network="{x:String}", user="\x00\n"),
}


@pytest.mark.parametrize("wanted", FILTERS.values(), ids=FILTERS)
def test_the_summary_is_the_same(days: list[Path], clickhouse: "ClickHouse", wanted: Filter) -> None:
    """Counts with repeats, first and last times, unreadable lines and gaps, in every table, from the same SQL."""
    with LogDatabase(days, wanted) as database, ClickHouseLog(clickhouse.address, wanted) as log:
        here, there = summarise(database), summarise(log)
        assert summarise(log, top=2)[0] == summarise(database, top=2)[0]
    assert there[0] == here[0]
    summary = here[0]
    assert summary["unreadable"] == 2
    assert (summary["events"] > 0) == (wanted.ban is None)
    assert wanted != Filter() or {row["verdict"] for row in summary["tables"][By.VERDICT]["rows"]} == {
        "block", "warn", "monitor", "allow",
    }  # fmt: skip


@pytest.mark.parametrize("wanted", [FILTERS["everything"], FILTERS["a network"], FILTERS["hostile text"]])
def test_the_report_is_the_same(days: list[Path], clickhouse: "ClickHouse", wanted: Filter) -> None:
    """Every figure of a report, also of a part of the log's time, and the records of a case file."""
    start, end = Instant("2026-11-24T06:30:00Z"), Instant("2026-11-24T20:00:00Z")
    with LogDatabase(days, wanted) as database, ClickHouseLog(clickhouse.address, wanted) as log:
        for since, until in ((None, None), (start, end)):
            here, there = collect(database, since, until, NOW), collect(log, since, until, NOW)
            differing = [
                field.name
                for field in dataclasses.fields(here)
                if field.name != "ban_rows" and getattr(here, field.name) != getattr(there, field.name)
            ]
            assert differing == []
            assert [_unordered(row) for row in there.ban_rows] == [_unordered(row) for row in here.ban_rows]
            assert case_records(log, there, 50) == case_records(database, here, 50)


def test_records_are_the_same(days: list[Path], clickhouse: "ClickHouse") -> None:
    """`tokgate log query` without SQL: the columns of a terminal, in order of time."""
    chosen = Filter(client=client_filter("10.0.0.1"))
    with LogDatabase(days, chosen) as database, ClickHouseLog(clickhouse.address, chosen) as log:
        here, there = (each.answer(listing(wide=False, limit=100)) for each in (database, log))
        assert (there.columns, there.types) == (here.columns, here.types)
        assert sorted(there.rows, key=str) == sorted(here.rows, key=str)


def test_sql_of_users(clickhouse: "ClickHouse") -> None:
    """It is ClickHouse's, sees the records that the filters accept, and can't write."""
    with ClickHouseLog(clickhouse.address, FILTERS["a client"]) as log:
        counted = "SELECT client, uniqExact(target) > 1 AS several FROM events GROUP BY client -- and no more"
        assert list(log.answer_query(counted).rows) == [("10.0.0.1", True)]
        for statement in ("DROP TABLE tokgate.events", "SELECT 1; DROP TABLE tokgate.events", "SELECT 1) x, (SELECT 2"):
            with pytest.raises(LogError, match=r"(?i)syntax error|no alias"):
                log.answer_query(statement)
        with pytest.raises(LogError, match="there_is_no_such"):
            log.answer_query("SELECT there_is_no_such FROM events")
    assert clickhouse.one("SELECT count() > 1000 FROM tokgate.events") == (True,)


def test_who_is_not_let_in(clickhouse: "ClickHouse") -> None:
    """The server's own words; the password is not among them."""
    with pytest.raises(LogError, match="Authentication failed") as raised:
        ClickHouseLog(dataclasses.replace(clickhouse.address, password="wrong-secret"))
    assert "wrong-secret" not in str(raised.value) + repr(clickhouse.address)


def test_lines_that_are_no_records(clickhouse: "ClickHouse") -> None:
    """They are counted by the file that the shipper named, and not shown: ClickHouse doesn't know their numbers."""
    with ClickHouseLog(clickhouse.address) as log:
        assert sum(log.unreadable_counts().values()) == 2
        assert list(log.unreadable(["x"], 5)) == []


def _unordered(row: dict[str, object]) -> dict[str, object]:
    return {key: sorted(map(str, value)) if isinstance(value, (list, tuple)) else value for key, value in row.items()}


# The review page over ClickHouse: each of its questions has the answer that it has over the files.

SINCE, UNTIL = Instant("2026-11-24T06:00:00Z"), Instant("2026-11-24T18:00:00Z")
QUERIES = {
    "all": LogQuery(),
    "about tokgate": LogQuery(about=About.TOKGATE),
    "a period in a zone": LogQuery(view=View(zone="Europe/Brussels"), since=SINCE, until=UNTIL),
    "a client and a name": LogQuery(filters=(("client", "10.0.0.0/9"), ("name", "tiktok.com"))),
    "left out": LogQuery(excluded=(("verdict", "block"), ("client", "10.0.0.1"), ("user", "nobody"))),
    "hostile": LogQuery(filters=(("client", "' OR 1=1 --"), ("ban", "\\' {x:String}"))),
}


@pytest.fixture(scope="module")
def here(days: list[Path]) -> Iterator[Index]:
    with closing(Index(days)) as index:
        while index.catch_up(5).waiting:
            pass
        yield index


@pytest.fixture(scope="module")
def there(clickhouse: "ClickHouse") -> Iterator[Source]:
    """The server, with no wait for lines that are being inserted."""
    from tokgate.analytics import clickhouse_log as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEP_SECONDS", 0.001)
        patch.setattr(module, "SETTLED_SECONDS", 0)
        with closing(module.ClickHouseIndex(clickhouse.address)) as index:
            total = "SELECT count() FROM tokgate.events"
            until(
                "lines are old enough to be shown",
                lambda: index.ask("SELECT count(*) FROM lines WHERE readable") == [clickhouse.one(total)],
            )
            yield index


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_answers_are_the_same(here: Index, there: Source, query: LogQuery) -> None:
    """The overview with its chart, rankings and coverage; a page of lines, one sorted otherwise, and the download."""
    assert queries.overview(there, query) == queries.overview(here, query)
    by_events = replace(query, view=replace(query.view, sort="-events"), page=2)
    assert queries.lines(there, query).total == queries.lines(here, query).total
    for ask in (_rows(query), _rows(by_events), lambda source: queries.newest(source, query, 20)):
        assert [row["events"] for row in ask(there)] == [row["events"] for row in ask(here)]
    assert sorted(queries.download(there, query), key=str) == sorted(queries.download(here, query), key=str)


def test_suggestions_are_the_same(here: Index, there: Source) -> None:
    for facet in FACETS:
        assert queries.choices(there, facet) == queries.choices(here, facet)


def test_an_event(here: Index, there: Source) -> None:
    """Its record as far as columns hold it, its neighbours, and what belongs to it. There is no proof."""
    client = LogQuery(filters=(("client", "10.0.0.1"),))
    events = [row["event_id"] for row in queries.newest(here, client, 8)]
    alike = 0
    for event in events:
        known, found = here.line(event), there.line(event)
        assert known is not None
        assert found is not None
        assert _within(found.record, known.record) == []
        ids = {line.record["event"]["id"] for line in here.related(known)}
        assert {line.record["event"]["id"] for line in there.related(found)} >= ids
        alike += queries.neighbours(there, event) == queries.neighbours(here, event)
    assert alike == len(events) == 8
    assert there.line("01862000-0000-7000-8000-00000000ffff") is None
    assert there.line("no id") is None
    with pytest.raises(NoProof):
        there.prove(events[0])


def test_new_lines_come_once(there: Source) -> None:
    """A live page asks again from the number of the last line that it has: none is left out, none comes twice."""
    last, seen = 0, list[str]()
    while rows := queries.after(there, LogQuery(), last, 500):
        seen += [row["event_id"] for row in rows]
        last = rows[-1]["n"]
    assert queries.after(there, LogQuery(), queries.last_line(there), 500) == []
    assert len(seen) == len(set(seen)) == queries.lines(there, LogQuery()).total


def _rows(query: LogQuery) -> Callable[[Source], list[dict[str, Any]]]:
    return lambda source: list(queries.lines(source, query).rows)


def _within(part: object, whole: object, path: str = "") -> list[str]:
    if isinstance(part, dict) and isinstance(whole, dict):
        return [place for key, value in part.items() for place in _within(value, whole.get(key), f"{path}.{key}")]
    if path == ".source.address" and whole is None:  # a column that comes from one of two fields
        return []
    return [] if part == whole else [f"{path}: {part!r} {whole!r}"]
