"""What an index holds of each file of a log, and which files are new to it, or not what they were."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tokgate.blocklog.reader import Junk
from tokgate.review.intake import packed

BATCH_BYTES: Final = 512 << 20
"""Whole files are read together up to so many bytes; others have a turn in between."""
_SETTLED_SECONDS: Final = 10
_HEAD: Final = 512
_UNPACKED: Final = 8
"""How much larger a packed file is taken to be."""

type Identity = tuple[int, int]
"""By which a file system knows a file under any name, until it is removed."""


@dataclass(frozen=True, slots=True)
class There:
    """A file of the log as it is now."""

    path: Path
    found: os.stat_result

    @property
    def identity(self) -> Identity:
        """Its device and number."""
        return self.found.st_dev, self.found.st_ino

    def settled(self, now: float) -> bool:
        """Whether nobody writes to it any more, so that it can be read where it is."""
        return packed(self.path) or (self.found.st_mtime < now - _SETTLED_SECONDS and not self.path.is_symlink())


@dataclass(slots=True)
class Held:
    """A file that is held: its number in the table, and up to where it was read, as it was then."""

    number: int
    path: Path
    read: int = 0
    damage: Junk | None = None
    _modified: int = 0
    _head: bytes = b""
    """How it begins: another file may come to have the identity of one that was removed."""

    @classmethod
    def unreadable(cls, file: There, problem: str) -> Self:
        """A file that can't be read, until it changes. No row has the number 0."""
        size, modified = file.found.st_size, file.found.st_mtime_ns
        return cls(0, file.path, size, Junk(str(file.path), 0, 0, problem), modified)

    def keep(self, file: There) -> None:
        """Remember what was read of a file up to `read`. Raises OSError."""
        self.path, self._head = file.path, _head(file.path, self.read)
        # While a line is only half there, it has to be looked at again.
        self._modified = file.found.st_mtime_ns if self.read == file.found.st_size else 0

    def is_as(self, file: There) -> bool:
        """Whether there is nothing new in a file."""
        return file.found.st_size == self.read and file.found.st_mtime_ns == self._modified

    def grew(self, file: There) -> bool:
        """Whether it is the same with more at its end; not one that was cut short, nor another one. Raises OSError."""
        same = not packed(file.path) and file.found.st_size >= self.read
        return same and _head(file.path, len(self._head)) == self._head


def portion(new: list[There]) -> Iterator[There]:
    """The first file, and as many after it as may be read together."""
    size = 0
    for count, file in enumerate(new):
        size += file.found.st_size * (_UNPACKED if packed(file.path) else 1)
        if count and size > BATCH_BYTES:
            return
        yield file


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(min(size, _HEAD))
