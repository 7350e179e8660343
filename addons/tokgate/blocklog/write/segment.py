"""One open log file: created, locked, appended to, repaired after a crash, archived. Blocking and single-threaded.

Nothing here queues or retries, and nothing removes or rewrites an octet that was written.
"""

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from whenever import Date, Instant

from tokgate.blocklog.atomic_file import sync
from tokgate.blocklog.paths import archive_name
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.log_state import Foreign, Torn
from tokgate.blocklog.records.record import Record, decode

FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750
_CHUNK: Final = 1 << 20
_MAX_TORN: Final = 16
"""Most torn lines that are searched: each is from a run that was killed before it wrote a record."""


LOCKED: Final = "another process writes this log; give each its own file"
_LOOK_EVERY: Final = 0.05


class LogLocked(BlockingIOError):
    """Another process holds the lock of this log."""


class Segment:
    """An open log file of `size` octets and `lines` lines, of which the first `openers` are about the log itself.

    Devices and pipes (`/dev/stdout`) can be written too: they are not `regular`, and never locked, archived or synced.
    """

    __slots__ = (
        *("_checked", "_fd", "_folder_synced", "_identity", "_recent"),
        *("day", "last", "last_end", "lines", "openers", "path", "regular", "size", "torn"),
    )

    def __init__(self, path: Path, today: Date) -> None:
        """Open or create for appending. A torn last line gets a newline and is reported in `torn`. Raises OSError."""
        self.path: Final = path
        self._fd: Final = _open(path)
        try:
            found = os.fstat(self._fd)
            self.regular: Final = stat.S_ISREG(found.st_mode)
            self._identity: Final = (found.st_dev, found.st_ino)
            self.size = self.lines = 0
            self.openers: int
            self._folder_synced = False
            self.torn: Torn | None = None
            self.last: Record | None = None
            self._recent = b""
            self.last_end: int
            """The offset at which the last record ends, without its newline."""
            self.day = today
            if self.regular:
                self._lock()
                self._take_stock(found, today)
            self.looked()
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, data: bytes) -> int:
        """Append as many octets as one write takes; returns how many. Raises OSError."""
        count = os.write(self._fd, data)
        self.size += count
        if self.regular:
            self._recent += data[:count]
        return count

    def room_missing(self, keep: int) -> int:
        """How many octets of the disk have to stay free, if fewer are: `keep`, at most a twentieth of it; else 0."""
        disk = os.fstatvfs(self._fd)
        least = min(keep, disk.f_blocks * disk.f_frsize // 20)
        return least if disk.f_bavail * disk.f_frsize < least else 0

    def changed_by_others(self) -> bool:
        """Whether another program truncated the file (copytruncate) or appended to it since the last look."""
        return self.regular and os.fstat(self._fd).st_size != self.size

    def cut_by_others(self) -> bool:
        """Whether another program made the file shorter since the last look."""
        return os.fstat(self._fd).st_size < self.size

    def written_by_others(self) -> Foreign | None:
        """What another program appended since the last look, before or after what was written here. Raises OSError.

        After this the file's present size is known, and its last line ended.
        """
        (begin, line), recent = self._checked, self._recent
        actual = os.fstat(self._fd).st_size
        foreign = None
        if actual > self.size:
            region = os.pread(self._fd, len(recent) + _CHUNK, begin)
            at = region.find(recent)  # appending is atomic: what was written here stands in one piece
            if at > 0:
                foreign = self.foreign(begin, begin + at, line, running=True)
            else:
                start = begin + len(recent)
                foreign = self.foreign(start, actual, line + recent.count(b"\n"), running=True)
            self.lines += foreign.lines
        self.size = actual
        self.end_line(count=False)
        self.looked()
        return foreign

    def looked(self) -> None:
        """Note that all that is in the file was written here, or was found."""
        self._checked, self._recent = (self.size, self.lines), b""

    def foreign(self, start: int, end: int, lines_before: int, *, running: bool) -> Foreign:
        """What stands between two offsets. Raises OSError."""
        ended = os.pread(self._fd, 1, end - 1) == b"\n"
        lines, digest = self._digest(start, end - ended)
        return Foreign(self.path.name, lines_before + 1, lines + 1, end - start - ended, digest, running)

    def own_end(self, owns: Callable[[bytes], Head | None]) -> tuple[Head, int] | None:
        """The last record that `owns` knows, and the offset at which its line ends; None if there is none."""
        end = self.size
        while end:
            start = self._start_of_line(end)
            line = os.pread(self._fd, end - start, start) if end - start <= _CHUNK else b""
            if (head := owns(line)) is not None:
                return head, end
            end = start
        return None

    def highest_own(self, owns: Callable[[bytes], Head | None]) -> tuple[Head, int] | None:
        """The record with the highest number of those that `owns` knows, and the offset at which its line ends.

        The first of equal lines: somebody can append copies of them. None if there is none.
        """
        highest, offset = None, 0
        with os.fdopen(os.dup(self._fd), "rb") as lines:
            lines.seek(0)
            while line := lines.readline(_CHUNK):
                offset += len(line)
                head = owns(line)
                if head is not None and (highest is None or head.sequence > highest[0].sequence):
                    highest = head, offset
        return highest

    def holds_once(self, text: bytes) -> bool:
        """Whether the file has this text in one place only."""
        found = offset = 0
        while chunk := os.pread(self._fd, _CHUNK + len(text) - 1, offset):
            found, offset = found + chunk.count(text), offset + _CHUNK
        return found == 1

    def line_of(self, offset: int) -> int:
        """How many lines end before an offset."""
        return self._digest(0, offset)[0]

    def replaced(self) -> bool:
        """Whether the path no longer leads to this file: it was renamed or removed."""
        try:
            there = self.path.lstat() if self.regular else self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # unknown, and the open file can still be written
            return False
        return (there.st_dev, there.st_ino) != self._identity

    def present_name(self) -> str | None:
        """The file's name now, also after a rename; None if it was removed or is unknown."""
        try:
            target = Path(f"/proc/self/fd/{self._fd}").readlink()
            there = target.lstat()
        except OSError:
            return self.path.name if not self.replaced() else None
        return target.name if (there.st_dev, there.st_ino) == self._identity else None

    def archive(self, at: Instant) -> None:
        """Rename the file to `archive_name`, so that names sort by time. Raises OSError."""
        self.path.rename(archive_name(self.path, at))

    def sync(self) -> None:
        """Sync a regular file to the disk. Raises OSError."""
        if not self.regular:
            return
        os.fdatasync(self._fd)
        if not self._folder_synced:  # a new file's directory entry has to be synced separately
            sync(self.path.parent)
            self._folder_synced = True

    def end_line(self, *, count: bool = True) -> None:
        """Append a newline if the last line has none; `count` it as a line that wasn't counted yet."""
        if self.size and os.pread(self._fd, 1, self.size - 1) != b"\n":
            self.write(b"\n")
            self.lines += count

    def close(self) -> None:
        """Close the file, which releases its lock."""
        os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogLocked(errno.EWOULDBLOCK, LOCKED, str(self.path)) from error
        if self.replaced():  # archived by its writer between our opening and our locking it
            raise LogLocked(errno.EWOULDBLOCK, "another process was rotating this log", str(self.path))

    def _take_stock(self, found: os.stat_result, today: Date) -> None:
        """Count the lines of an existing file, and end a torn one."""
        offset = 0
        while chunk := os.pread(self._fd, _CHUNK, offset):
            self.lines += chunk.count(b"\n")
            offset += len(chunk)
        self.size = offset
        if self.size:
            modified = datetime.fromtimestamp(found.st_mtime, UTC)
            self.day = Date(modified.year, modified.month, modified.day)
        self._look_back()

    def _look_back(self) -> None:
        """Find the last record, and torn lines after it, also of runs that ended before they could report them."""
        end, lines = self.size, 0
        while end and lines < _MAX_TORN:
            start = self._start_of_line(end)
            self.last = self._record(start, end)  # part of an object is no JSON, so the newline may be missing
            if self.last is not None:
                self.last_end = end
                break
            end, lines = start, lines + 1
        if lines:
            ended = os.pread(self._fd, 1, self.size - 1) == b"\n"
            size = self.size - ended - end
            self.torn = Torn(size, self._digest(end, self.size - ended)[1], lines) if size > 0 else None
        self.end_line()

    def _start_of_line(self, end: int) -> int:
        """The offset at which the line begins whose last octet is before `end`."""
        stop = end - 1
        while stop > 0:
            start = max(0, stop - _CHUNK)
            at = os.pread(self._fd, stop - start, start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            stop = start
        return 0

    def _record(self, start: int, end: int) -> Record | None:
        if end - start > _CHUNK:
            return None
        try:
            return decode(os.pread(self._fd, end - start, start))
        except ValueError:
            return None

    def _digest(self, start: int, end: int) -> tuple[int, str]:
        """How many newlines are between two offsets, and SHA-256 over what is."""
        digest, offset, lines = hashlib.sha256(), start, 0
        while chunk := os.pread(self._fd, min(_CHUNK, end - offset), offset):
            digest.update(chunk)
            lines += chunk.count(b"\n")
            offset += len(chunk)
        return lines, digest.hexdigest()


def wait_for_lock(path: Path, patience: float) -> None:
    """Wait until no process holds the log's lock. Raises LogLocked after `patience` seconds.

    Other errors are ignored: opening the log raises them.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise LogLocked(errno.EWOULDBLOCK, LOCKED, str(path)) from error
        finally:
            os.close(fd)
        time.sleep(_LOOK_EVERY)


def _open(path: Path) -> int:
    """Open or create; a symbolic link is followed to devices and pipes only. Raises OSError.

    Rotation would rename a link instead of its target, and a link in a folder that others may write to could direct
    records, or permissions, to any file.
    """
    flags = os.O_APPEND | os.O_NONBLOCK  # a full pipe raises instead of blocking
    try:
        there = path.lstat().st_mode
    except FileNotFoundError:
        there = stat.S_IFREG
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if stat.S_ISREG(there):
        return os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    fd = os.open(path, flags | os.O_WRONLY)  # raises for a pipe without a reader
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, "is a symbolic link; name the file itself", str(path))
    return fd


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is rotated: with the line that brings it to `max_bytes` octets, or when its UTC day is over."""

    max_bytes: int | None = 64 << 20
    daily: bool = True

    def due(self, segment: Segment, today: Date) -> str | None:
        """Why a file has to be rotated, in words for the next one; None if it hasn't. `today` is the UTC day."""
        if not segment.regular:
            return None
        if segment.lines <= segment.openers:  # it holds no records but those with which a new file would begin
            segment.day = today
            return None
        if self.max_bytes is not None and segment.size >= self.max_bytes:
            return "the file was full"
        return "the day was over" if self.daily and segment.day != today else None
