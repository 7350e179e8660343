"""The columns that an index keeps, SQL that reads them from files, and the lines that it looks up in these."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import duckdb

from tokgate.analytics.columns import COLUMNS, READABLE, Column, expression, ndjson_lines
from tokgate.analytics.compact import clear_path, one_pass
from tokgate.analytics.sql import LogError, literal, quoted
from tokgate.blocklog.paths import PACKED, PARQUET
from tokgate.blocklog.read.reader import MAX_LINE, Line, open_log, parse_line
from tokgate.blocklog.records.record import text_at

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


MAX_RELATED: Final = 50
"""Most lines that belong to one."""


def line_in(path: Path, event: str) -> Line | None:
    """The last line of a file with that `event.id`; None if there is none. Raises OSError, LogError."""
    return _in_parquet(path, event) if path.suffix == PARQUET else _in_ndjson(path, event)


def related_in(path: Path, of: Line) -> list[Line]:
    """The other lines of a file about the same connection, or that repeat that line or are repeated by it, in order.

    At most MAX_RELATED. Raises OSError, LogError.
    """
    keys = [_event(of), text_at(of.record, "tokgate", "connection"), text_at(of.record, "tokgate", "repeats", "of")]
    wanted = [key for key in keys if key]
    candidates = _rows(path, wanted) if path.suffix == PARQUET else _lines_with(path, wanted)
    found = (line for line in candidates if _event(line) != _event(of) and _belongs(line, of))
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


def _in_ndjson(path: Path, event: str) -> Line | None:
    found = None
    for line in _lines_with(path, [event]):
        if _event(line) == event:
            found = line
    return found


def _lines_with(path: Path, wanted: list[str]) -> Iterator[Line]:
    """The lines that contain any of these texts; only they are parsed."""
    octets = [text.encode() for text in wanted]
    with open_log(path) as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(2 * MAX_LINE), b""), 1):
            if any(each in raw for each in octets):
                line = parse_line(raw, str(path), number)
                if isinstance(line, Line):
                    yield line


def _in_parquet(path: Path, event: str) -> Line | None:
    path.stat()  # raises FileNotFoundError
    found = _select(path, "event_id = ? ORDER BY 1 DESC LIMIT 1", [event])
    return found[0] if found else None


def _rows(path: Path, wanted: list[str]) -> list[Line]:
    keys = ("event_id", "connection", "repeats_of")
    chosen = " OR ".join(f"list_contains($1, CAST({key} AS VARCHAR))" for key in keys)
    return _select(path, f"{chosen} ORDER BY 1 LIMIT {2 * MAX_RELATED}", [wanted])


def _select(path: Path, condition: str, values: list[object]) -> list[Line]:
    sql = f"SELECT line_number, line FROM read_parquet({literal(clear_path(path))}) WHERE {condition}"
    try:
        with one_pass() as connection:
            rows = connection.execute(sql, values).fetchall()
    except duckdb.Error as error:
        raise LogError(f"{path}: {str(error).splitlines()[0]}") from error
    lines = (parse_line(text.encode() + b"\n", str(path), number) for number, text in rows)
    return [line for line in lines if isinstance(line, Line)]
