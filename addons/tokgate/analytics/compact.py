"""Rotated NDJSON as Parquet: the columns of `events`, and every line as it was, so that nothing is lost.

A Parquet file gets its final name only after it was read back and gave the same octets.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Final, cast

import duckdb

from tokgate.analytics.columns import COLUMNS, READABLE, expression, structure
from tokgate.analytics.engine import MEMORY, UNCLEAR, interruptible
from tokgate.analytics.sql import LogError, literal, quoted
from tokgate.blocklog.atomic_file import replacing, take_rights, zstd
from tokgate.blocklog.paths import PACKED, compacted
from tokgate.blocklog.read.reader import MAX_LINE, open_log

_CHUNK: Final = 1 << 20
_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Compacted:
    """The result of `compact`; sizes are in octets, `removed` says whether the source was deleted."""

    source: Path
    target: Path
    lines: int
    size_before: int
    size_after: int
    removed: bool


_DRAFT_MODE: Final = 0o600
"""Until it gets the permissions of the source."""


def compact(source: Path, *, remove: bool) -> Compacted:
    """Write a rotated file as Parquet and verify it. Raises LogError if an octet would be lost; `source` stays then."""
    target = compacted(source)
    if target is None:
        raise LogError(f"{source} will have another name after the next rotation: let logrotate use `dateext`")
    before = source.stat()
    try:
        with replacing(target, _DRAFT_MODE) as draft:
            lines, digest = _content(source)
            _write(source, draft)
            _verify(source, draft, lines, digest)
            now = source.stat()
            if (before.st_size, before.st_mtime_ns, before.st_ino) != (now.st_size, now.st_mtime_ns, now.st_ino):
                raise LogError(f"{source} changed meanwhile: only files that are no longer written can be compacted")
            take_rights(draft, before)
    except (duckdb.Error, EOFError, ValueError, zlib.error, zstd.ZstdError) as error:
        raise LogError(f"{source} stays as it is: {str(error).splitlines()[0]}") from error
    if remove:
        source.unlink()
    return Compacted(source, target, lines, before.st_size, target.stat().st_size, remove)


def lines_of(parquet: Path) -> Iterator[bytes]:
    """The lines of a compacted file as they were written, with their newlines, in order. Raises LogError."""
    path = clear_path(parquet)
    try:
        with one_pass() as connection:
            cursor = connection.execute(f"SELECT line FROM read_parquet({literal(path)})")
            while rows := cursor.fetchmany(_ROWS):
                for (line,) in rows:
                    yield line.encode() + b"\n"
    except duckdb.Error as error:
        raise LogError(f"{parquet}: {str(error).splitlines()[0]}") from error


def first_wrong_column(parquet: Path) -> tuple[int, str] | None:
    """The first line, from 1, from which a column has another value than stored, and the column. Raises LogError.

    Columns that an older version didn't write are skipped. An unknown column is reported for line 1.
    """
    source = f"read_parquet({literal(clear_path(parquet))}, file_row_number = true)"
    try:
        with one_pass() as connection:
            there = [str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
            made = {column.name: expression(column) for column in COLUMNS} | {"readable": READABLE}
            fixed = {"line", "line_number", "file_row_number"}
            if unknown := [name for name in there if name not in made and name not in fixed]:
                return 1, unknown[0]
            kept = ", ".join(f"{literal(name)}: {quoted(name)}" for name in there)
            differ = [
                f"WHEN kept.{quoted(name)}::VARCHAR IS DISTINCT FROM ({sql})::VARCHAR THEN {literal(name)}"
                for name, sql in made.items()
                if name in there
            ]
            differ.append("WHEN kept.line_number IS DISTINCT FROM kept.file_row_number + 1 THEN 'line_number'")
            found = connection.execute(
                f"SELECT kept.file_row_number + 1 AS number, CASE {' '.join(differ)} END AS name FROM "
                f"(SELECT kept, unnest({_parsed('kept.line')}) FROM (SELECT {{{kept}}} AS kept FROM {source})) "
                "WHERE name IS NOT NULL ORDER BY number LIMIT 1"
            ).fetchone()
    except duckdb.Error as error:
        raise LogError(f"{parquet}: {str(error).splitlines()[0]}") from error
    return None if found is None else (int(found[0]), str(found[1]))


def first_differing_line(parquet: Path, source: Path) -> int | None:
    """The first line, from 1, that differs between a compacted file and its source; None if none does."""
    with open_log(source) as stream:
        for number, (kept, written) in enumerate(zip_longest(lines_of(parquet), stream), 1):
            if kept != written:
                return number
    return None


def open_lines(path: Path) -> BinaryIO:
    """The lines of a compacted file, as they were written. Raises OSError."""
    return cast(BinaryIO, io.BufferedReader(_ParquetLines(path), _CHUNK))


class _ParquetLines(io.RawIOBase):
    """The lines of a compacted file as a stream."""

    def __init__(self, path: Path) -> None:
        path.stat()  # raises FileNotFoundError
        self._lines = lines_of(path)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # typeshed allows any buffer
        try:
            self._rest = self._rest or next(self._lines, b"")
        except LogError as error:
            raise OSError(str(error)) from error
        given = self._rest[: len(buffer)]
        self._rest = self._rest[len(given) :]
        buffer[: len(given)] = given
        return len(given)


def clear_path(path: Path) -> str:
    """A path as DuckDB takes it. Raises LogError where DuckDB would read it as a pattern."""
    if UNCLEAR & set(str(path.absolute())):
        raise LogError(f"{path}: its name would be taken for a pattern")
    return str(path.absolute())


@contextmanager
def one_pass() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB for one pass over one file: rows stay in order, and no temporary file is written."""
    with interruptible(), duckdb.connect() as connection:
        for setting in ("TimeZone = 'UTC'", "python_enable_replacements = false", "temp_directory = ''"):
            connection.execute(f"SET {setting}")
        connection.execute(f"SET memory_limit = {literal(MEMORY)}")
        yield connection


