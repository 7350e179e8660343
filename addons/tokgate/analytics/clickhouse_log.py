"""A log in ClickHouse: for `tokgate log` the views of LogDatabase, for the review page the table of Index.

The tables are those of deploy/siem/clickhouse, and each question is asked of the server.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from time import monotonic
from typing import Any, Final

from tokgate.analytics.clickhouse_server import Server, ServerAddress
from tokgate.analytics.columns import COLUMNS, KEPT
from tokgate.analytics.index import MAX_RELATED, QUERY_SECONDS, IndexState
from tokgate.analytics.sql import Engine, Row, conditions, quoted, rfc3339
from tokgate.blocklog.integrity.evidence import NoProof
from tokgate.blocklog.read.reader import Filter, Line
from tokgate.blocklog.records.record import text_at

_COMMAND_SECONDS: Final = 600
"""A query is given up after so many seconds."""


class ClickHouseLog(Server, Engine):
    """A log in ClickHouse. The views `events` and `wanted` have what LogDatabase's have; `file` is the shipper's.

    Lines that hold no record are in a table of their own, without their numbers.
    """

    def __init__(self, address: ServerAddress, wanted: Filter | None = None) -> None:
        """Raises LogError if the server can't be reached, or doesn't let this user in."""
        chosen = conditions(wanted if wanted is not None else Filter())
        names = ", ".join(quoted(column.name) for column in COLUMNS)
        records = f'SELECT {names}, "file", "readable" FROM {address.database}.records'
        relations = {
            "events": f'SELECT {names}, "file" FROM {address.database}.events WHERE {chosen.where}',
            "wanted": f"{records} WHERE readable AND ({chosen.where}) UNION ALL {records} WHERE NOT readable",
        }
        super().__init__(address, relations, chosen.said, session=True, seconds=_COMMAND_SECONDS)

    def unreadable_counts(self) -> dict[str, int]:
        """How many lines of each file hold no record."""
        counted = "SELECT coalesce(\"file\", '-'), count(*) FROM wanted WHERE NOT readable GROUP BY 1 ORDER BY 1"
        return dict(self.ask(counted))


STEP_SECONDS: Final = 5.0
"""Results are kept for so long."""
SETTLED_SECONDS: Final = 5
"""So old is a line before a page shows it: an insert may take as long, and lines are numbered by when it began."""
_NUMBERED: Final = 1 << 16
"""Numbers of lines that came in one second."""
_FROM_COLUMNS: Final = "from ClickHouse's columns"


class ClickHouseIndex(Server):
    """The table `lines` of Index. Its `n` grows with the second in which a line was inserted; `rowid` is its number."""

    found: Final = True

    def __init__(self, address: ServerAddress) -> None:
        """Raises LogError if the server can't be reached, or doesn't let this user in."""
        relations = {"lines": _lines(address.database), "whole": f"SELECT * FROM {address.database}.events"}
        super().__init__(address, relations, {}, session=False, seconds=QUERY_SECONDS)

    @property
    def state(self) -> IndexState:
        """Nothing waits to be read. The version changes with time."""
        return IndexState(int(monotonic() / STEP_SECONDS), 0, 0, ())

    def catch_up(self, seconds: float) -> IndexState:
        """As `state`: there is nothing to read ahead."""
        return self.state

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run tokgate's own SQL over `lines`. Raises LogError."""
        return list(self.answer(sql, parameters).rows)

    def line(self, event: str) -> Line | None:
        """The record with that `event.id`, as far as columns hold it. Raises LogError."""
        found = self._lines("event_id = TRY_CAST($event AS UUID)", {"event": event}, 1)
        return found[0] if found else None

    def related(self, line: Line) -> list[Line]:
        """The other lines about its connection, or its repeats. Raises LogError."""
        keys = {
            "event": text_at(line.record, "event", "id"),
            "connection": text_at(line.record, "tokgate", "connection"),
            "repeated": text_at(line.record, "tokgate", "repeats", "of"),
        }
        ids = "(TRY_CAST($event AS UUID), TRY_CAST($repeated AS UUID))"
        chosen = f"(connection = $connection OR event_id IN {ids} OR repeats_of IN {ids})"
        said = {key: value or "" for key, value in keys.items()}
        return self._lines(f"{chosen} AND event_id <> TRY_CAST($event AS UUID)", said, MAX_RELATED)

    def prove(self, event: str) -> dict[str, Any]:
        """Raises NoProof: nothing that ClickHouse holds can be verified."""
        raise NoProof("ClickHouse holds columns and no lines: prove it where the lines are, with tokgate log prove")

    def _lines(self, chosen: str, said: Mapping[str, Any], most: int) -> list[Line]:
        found = self.answer(f'SELECT * FROM whole WHERE {chosen} ORDER BY "time", "sequence" LIMIT {most}', said)
        return [_line(dict(zip(found.columns, row, strict=True))) for row in found.rows]


def _lines(database: str) -> str:
    kept = [column for column in COLUMNS if column.name in KEPT]
    there = ", ".join(
        "CASE WHEN NOT traffic THEN message END AS message" if c.name == "message" else quoted(c.name) for c in kept
    )
    unreadable = {"traffic": "false", "events": "1"}  # what columns have for a line that holds no record
    absent = ", ".join(f"{unreadable.get(c.name, 'NULL')} AS {quoted(c.name)}" for c in kept)
    second = f"toInt64(toUnixTimestamp(received)) * {_NUMBERED}"
    number = f"{second} + coalesce(sequence, 0) % {_NUMBERED}"
    settled = f"received < now() - INTERVAL {SETTLED_SECONDS} SECOND"
    return (
        f"SELECT {there}, file, true AS readable, {number} AS n, coalesce(sequence, 0) AS rowid "
        f"FROM {database}.events WHERE {settled} "
        f"UNION ALL SELECT {absent}, file, false AS readable, {second} AS n, 0 AS rowid FROM {database}.unreadable"
    )


def _line(row: Mapping[str, Any]) -> Line:
    """A record made of columns: it lacks the fields that no column has."""
    record: dict[str, Any] = {}
    for column in COLUMNS:
        value = row[column.name]
        path = column.path or {"client": ("source", "address")}.get(column.name, ())
        if value in (None, "") or not path:
            continue
        inner = record
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        text = rfc3339(value) if isinstance(value, datetime) else value
        inner[path[-1]] = json.loads(text) if column.type == "JSON" else text
    if row["repeats_of"]:
        record["tokgate"]["repeats"] |= {
            "count": row["events"], "first": rfc3339(row["first_time"]), "last": rfc3339(row["last_time"]),
        }  # fmt: skip
    return Line(row["file"] or _FROM_COLUMNS, 0, record, json.dumps(record).encode())
