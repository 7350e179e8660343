"""One line of a log file, by its event's id: without taking apart all the others."""

from pathlib import Path

import duckdb

from tokgate.blocklog.reader import MAX_LINE, Line, open_log, parse_line, text_at
from tokgate.review.compact import clear_path, one_pass
from tokgate.review.sources import PARQUET, LogError
from tokgate.review.sql import literal


def line_in(path: Path, event: str) -> Line | None:
    """The last line of a file with that id, as it was written. Raises OSError, LogError."""
    return _in_parquet(path, event) if path.suffix == PARQUET else _in_ndjson(path, event)


def _in_ndjson(path: Path, event: str) -> Line | None:
    """Only lines that hold the id somewhere are taken apart."""
    found, wanted = None, event.encode()
    with open_log(path) as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(2 * MAX_LINE), b""), 1):
            if wanted in raw:
                line = parse_line(raw, str(path), number)
                if isinstance(line, Line) and text_at(line.record, "event", "id") == event:
                    found = line
    return found


def _in_parquet(path: Path, event: str) -> Line | None:
    path.stat()  # says in the system's words that it isn't there
    sql = f"SELECT line_number, line FROM read_parquet({literal(clear_path(path))}) WHERE event_id = ? ORDER BY 1 DESC"
    try:
        with one_pass() as connection:
            row = connection.execute(f"{sql} LIMIT 1", [event]).fetchone()
    except duckdb.Error as error:
        raise LogError(f"{path}: {str(error).splitlines()[0]}") from error
    line = None if row is None else parse_line(row[1].encode() + b"\n", str(path), row[0])
    return line if isinstance(line, Line) else None