def _content(source: Path) -> tuple[int, bytes]:
    """The number of lines of a file and the SHA-256 of its octets, both decompressed."""
    lines, digest, last = 0, hashlib.sha256(), b"\n"
    with open_log(source) as stream:
        while chunk := stream.read(_CHUNK):
            lines += chunk.count(b"\n")
            digest.update(chunk)
            last = chunk[-1:]
    if last != b"\n":
        raise LogError(f"{source} stays as it is: its last line is torn")
    return lines, digest.digest()


def _write(source: Path, target: Path) -> None:
    path = clear_path(source)
    compression = PACKED.get(source.suffix, "none")
    columns = ", ".join(f"{expression(column)} AS {quoted(column.name)}" for column in COLUMNS)
    # Each line is one column as it is: no separator, no quotes, no escapes.
    lines = (
        f"read_csv({literal(path)}, columns = {{line: 'VARCHAR'}}, header = false, auto_detect = false, "
        f"delim = '\x01', quote = '', escape = '', new_line = '\\n', compression = '{compression}', "
        f"null_padding = false, max_line_size = {2 * MAX_LINE}, parallel = false)"
    )
    with one_pass() as connection:
        connection.execute(
            f"COPY (SELECT {columns}, {READABLE} AS readable, line_number, line FROM "
            f"(SELECT unnest({_parsed('line')}), line_number, line FROM "
            f"(SELECT row_number() OVER () AS line_number, coalesce(line, '') AS line FROM {lines}))) "
            f"TO {literal(str(target.absolute()))} "
            "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880, USE_TMP_FILE false)"
        )


def _parsed(line: str) -> str:
    """SQL for a line's fields as one STRUCT; all null if the line is no JSON."""
    return f"from_json(CASE WHEN json_valid({line}) THEN {line} END, {literal(json.dumps(structure()))})"


def _verify(source: Path, parquet: Path, expected: int, digest: bytes) -> None:
    lines, found = 0, hashlib.sha256()
    for line in lines_of(parquet):
        lines += 1
        found.update(line)
    if (lines, found.digest()) != (expected, digest):
        raise LogError(f"{source} stays as it is: Parquet gives other lines back ({lines}, not {expected})")
