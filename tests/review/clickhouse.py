"""A ClickHouse inside the test's process, by chdb: the shipped tables, lines inserted as a shipper would, questions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chdb.session import Session

from tokgate.blocklog.reader import Junk
from tokgate.review.clickhouse import clickhouse_schema, statements
from tokgate.review.sql import Answer, Progress, Row

_CONVERT: Final = {"DateTime64(6, 'UTC')": datetime.fromisoformat, "UInt64": int, "Int64": int}


class ClickHouse:
    """Answers the questions of a summary as `Review` does."""

    damage: Sequence[Junk] = ()

    def __init__(self, folder: Path) -> None:
        self._session: Final = Session(str(folder))
        for statement in statements(clickhouse_schema()):
            self.do(statement)
        self.do("SYSTEM STOP TTL MERGES")  # the samples are of 2023, and would be gone at once

    def close(self) -> None:
        """End it: a process has one at a time."""
        self._session.close()

    def take(self, *files: Path) -> None:
        """Insert the lines of files, packed ones too."""
        for path in files:
            self.do(f"INSERT INTO tokgate.lines SELECT line, _file FROM file('{path}', 'LineAsString', 'line String')")

    def do(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> None:
        """A statement without rows."""
        self._session.query(sql)

    def answer(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> Answer:
        """Rows with the types that DuckDB gives."""
        text = str(self._session.query(sql, "JSONCompactEachRowWithNamesAndTypes"))
        names, types, *rows = (json.loads(line) for line in text.splitlines())
        plain = [kind.removeprefix("LowCardinality(").removeprefix("Nullable(").rstrip(")") for kind in types]
        plain = ["DateTime64(6, 'UTC')" if kind.startswith("DateTime64") else kind for kind in plain]
        return Answer(tuple(names), tuple(types), _rows(plain, rows))

    def one(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> Row:
        """The one row of an answer."""
        (row,) = self.answer(sql).rows
        return row

    def unreadable(self, files: Iterable[str], limit: int) -> Iterable[Junk]:
        """Which lines they are, ClickHouse can't tell: it has them in a table of their own."""
        return ()


def _rows(types: list[str], rows: list[list[Any]]) -> Iterator[Row]:
    for row in rows:
        yield tuple(
            value if value is None else _CONVERT.get(kind, lambda same: same)(value)
            for kind, value in zip(types, row, strict=True)
        )
