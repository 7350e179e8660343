"""Finds lines of a log file by their `event.id`, and those that belong to one, without parsing the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import duckdb

from tokgate.analytics.compact import clear_path, one_pass
from tokgate.analytics.sources import LogError
from tokgate.analytics.sql import literal
from tokgate.blocklog.paths import PARQUET
from tokgate.blocklog.read.reader import MAX_LINE, Line, open_log, parse_line
from tokgate.blocklog.records.record import text_at

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
