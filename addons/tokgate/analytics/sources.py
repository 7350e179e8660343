"""Which files make up a log: NDJSON as it was written and rotated, and Parquet that `compact` made of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from tokgate.blocklog.paths import PARQUET, compacted, parquet_of, with_rotated
from tokgate.blocklog.read.reader import open_log


def whole_log(named: Iterable[Path], *, rotated: bool = True) -> list[Path]:
    """The files of logs, oldest first, rotated ones too. A file that has a Parquet copy is left out."""
    files: dict[Path, None] = {}
    for path in named:
        found = [*parquet_of(path), *with_rotated(path)] if rotated and path.suffix != PARQUET else [path]
        files |= dict.fromkeys(file for file in found if file.exists() or len(found) == 1)
    return [path for path in files if path.suffix == PARQUET or compacted(path) not in files]


def each_line_once(named: Iterable[Path]) -> list[Path]:
    """The files of logs, rotated ones too, and Parquet only in place of a file that is gone."""
    files = dict.fromkeys(file for path in named for file in every_file(path) or [path])
    made = {compacted(file) for file in files if file.suffix != PARQUET}
    return [file for file in files if file not in made]


def every_file(path: Path) -> list[Path]:
    """All files of a log, oldest first: Parquet and NDJSON, also where both exist of one file."""
    return [*parquet_of(path), *(file for file in with_rotated(path) if file.exists())]


def open_lines_of(path: Path) -> BinaryIO:
    """A file's lines, as they were written. Raises OSError, LogError."""
    if path.suffix != PARQUET:
        return open_log(path)
    from tokgate.analytics.compact import open_lines  # only Parquet has to wait for DuckDB

    return open_lines(path)
