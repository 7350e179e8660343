"""What `tokgate log query` and `export` ask of the view `events`."""

from typing import Final

from tokgate.review.columns import COLUMNS
from tokgate.review.sql import quoted

SHOWN: Final = ("time", "events", "verdict", "action", "client", "name", "network", "ban", "signal")
"""The columns that fit a terminal."""
EVERY_COLUMN: Final = ", ".join(quoted(column.name) for column in COLUMNS)


def listing(*, wide: bool, limit: int | None) -> str:
    """SQL for the records themselves; in order of time where the end is near enough to sort for it."""
    columns = EVERY_COLUMN if wide else ", ".join(quoted(name) for name in SHOWN)
    if limit is None:
        return f"SELECT {columns} FROM events"
    return f'SELECT {columns} FROM events ORDER BY "time" LIMIT {int(limit)}'
