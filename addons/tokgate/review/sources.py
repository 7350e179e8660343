"""Which files make up a log: NDJSON as it was written and rotated, and Parquet that `compact` made of it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokgate.blocklog.reader import with_rotated

PARQUET: Final = ".parquet"
_PACKED: Final = {".gz": "gzip", ".zst": "zstd"}
_NUMBERED: Final = re.compile(r".+\.[0-9]+")


class LogError(Exception):
    """A log can't be read, or a query can't be answered, for a reason that is the user's to know."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file; `shown` is its name as the user knows it, `path` where it is read."""

    path: Path
    shown: str

    @property
    def is_parquet(self) -> bool:
        """Made by `compact`."""
        return self.path.suffix == PARQUET

    @property
    def compression(self) -> str:
        """As DuckDB names it."""
        return _PACKED.get(self.path.suffix, "none")


def compacted(path: Path) -> Path | None:
    """Where `compact` puts the Parquet of a rotated file; None if its name will soon belong to other contents."""
    name = path.name
    for suffix in _PACKED:
        name = name.removesuffix(suffix)
    if _NUMBERED.fullmatch(name):  # block.ndjson.1 becomes block.ndjson.2 at the next rotation
        return None
    return path.with_name(name.removesuffix(".ndjson") + PARQUET)


def whole_log(named: Iterable[Path], *, rotated: bool = True) -> list[Path]:
    """The files of logs, oldest first, rotated ones too. A file of which there is Parquet is left out for it."""
    files: dict[Path, None] = {}
    for path in named:
        found = [*_parquet_of(path), *with_rotated(path)] if rotated and path.suffix != PARQUET else [path]
        files |= dict.fromkeys(file for file in found if file.exists() or len(found) == 1)
    return [path for path in files if path.suffix == PARQUET or compacted(path) not in files]


def every_file(path: Path) -> list[Path]:
    """All files of a log, oldest first: as they were written, and Parquet, also where both are there of one."""
    return [*_parquet_of(path), *(file for file in with_rotated(path) if file.exists())]


def _parquet_of(path: Path) -> Iterator[Path]:
    """The Parquet files of a log, oldest first."""
    pattern = re.compile(rf"{re.escape(path.stem)}(?:-|{re.escape(path.suffix)}-)[0-9TZ.]+{re.escape(PARQUET)}")
    for entry in sorted(path.parent.iterdir()) if path.parent.is_dir() else ():
        if pattern.fullmatch(entry.name):
            yield entry
