"""One open log file: created, locked, appended to, repaired after a crash, archived. Blocking and single-threaded.

Nothing here queues or retries, and nothing removes or rewrites an octet that was written.
"""

import errno
import fcntl
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from whenever import Date, Instant

from tokgate.blocklog.atomic_file import sync
from tokgate.blocklog.paths import archive_name
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.log_state import StrayLines, record_in
from tokgate.blocklog.records.record import Record, decode

FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750
_CHUNK: Final = 1 << 20
_NEAR_THE_END: Final = 16
"""Lines at a file's end among which a record is looked for, if the journal knows none."""


LOCKED: Final = "another process writes this log; give each its own file"
_LOOK_EVERY: Final = 0.05


class LogRefused(OSError):
    """Another process writes this log, or it is a link, a pipe or a device."""


@dataclass(slots=True)
class Survey:
    """What one pass over a file finds: its lines and octets, its last record, and the lines after that one."""

    lines: int = 0
    size: int = 0
    last: Record | None = None
    head: Head | None = None
    """The last record's, if it is known to be the writer's own."""
    line: int = 0
    """The number of the last record's line."""
    rest: StrayLines = field(default_factory=StrayLines)


def survey(stream: BinaryIO, owns: Callable[[bytes], Head | None]) -> Survey:
    """Read a file: the last record is the one with the highest number of those that `owns` knows, the first of equals.

    If it knows none, it is the last JSON object, if that is among the last few lines. Reading raises UNREADABLE.
    """
    found, latest, own = Survey(), deque[bytes](maxlen=_NEAR_THE_END), b""
    ended = True
    while raw := stream.readline(_CHUNK):
        found.lines, found.size = found.lines + ended, found.size + len(raw)
        ended = raw.endswith(b"\n")
        head, known = owns(raw), found.head
        if head is not None and (known is None or head.chain != known.chain or head.sequence > known.sequence):
            found.head, found.line, found.rest, own = head, found.lines, StrayLines(), raw
        elif known is not None:
            found.rest.add(raw)
        latest.append(raw)
    if found.head is not None:
        found.last = decode(own)
        return found
    behind: list[bytes] = []
    while latest and found.last is None:
        found.last = record_in(latest[-1])
        if found.last is None:
            behind.insert(0, latest.pop())
    for raw in behind:
        found.rest.add(raw)
    found.line = found.lines - found.rest.lines
    return found


