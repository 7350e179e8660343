"""Which files of a log an index has read, how far, and which are new or were replaced."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from tokgate.analytics.index.ingest import packed
from tokgate.blocklog.read.reader import Junk

BATCH_BYTES: Final = 512 << 20
"""Most octets of complete files that are read in one batch: meanwhile files that grow wait."""
_SETTLED_SECONDS: Final = 10
_HEAD: Final = 512
_UNPACKED: Final = 8
"""The assumed compression ratio."""

type FileId = tuple[int, int]
"""Device and inode: the same under any name, and reused once the file is removed."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of the log, with its state when it was looked up."""

    path: Path
    stat: os.stat_result

    @property
    def identity(self) -> FileId:
        """Device and inode, by which a file is known again when it was renamed."""
        return self.stat.st_dev, self.stat.st_ino

    def is_at_its_path(self) -> bool:
        """Whether the path still leads to this file, and nothing was written to it."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_dev, now.st_ino, now.st_size) == (*self.identity, self.stat.st_size)

    def open(self) -> BinaryIO:
        """Open this file. Raises OSError; FileNotFoundError also if its path leads to another file by now."""
        stream = self.path.open("rb")
        now = os.fstat(stream.fileno())
        if (now.st_dev, now.st_ino) != self.identity:
            stream.close()
            raise FileNotFoundError(errno.ENOENT, "another file has its name", str(self.path))
        return stream

    def settled(self, now: float) -> bool:
        """Whether nothing writes to it any more at `now` (seconds since the epoch), so that it can be read in place."""
        return packed(self.path) or (self.stat.st_mtime < now - _SETTLED_SECONDS and not self.path.is_symlink())


@dataclass(slots=True)
class IndexedFile:
    """A file in the index: its number in the table, the octets read of it, and its state at that time."""

    number: int
    path: Path
    read: int = 0
    damage: Junk | None = None
    _modified: int = 0
    _head: bytes = b""
    """The file's first octets: a new file may get the inode of a removed one."""

    @classmethod
    def unreadable(cls, file: LogFile, problem: str) -> Self:
        """A file that can't be read, until it changes. No row of the table has the number 0."""
        size, modified = file.stat.st_size, file.stat.st_mtime_ns
        return cls(0, file.path, size, Junk(str(file.path), 0, 0, problem), modified)

    def keep(self, file: LogFile) -> None:
        """Store the file's state after `read` octets were indexed. Raises OSError."""
        self.path, self._head = file.path, _head(file.path, self.read)
        # An incomplete last line must be read again, even if the file doesn't change.
        self._modified = file.stat.st_mtime_ns if self.read == file.stat.st_size else 0

    def is_unchanged(self, file: LogFile) -> bool:
        """Whether the file has not changed since it was read."""
        return file.stat.st_size == self.read and file.stat.st_mtime_ns == self._modified

    def has_grown(self, file: LogFile) -> bool:
        """Whether it is the same file with octets appended: neither truncated nor replaced. Raises OSError."""
        same = not packed(file.path) and file.stat.st_size >= self.read
        return same and _head(file.path, len(self._head)) == self._head


def next_batch(new: list[LogFile]) -> Iterator[LogFile]:
    """The first file, and those after it up to BATCH_BYTES."""
    size = 0
    for count, file in enumerate(new):
        size += file.stat.st_size * (_UNPACKED if packed(file.path) else 1)
        if count and size > BATCH_BYTES:
            return
        yield file


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(min(size, _HEAD))
