"""The SQL of `tokgate log query` and `tokgate log export` over the view `events`."""

from typing import Final

from tokgate.analytics.columns import COLUMNS
from tokgate.analytics.sql import quoted

SHOWN: Final = ("time", "events", "verdict", "action", "client", "name", "network", "ban", "signal")
"""The columns that fit a terminal."""
EVERY_COLUMN: Final = ", ".join(quoted(column.name) for column in COLUMNS)


def listing(*, wide: bool, limit: int | None) -> str:
    """SQL for the records. With a `limit` they are in order of time; without one, in the order of the files."""
    columns = EVERY_COLUMN if wide else ", ".join(quoted(name) for name in SHOWN)
    if limit is None:
        return f"SELECT {columns} FROM events"
    return f'SELECT {columns} FROM events ORDER BY "time" LIMIT {int(limit)}'
