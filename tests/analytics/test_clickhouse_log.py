"""A log in ClickHouse: summaries, reports and queries say the same as DuckDB does of the files."""

import dataclasses
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from whenever import Instant

from tokgate.analytics.clickhouse_log import ClickHouseLog
from tokgate.analytics.columns import listing
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.report.report_data import case_records, collect
from tokgate.analytics.sql import LogError
from tokgate.analytics.summary import By, summarise
from tokgate.blocklog.read.reader import Filter, client_filter

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

pytestmark = pytest.mark.skipif(
    find_spec("chdb") is None and os.environ.get("TOKGATE_REQUIRE_E2E") != "1",
    reason="needs chdb, some 500 MB: make setup-clickhouse",
)
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
    assert there[0] == here[0]
    summary = here[0]
    assert summary["unreadable"] == 2
    assert (summary["events"] > 0) == (wanted.ban is None)
    assert wanted != Filter() or {row["verdict"] for row in summary["tables"][By.VERDICT]["rows"]} == {
        "block", "warn", "monitor", "allow",
    }  # fmt: skip


def test_what_is_cut_off_is_the_same(days: list[Path], clickhouse: "ClickHouse") -> None:
    """The rows that are shown, and the count of those that are not."""
    with LogDatabase(days) as database, ClickHouseLog(clickhouse.address) as log:
        assert summarise(log, top=2)[0] == summarise(database, top=2)[0]


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