class Segment:
    """An open log file of `size` octets and `lines` lines, of which the first `openers` are about the log itself."""

    __slots__ = ("_checked", "_fd", "_folder_synced", "_recent", "day", "lines", "openers", "path", "size")

    def __init__(self, path: Path, today: Date) -> None:
        """Open or create for appending. What is in it is known once it was surveyed. Raises OSError, LogRefused."""
        self.path: Final = path
        require_file(path)
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        self._fd: Final = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        try:
            self.lines = 0
            self.openers: int
            self._folder_synced = False
            self._lock()
            found = os.fstat(self._fd)
            self.size = found.st_size
            self.day = today
            if self.size:
                modified = datetime.fromtimestamp(found.st_mtime, UTC)
                self.day = Date(modified.year, modified.month, modified.day)
            self.looked()
        except BaseException:
            os.close(self._fd)
            raise

    def survey(self, owns: Callable[[bytes], Head | None] = lambda _: None) -> Survey:
        """Read all that is in the file, and end its last line. Raises OSError."""
        with self._lines() as stream:
            found = survey(stream, owns)
        self.lines, self.size = found.lines, found.size
        self.end_line()
        self.looked()
        return found

    def write(self, data: bytes) -> int:
        """Append as many octets as one write takes; returns how many. Raises OSError."""
        count = os.write(self._fd, data)
        self.size += count
        self._recent += data[:count]
        return count

    def room_missing(self, keep: int) -> int:
        """How many octets of the disk have to stay free, if fewer are: `keep`, at most a twentieth of it; else 0."""
        disk = os.fstatvfs(self._fd)
        least = min(keep, disk.f_blocks * disk.f_frsize // 20)
        return least if disk.f_bavail * disk.f_frsize < least else 0

    def done_by_others(self) -> tuple[bool, Record | None]:
        """Whether another program cut the file since the last look (copytruncate), and what one appended.

        That may stand before or after what was written here. After this the file's present size is known, and its last
        line ended. Raises OSError.
        """
        (begin, line), recent = self._checked, self._recent
        actual = os.fstat(self._fd).st_size
        cut, foreign = actual < self.size, None
        if actual > self.size:
            region = os.pread(self._fd, len(recent) + _CHUNK, begin)
            at = region.find(recent)  # appending is atomic: what was written here stands in one piece
            start, line = (begin, line) if at > 0 else (begin + len(recent), line + recent.count(b"\n"))
            rest, left = StrayLines(), (begin + at if at > 0 else actual) - start
            with self._lines(start) as stream:
                while left and (raw := stream.readline(min(_CHUNK, left))):
                    rest.add(raw)
                    left -= len(raw)
            foreign = rest.foreign(self.path.name, line, running=True)
            self.lines += rest.lines
        if actual != self.size:
            self.size = actual
            self.end_line()
        self.looked()
        return cut, foreign

    def looked(self) -> None:
        """Note that all that is in the file was written here, or was found."""
        self._checked, self._recent = (self.size, self.lines), b""

    def replaced(self) -> bool:
        """Whether the path no longer leads to this file: it was renamed or removed."""
        try:
            return not os.path.samestat(self.path.lstat(), os.fstat(self._fd))
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # unknown, and the open file can still be written
            return False

    def present_name(self) -> str | None:
        """The file's name now, also after a rename; None if it was removed or is unknown."""
        try:
            target = Path(f"/proc/self/fd/{self._fd}").readlink()
            return target.name if os.path.samestat(target.lstat(), os.fstat(self._fd)) else None
        except OSError:
            return None

    def archive(self, at: Instant) -> None:
        """Rename the file to `archive_name`, so that names sort by time. Raises OSError."""
        self.path.rename(archive_name(self.path, at))

    def sync(self) -> None:
        """Sync the file to the disk. Raises OSError."""
        os.fdatasync(self._fd)
        if not self._folder_synced:  # a new file's directory entry has to be synced separately
            sync(self.path.parent)
            self._folder_synced = True

    def end_line(self) -> None:
        """Append a newline if the last line, which is counted, has none."""
        if self.size and os.pread(self._fd, 1, self.size - 1) != b"\n":
            self.write(b"\n")

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogRefused(errno.EWOULDBLOCK, LOCKED, str(self.path)) from error
        if self.replaced():  # archived by its writer between our opening and our locking it
            raise LogRefused(errno.EWOULDBLOCK, "another process was rotating this log", str(self.path))

    def _lines(self, start: int = 0) -> BinaryIO:
        stream = os.fdopen(os.dup(self._fd), "rb")
        stream.seek(start)
        return stream


def wait_for_lock(path: Path, patience: float) -> None:
    """Wait until no process holds the log's lock. Raises LogRefused after `patience` seconds, or if it is no file.

    Other errors are ignored: opening the log raises them.
    """
    require_file(path)
    until = time.monotonic() + patience
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise LogRefused(errno.EWOULDBLOCK, LOCKED, str(path)) from error
        finally:
            os.close(fd)
        time.sleep(_LOOK_EVERY)


def require_file(path: Path) -> None:
    """Raise LogRefused for a link, a pipe or a device; what can't be looked at, or isn't there, passes.

    Rotation would rename a link instead of its target, and a link in a folder that others may write to could direct
    records, or permissions, to any file. What went through a pipe can't be verified.
    """
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except OSError:
        return
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise LogRefused(errno.EINVAL, "is a link, a pipe or a device; name a file", str(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is rotated: with the line that brings it to `max_bytes` octets, or when its UTC day is over."""

    max_bytes: int | None = 64 << 20
    daily: bool = True

    def due(self, segment: Segment, today: Date) -> str | None:
        """Why a file has to be rotated, in words for the next one; None if it hasn't. `today` is the UTC day."""
        if segment.lines <= segment.openers:  # it holds no records but those with which a new file would begin
            segment.day = today
            return None
        if self.max_bytes is not None and segment.size >= self.max_bytes:
            return "the file was full"
        return "the day was over" if self.daily and segment.day != today else None
