"""A log in ClickHouse for `tokgate log`: the views of LogDatabase, over the tables of export/clickhouse.py."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

from tokgate.analytics.clickhouse.address import ServerAddress
from tokgate.analytics.clickhouse.server import Server
from tokgate.analytics.columns import COLUMNS
from tokgate.analytics.filter_sql import conditions
from tokgate.analytics.sql import Progress, QueryResult, Row, quoted
from tokgate.blocklog.read.reader import Filter, Junk

QUERY_SECONDS: Final = 600
"""A query is given up after so many seconds."""


class ClickHouseLog:
    """A log in ClickHouse. The views `events` and `wanted` have what LogDatabase's have; `file` is the shipper's."""

    damage: Sequence[Junk] = ()

    def __init__(self, address: ServerAddress, wanted: Filter | None = None) -> None:
        """Raises LogError if the server can't be reached, or doesn't let this user in."""
        chosen = conditions(wanted if wanted is not None else Filter())
        self._server: Final = Server(
            address, _relations(address.database, chosen.sql), chosen.variables, session=True, seconds=QUERY_SECONDS
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def answer(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> QueryResult:
        """Run tokgate's own SQL with bound parameters. Raises LogError."""
        return self._server.rows(sql, parameters)

    def answer_query(self, sql: str, *, progress: Progress | None = None) -> QueryResult:
        """Run a user's SELECT, in ClickHouse's own dialect. Raises LogError."""
        return self._server.rows_of_users(sql)

    def one(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> Row:
        """The only row of the result. Raises LogError, or ValueError for any other number of rows."""
        (row,) = self.answer(sql, parameters).rows
        return row

    def do(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> None:
        """Run tokgate's own statement that returns no rows. Raises LogError."""
        self._server.do(sql, parameters)

    def unreadable_counts(self, *, progress: Progress | None = None) -> dict[str, int]:
        """How many lines of each file hold no record."""
        counted = "SELECT coalesce(\"file\", '-'), count(*) FROM wanted WHERE NOT readable GROUP BY 1 ORDER BY 1"
        return dict(self.answer(counted).rows)

    def unreadable(self, files: Iterable[str], limit: int) -> Iterable[Junk]:
        """Nothing: ClickHouse has such lines in a table of their own, without their numbers."""
        return ()


def _relations(database: str, wanted: str) -> Mapping[str, str]:
    names = ", ".join(quoted(column.name) for column in COLUMNS)
    events = f'SELECT {names}, "file" FROM {database}.events WHERE {wanted}'
    records = f'SELECT {names}, "file", "readable" FROM {database}.records'
    return {
        "events": events,
        "wanted": f"{records} WHERE readable AND ({wanted}) UNION ALL {records} WHERE NOT readable",
    }
