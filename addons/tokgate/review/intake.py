"""The columns that an index keeps, and log files as SQL that gives them: NDJSON, packed or not, and Parquet."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from tokgate.blocklog.reader import MAX_LINE
from tokgate.review.columns import COLUMNS, READABLE, Column, expression, structure
from tokgate.review.engine import sql_type
from tokgate.review.sources import PARQUET
from tokgate.review.sql import literal, quoted

KEPT: Final = (
    "time", "action", "traffic", "events", "first_time", "last_time", "verdict", "reason", "phase", "client", "user",
    "name", "destination_ip", "target", "transport", "protocol", "network", "ban", "service", "rule", "signal",
    "response", "exemption", "visibility", "event_id", "gateway", "policy", "dropped", "coverage", "message",
)  # fmt: skip
"""The columns of `events` that are kept; `event_id` as a UUID, `message` only of records about tokgate itself.

A record has everything else in its file.
"""
_COLUMNS: Final = tuple(column for column in COLUMNS if column.name in KEPT)
_PACKED: Final = {".gz": "gzip", ".zst": "zstd", PARQUET: "parquet"}

type Numbered = tuple[Path, int]
"""A file, and its number in the table."""
type Describe = Callable[[str], Iterable[str]]
"""The names of the columns of a source in SQL."""


def table(name: str) -> str:
    """SQL that makes the table."""
    columns = ", ".join(f"{quoted(column.name)} {_kind(column)}" for column in _COLUMNS)
    return f"CREATE TABLE {name} (n BIGINT, file INTEGER, readable BOOLEAN, {columns})"


def packed(path: Path) -> bool:
    """Whether nothing is ever appended to such a file."""
    return path.suffix in _PACKED


def rows_of(files: Iterable[Numbered], describe: Describe) -> Iterator[str]:
    """Queries for the rows of files, all but `n`. Paths must mean nothing to DuckDB but themselves."""
    by_kind: dict[str, list[Numbered]] = {}
    for path, number in files:
        by_kind.setdefault(_PACKED.get(path.suffix, "none"), []).append((path, number))
    for kind, chosen in by_kind.items():
        names = f"[{', '.join(literal(str(path)) for path, _ in chosen)}]"
        cases = " ".join(f"WHEN {literal(str(path))} THEN {number}" for path, number in chosen)
        file = f'CASE "filename" {cases} END AS file'
        query = _of_parquet(names, file, describe) if kind == "parquet" else _of_ndjson(names, file, kind)
        yield f"SELECT * REPLACE (CASE WHEN NOT traffic THEN message END AS message) FROM ({query})"


def _of_ndjson(names: str, file: str, compression: str) -> str:
    columns = ", ".join(f'"{key}": {literal(sql_type(kind))}' for key, kind in structure(_COLUMNS).items())
    return (
        f"SELECT {file}, {READABLE} AS readable, {_values(expression)} FROM read_ndjson({names}, "
        f"columns = {{{columns}}}, filename = true, ignore_errors = true, compression = '{compression}', "
        f"maximum_object_size = {2 * MAX_LINE})"
    )


def _of_parquet(names: str, file: str, describe: Describe) -> str:
    """Files that an older version made may lack columns: they are null in them."""
    source = f"read_parquet({names}, union_by_name = true, filename = true)"
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
