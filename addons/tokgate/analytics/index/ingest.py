"""The columns that an index keeps, and SQL that reads them from NDJSON (compressed or not) and Parquet."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from tokgate.analytics.columns import COLUMNS, READABLE, Column, expression, ndjson_lines
from tokgate.analytics.sql import literal, quoted
from tokgate.blocklog.paths import PACKED, PARQUET

KEPT: Final = (
    "time", "action", "traffic", "events", "first_time", "last_time", "verdict", "reason", "phase", "client", "user",
    "name", "destination_ip", "target", "transport", "protocol", "network", "ban", "service", "rule", "signal",
    "response", "exemption", "visibility", "event_id", "gateway", "policy", "dropped", "coverage", "message",
)  # fmt: skip
"""The columns of `events` that the index keeps; `event_id` as a UUID, `message` only of records about tokgate itself.

Everything else is read from the file.
"""
_COLUMNS: Final = tuple(column for column in COLUMNS if column.name in KEPT)
_PACKED: Final = {**PACKED, PARQUET: "parquet"}

type Numbered = tuple[Path, int]
"""A file, and its number in the table."""
type Describe = Callable[[str], Iterable[str]]
"""The column names of an SQL source."""


def table(name: str) -> str:
    """SQL that creates the index's table."""
    columns = ", ".join(f"{quoted(column.name)} {_kind(column)}" for column in _COLUMNS)
    return f"CREATE TABLE {name} (n BIGINT, file INTEGER, readable BOOLEAN, {columns})"


def packed(path: Path) -> bool:
    """Whether the file is compressed or Parquet, so that nothing is ever appended to it."""
    return path.suffix in _PACKED


def rows_of(files: Iterable[Numbered], describe: Describe) -> Iterator[str]:
    """Queries for the rows of files, without `n`. Paths must hold no pattern characters (`UNCLEAR`)."""
    by_kind: dict[str, list[Numbered]] = {}
    for path, number in files:
        by_kind.setdefault(_PACKED.get(path.suffix, "none"), []).append((path, number))
    for kind, chosen in by_kind.items():
        names = [literal(str(path)) for path, _ in chosen]
        cases = " ".join(f"WHEN {literal(str(path))} THEN {number}" for path, number in chosen)
        file = f'CASE "filename" {cases} END AS file'
        query = _of_parquet(names, file, describe) if kind == "parquet" else _of_ndjson(names, file, kind)
        yield f"SELECT * REPLACE (CASE WHEN NOT traffic THEN message END AS message) FROM ({query})"


def _of_ndjson(names: list[str], file: str, compression: str) -> str:
    lines = ndjson_lines(names, compression, _COLUMNS)
    return f"SELECT {file}, {READABLE} AS readable, {_values(expression)} FROM {lines}"


def _of_parquet(names: list[str], file: str, describe: Describe) -> str:
    """SQL for Parquet files. Columns that an older version didn't write are null."""
    source = f"read_parquet([{', '.join(names)}], union_by_name = true, filename = true)"
    there = set(describe(source))
    values = _values(lambda column: quoted(column.name) if column.name in there else "NULL")
    return f"SELECT {file}, readable, {values} FROM {source}"


def _values(sql_of: Callable[[Column], str]) -> str:
    return ", ".join(
        f"{'TRY_CAST' if column.name == 'event_id' else 'CAST'}({sql_of(column)} AS {_kind(column)}) AS "
        f"{quoted(column.name)}"
        for column in _COLUMNS
    )


def _kind(column: Column) -> str:
    return "UUID" if column.name == "event_id" else column.type
