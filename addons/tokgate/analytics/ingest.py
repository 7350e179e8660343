"""The columns that an index keeps, SQL that reads them from files, and the lines that it looks up in these."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from tokgate.analytics.columns import COLUMNS, records
from tokgate.analytics.sql import literal, quoted
from tokgate.blocklog.paths import PACKED
from tokgate.blocklog.read.reader import Line, lines_with
from tokgate.blocklog.records.record import text_at

KEPT: Final = (
    "time", "action", "traffic", "events", "first_time", "last_time", "verdict", "reason", "phase", "client", "user",
    "name", "destination_ip", "target", "transport", "protocol", "network", "ban", "service", "rule", "signal",
    "response", "exemption", "visibility", "event_id", "gateway", "policy", "dropped", "coverage", "message",
    "url_path", "user_agent", "ja4",
)  # fmt: skip
"""The columns of `events` that the index keeps; `event_id` as a UUID, `message` only of records about tokgate itself.

Everything else is read from the file.
"""
_COLUMNS: Final = tuple(column for column in COLUMNS if column.name in KEPT)
_READ: Final = (*_COLUMNS, *(column for column in COLUMNS if column.name == "hash"))

DIGEST: Final = "CASE WHEN hash IS NOT NULL THEN hash(hash) END"
"""SQL for a number made of a record's hash, which takes less memory."""

type Numbered = tuple[Path, int]
"""A file, and its number in the table."""


def table(name: str) -> str:
    """SQL that creates the index's table."""
    columns = ", ".join(f"{quoted(c.name)} {'UUID' if c.name == 'event_id' else c.type}" for c in _COLUMNS)
    return f"CREATE TABLE {name} (n BIGINT, file INTEGER, readable BOOLEAN, digest UBIGINT, {columns})"


def packed(path: Path) -> bool:
    """Whether the file is compressed, so that nothing is ever appended to it."""
    return path.suffix in PACKED


def rows_of(files: Iterable[Numbered]) -> Iterator[str]:
    """Queries for the rows of files, without `n`. Paths must hold no pattern characters (`UNCLEAR`)."""
    numbers = dict(files)
    cases = " ".join(f"WHEN {literal(str(path))} THEN {number}" for path, number in numbers.items())
    names = ", ".join(quoted(column.name) for column in _COLUMNS)
    for query in records(numbers, _READ):
        yield (
            f"SELECT CASE file {cases} END, readable, {DIGEST}, {names} FROM (SELECT * REPLACE ("
            "TRY_CAST(event_id AS UUID) AS event_id, CASE WHEN NOT traffic THEN message END AS message) "
            f"FROM ({query}))"
        )


MAX_RELATED: Final = 50
"""Most lines that belong to one."""


def related_in(path: Path, of: Line) -> list[Line]:
    """The other lines of a file about the same connection, or that repeat that line or are repeated by it, in order.

    At most MAX_RELATED. Raises OSError.
    """
    keys = [_event(of), text_at(of.record, "tokgate", "connection"), text_at(of.record, "tokgate", "repeats", "of")]
    wanted = [key for key in keys if key]
    found = (line for line in lines_with(path, wanted) if _event(line) != _event(of) and _belongs(line, of))
    return [line for line, _ in zip(found, range(MAX_RELATED), strict=False)]


def _belongs(line: Line, of: Line) -> bool:
    connection = text_at(of.record, "tokgate", "connection")
    repeated = (text_at(line.record, "tokgate", "repeats", "of"), text_at(of.record, "tokgate", "repeats", "of"))
    return (
        (connection is not None and text_at(line.record, "tokgate", "connection") == connection)
        or repeated[0] == _event(of)
        or (repeated[1] is not None and repeated[1] in (_event(line), repeated[0]))
    )


def _event(line: Line) -> str | None:
    return text_at(line.record, "event", "id")
