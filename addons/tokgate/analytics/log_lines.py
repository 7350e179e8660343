"""Opens any file of a log, also the Parquet that `compact` made."""

from pathlib import Path
from typing import BinaryIO

from tokgate.blocklog.paths import PARQUET
from tokgate.blocklog.read.reader import open_log


def open_lines_of(path: Path) -> BinaryIO:
    """A file's lines, as they were written. Raises OSError, LogError."""
    if path.suffix != PARQUET:
        return open_log(path)
    from tokgate.analytics.compact import open_lines  # only Parquet has to wait for DuckDB

    return open_lines(path)
