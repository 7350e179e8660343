"""Rotated NDJSON as Parquet: the columns of `events` beside every line as it was, so that nothing is lost.

A Parquet file counts only after it was read back and gave the same bytes; until then it has another name.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Final, cast

import duckdb

from tokgate.blocklog.reader import MAX_LINE, open_log
from tokgate.review.columns import COLUMNS, READABLE, expression, structure
from tokgate.review.engine import MEMORY, interruptible
from tokgate.review.sources import PARQUET, LogError, compacted
from tokgate.review.sql import literal, quoted

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK: Final = 1 << 20
_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was made of a file; `removed`: the file itself is gone."""

    source: Path
    target: Path
    lines: int
    size_before: int
    size_after: int
    removed: bool


@dataclass(frozen=True, slots=True)
class _Extent:
    """The lines of a file and the digest of its bytes, unpacked."""

    lines: int
    digest: bytes


def compact(source: Path, *, remove: bool) -> Compacted:
    """Make Parquet of a rotated file, and verify it. Raises LogError if that can't be done without losing a byte."""
    target = compacted(source)
    if target is None:
        raise LogError(f"{source} will have another name after the next rotation: let logrotate use `dateext`")
    before = source.stat()
    partial = target.with_name(f".{target.name}.partial")
    try:
        extent = _extent(source)
        _write(source, partial)
        _verify(source, partial, extent)
        now = source.stat()
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (now.st_size, now.st_mtime_ns, now.st_ino):
            raise LogError(f"{source} changed meanwhile: only files that are no longer written can be compacted")
        _settle(partial, target, before)
    except (duckdb.Error, EOFError, ValueError, zstd.ZstdError) as error:
        raise LogError(f"{source} stays as it is: {str(error).splitlines()[0]}") from error
    finally:
        partial.unlink(missing_ok=True)
    if remove:
        source.unlink()
    return Compacted(source, target, extent.lines, before.st_size, target.stat().st_size, remove)


def lines_of(parquet: Path) -> Iterator[bytes]:
    """The lines that a compacted file keeps, each as it was written, in their order. Raises LogError."""
    path = clear_path(parquet)
    try:
        with one_pass() as connection:
            cursor = connection.execute(f"SELECT line FROM read_parquet({literal(path)})")
            while rows := cursor.fetchmany(_ROWS):
                for (line,) in rows:
                    yield line.encode() + b"\n"
    except duckdb.Error as error:
        raise LogError(f"{parquet}: {str(error).splitlines()[0]}") from error


def column_unlike_its_line(parquet: Path) -> tuple[int, str] | None:
    """The first line, from 1, that doesn't give what a column says, and that column. Raises LogError.

    Columns that an older version didn't make are passed over; one of no version is found at the first line.
    """
    source = f"read_parquet({literal(clear_path(parquet))}, file_row_number = true)"
    try:
        with one_pass() as connection:
            there = [str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
            made = {column.name: expression(column) for column in COLUMNS} | {"readable": READABLE}
            fixed = {"line", "line_number", "file_row_number"}
            if strange := [name for name in there if name not in made and name not in fixed]:
                return 1, strange[0]
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


def line_unlike(parquet: Path, source: Path) -> int | None:
    """The first line, from 1, that isn't the same in a compacted file and in the one that it was made of."""
    with open_log(source) as stream:
        for number, (kept, written) in enumerate(zip_longest(lines_of(parquet), stream), 1):
            if kept != written:
                return number
    return None


def open_lines(path: Path) -> BinaryIO:
    """The octets of a log file as it was written: of a compacted one, the lines that it keeps. Raises OSError."""
    if path.suffix != PARQUET:
        return open_log(path)
    return cast(BinaryIO, io.BufferedReader(_Kept(path), _CHUNK))


class _Kept(io.RawIOBase):
    """The lines of a compacted file, one after the other, as a stream."""

    def __init__(self, path: Path) -> None:
        path.stat()  # says in the system's words that it isn't there
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
    """A path that DuckDB takes for nothing but itself."""
    if any(sign in str(path.absolute()) for sign in "*?["):
        raise LogError(f"{path}: its name would be taken for a pattern")
    return str(path.absolute())


@contextmanager
def one_pass() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB for one pass over one file: lines stay in their order, nothing is put aside on the disk."""
    with interruptible(), duckdb.connect() as connection:
        for setting in ("TimeZone = 'UTC'", "python_enable_replacements = false", "temp_directory = ''"):
            connection.execute(f"SET {setting}")
        connection.execute(f"SET memory_limit = {literal(MEMORY)}")
        yield connection


def _extent(source: Path) -> _Extent:
    lines, digest, last = 0, hashlib.sha256(), b"\n"
    with open_log(source) as stream:
        while chunk := stream.read(_CHUNK):
            lines += chunk.count(b"\n")
            digest.update(chunk)
            last = chunk[-1:]
    if last != b"\n":
        raise LogError(f"{source} stays as it is: its last line is torn")
    return _Extent(lines, digest.digest())


def _write(source: Path, target: Path) -> None:
    path = clear_path(source)
    compression = {".gz": "gzip", ".zst": "zstd"}.get(source.suffix, "none")
    columns = ", ".join(f"{expression(column)} AS {quoted(column.name)}" for column in COLUMNS)
    # A column for each line as it is: no separator, no quotes, no escapes.
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
            f"TO {literal(str(target.absolute()))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
        )


def _parsed(line: str) -> str:
    """SQL for what is read of a line, as one structure; of a line that is no JSON, nothing but nulls."""
    return f"from_json(CASE WHEN json_valid({line}) THEN {line} END, {literal(json.dumps(structure()))})"


def _verify(source: Path, parquet: Path, extent: _Extent) -> None:
    lines, digest = 0, hashlib.sha256()
    for line in lines_of(parquet):
        lines += 1
        digest.update(line)
    if (lines, digest.digest()) != (extent.lines, extent.digest):
        raise LogError(f"{source} stays as it is: Parquet gives other lines back ({lines}, not {extent.lines})")


def _settle(partial: Path, target: Path, before: os.stat_result) -> None:
    """On the disk, with the rights and owner of the file it stands for, under its name."""
    with partial.open("rb") as stream:
        os.fchmod(stream.fileno(), before.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(stream.fileno(), before.st_uid, before.st_gid)
        os.fsync(stream.fileno())
    partial.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
