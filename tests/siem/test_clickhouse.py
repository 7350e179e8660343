"""ClickHouse: the shipped tables take a day's log and say the same as DuckDB, row by row and in every summary."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from labs.logs import write
from labs.siem import SIEM, needs_chdb, statements
from tokgate.analytics.columns import COLUMNS
from tokgate.analytics.engine import LogDatabase
from tokgate.blocklog.records.record import TRAFFIC

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse


SCHEMA = (SIEM / "clickhouse/schema.sql").read_text(encoding="utf-8")
ROOT = Path(__file__).parents[2]
EVERY = ", ".join(f'"{column.name}"' for column in COLUMNS)


def test_the_tables_have_every_column() -> None:
    """In the order of the view `events`, in the table of records and in what is made of a line; every action."""
    table, _, after = SCHEMA.partition("TO tokgate.events AS")
    view = after.partition("FROM")[0]
    names = [column.name for column in COLUMNS]
    assert re.findall(r'^    "(\w+)" ', table, re.MULTILINE)[: len(names)] == names
    assert re.findall(r' AS "(\w+)",$', view, re.MULTILINE) == names
    assert ", ".join(f"'{action}'" for action in sorted(TRAFFIC)) in view


@needs_chdb
def test_every_row_is_the_same(days: list[Path], clickhouse: "ClickHouse") -> None:
    """All columns of all records, by their names in docs/log-queries.md."""
    with LogDatabase(days) as database:
        here = [_comparable(row) for row in database.answer(f"SELECT {EVERY} FROM events ORDER BY event_id").rows]
    there = clickhouse.answer(f"SELECT {EVERY} FROM tokgate.events ORDER BY toString(event_id)").rows
    assert [_comparable(row) for row in there] == here


@needs_chdb
def test_the_counts_kept_add_up(days: list[Path], clickhouse: "ClickHouse") -> None:
    """The materialised views tell the same as the records: by hour with phases, and by day with clients."""
    keys = "gateway, network, ban, service, phase, verdict, action, signal"
    by_hour = f"SELECT date_trunc('hour', time), {keys}, sum(events), count(DISTINCT client) FROM events"
    by_day = "SELECT client, target, ban, network, verdict, sum(events), min(first_time), max(last_time) FROM events"
    with LogDatabase(days) as database:
        hours = sorted(database.answer(f"{by_hour} WHERE traffic GROUP BY ALL").rows, key=str)
        clients = sorted(database.answer(f"{by_day} WHERE traffic GROUP BY ALL").rows, key=str)
    assert {row[5] for row in hours} == {"block", "warn", "monitor"}
    kept = f"SELECT toDateTime64(hour, 6, 'UTC'), {keys}, sum(events), uniqMerge(clients) FROM tokgate.hourly"
    assert sorted(clickhouse.answer(f"{kept} GROUP BY ALL").rows, key=str) == hours
    kept = "SELECT client, target, ban, network, verdict, sum(events), min(first), max(last) FROM tokgate.daily"
    assert sorted(clickhouse.answer(f"{kept} GROUP BY ALL").rows, key=str) == clients


@needs_chdb
def test_the_policy_in_force_on_each_gateway(clickhouse: "ClickHouse") -> None:
    """A fleet's question: who runs which policy, and who has not been heard."""
    found = clickhouse.answer("SELECT gateway, policy, version FROM tokgate.gateways ORDER BY gateway").rows
    assert list(found) == [(f"gw00{n}.example.org", "5f1c0a9be2d4", "0.1.0") for n in range(2)]


def documented() -> list[str]:
    """The statements in docs/fleet.md and in the README of the tables."""
    texts = [
        (ROOT / name).read_text(encoding="utf-8") for name in ("docs/fleet.md", "deploy/siem/clickhouse/README.md")
    ]
    blocks = [block for text in texts for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL)]
    return [statement for block in blocks for statement in statements(block.rstrip() + "\n")]


@needs_chdb
@pytest.mark.parametrize("statement", documented())
def test_documented_questions_have_answers(clickhouse: "ClickHouse", statement: str) -> None:
    clickhouse.do(
        "CREATE TABLE IF NOT EXISTS default.kept_checkpoints (chain String, sequence Int64, hash String, at DateTime) "
        "ENGINE = Memory"
    )
    assert list(clickhouse.answer(statement.rstrip(";")).rows) is not None


def _comparable(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """JSON by its content."""
    return tuple(json.loads(v) if isinstance(v, str) and v[:1] in ("{", "[") else v for v in row)


@needs_chdb
def test_a_complete_log_misses_nothing_at_midnight(tmp_path: Path, clickhouse: "ClickHouse") -> None:
    """Records whose times are out of order over midnight leave no gap; one that is lost between days is missed."""
    times = ["2098-04-01T23:59:59", "2098-04-02T00:00:01", "2098-04-01T23:59:58", "2098-04-02T00:00:02"]
    times.append("2098-04-03T00:00:00")
    records = [
        {
            "@timestamp": f"{time}.000000Z",
            "event": {"id": str(uuid4()), "sequence": number, "hash": f"{number:064x}"},
            "observer": {"hostname": "midnight.example.org"},
            "tokgate": {"chain": chain},
        }
        for chain, lost in (("midnight", None), ("lossy", 4))
        for number, time in enumerate(times, 1)
        if number != lost
    ]
    write(tmp_path / "both.ndjson", records)
    clickhouse.take(tmp_path / "both.ndjson")
    found = "SELECT toString(day), missing FROM tokgate.arrival WHERE chain = '{}' ORDER BY day"
    for chain, missing in (("midnight", 0), ("lossy", 1)):
        rows = list(clickhouse.answer(found.format(chain)).rows)
        assert rows == [("2098-04-01", 0), ("2098-04-02", 0), ("2098-04-03", missing)]
