"""One open log file: created safely, locked, appended to, mended after a crash, archived. Blocking and single-threaded.

Nothing here queues or retries, and nothing ever removes or rewrites a byte that was written.
"""

import errno
import fcntl
import hashlib
import os
import stat
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from whenever import Date, Instant

from tokgate.blocklog.document import Record
from tokgate.blocklog.line import decode

FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750
_CHUNK: Final = 1 << 20
_MAX_TORN: Final = 16
"""Most lines that are taken for torn: each is from a run that was killed before it wrote one record."""


LOCKED: Final = "another process writes this log; give each its own file"
_LOOK_EVERY: Final = 0.05


class LogLocked(BlockingIOError):
    """Another process writes this file: each needs its own."""


@dataclass(frozen=True, slots=True)
class Torn:
    """What is left of lines whose writing was interrupted: mostly one. The digest is over all but the last newline."""

    size: int
    sha256: str
    lines: int = 1


class Segment:
    """An open log file. `size` and `lines` say what it holds; `openers` how many of the lines are about the log itself.

    Devices and pipes (`/dev/stdout`) can be written too: they are not `regular`, and never locked, archived or synced.
    """

    __slots__ = (
        *("_fd", "_folder_synced", "_identity"),
        *("day", "last", "lines", "openers", "path", "regular", "size", "torn"),
    )

    def __init__(self, path: Path, today: Date) -> None:
        """Open for appending, made if need be. A torn last line is ended and reported in `torn`. Raises OSError."""
        self.path: Final = path
        self._fd: Final = _open(path)
        try:
            found = os.fstat(self._fd)
            self.regular: Final = stat.S_ISREG(found.st_mode)
            self._identity: Final = (found.st_dev, found.st_ino)
            self.size, self.lines, self.openers = 0, 0, 0
            self._folder_synced = False
            self.torn: Torn | None = None
            self.last: Record | None = None
            self.day = today
            if self.regular:
                self._lock()
                self._take_stock(found, today)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, data: bytes) -> int:
        """Append as much as the file takes in one go; the caller sees to the rest."""
        count = os.write(self._fd, data)
        self.size += count
        return count

    def changed_by_others(self) -> bool:
        """Whether the file's length isn't what was written to it: someone cut it short (copytruncate) or appended."""
        if not self.regular:
            return False
        actual = os.fstat(self._fd).st_size
        changed = actual != self.size
        self.size = actual
        return changed

    def replaced(self) -> bool:
        """Whether the path no longer leads here: renamed, removed, or its folder gone."""
        try:
            there = self.path.lstat() if self.regular else self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # it can't be told, and the file that is open still takes lines
            return False
        return (there.st_dev, there.st_ino) != self._identity

    def present_name(self) -> str | None:
        """What the file is called now, wherever it was moved; None if it was removed or this can't be told."""
        try:
            target = Path(f"/proc/self/fd/{self._fd}").readlink()
            there = target.lstat()
        except OSError:
            return self.path.name if not self.replaced() else None
        return target.name if (there.st_dev, there.st_ino) == self._identity else None

    def archive(self, at: Instant) -> Path:
        """Give the file its final name, with the instant in it, so that names sort by time. The path is free then."""
        target = archive_name(self.path, at)
        self.path.rename(target)
        return target

    def sync(self) -> None:
        """Have everything on the disk before this returns."""
        if not self.regular:
            return
        os.fdatasync(self._fd)
        if not self._folder_synced:  # a new file's name is in its folder, which has a write-back of its own
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._folder_synced = True

    def end_line(self) -> None:
        """End a line that was left torn, whoever tore it."""
        if self.regular and self.size and os.pread(self._fd, 1, self.size - 1) != b"\n":
            self.write(b"\n")
            self.lines += 1

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogLocked(errno.EWOULDBLOCK, LOCKED, str(self.path)) from error
        if self.replaced():  # archived by its writer between our opening and our locking it
            raise LogLocked(errno.EWOULDBLOCK, "another process was rotating this log", str(self.path))

    def _take_stock(self, found: os.stat_result, today: Date) -> None:
        """Count the lines of a file that was there before; end a torn one."""
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
        """Find the last record, and what crashes left torn after it: also of a run that ended before it told."""
        end, lines = self.size, 0
        while end and lines < _MAX_TORN:
            start = self._start_of_line(end)
            self.last = self._record(start, end)  # part of an object is none, so without its newline it is whole too
            if self.last is not None:
                break
            end, lines = start, lines + 1
        if lines:
            ended = os.pread(self._fd, 1, self.size - 1) == b"\n"
            self.torn = self._digest(end, self.size - ended, lines)
        self.end_line()

    def _start_of_line(self, end: int) -> int:
        """Where the line begins whose last octet stands before `end`."""
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

    def _digest(self, start: int, end: int, lines: int) -> Torn | None:
        digest, offset = hashlib.sha256(), start
        while offset < end and (chunk := os.pread(self._fd, min(_CHUNK, end - offset), offset)):
            digest.update(chunk)
            offset += len(chunk)
        return Torn(end - start, digest.hexdigest(), lines) if end > start else None


def wait_for_lock(path: Path, patience: float) -> None:
    """Return once nobody writes a log: its last writer may be about to end. Raises LogLocked after so many seconds.

    What else may be wrong with it is for who opens it to find out.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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


def archive_name(path: Path, at: Instant) -> Path:
    """A free name beside `path`: `block-20230310T230000.000000Z.ndjson`; where that is taken, microseconds later."""
    while True:
        moment = at.format_iso(unit="microsecond", basic=True)
        target = path.with_name(f"{path.stem}-{moment}{path.suffix}")
        if not os.path.lexists(target):
            return target
        at = at.add(microseconds=1)  # names keep their order, which a number after the instant would not


def _open(path: Path) -> int:
    """Open or create; a symbolic link is followed to devices and pipes only.

    Rotation would rename a link instead of the file that it leads to, and a link in a folder that others may write to
    could lead our records, or our permissions, anywhere.
    """
    flags = os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK  # a full pipe is an error, never a wait
    try:
        there = path.lstat().st_mode
    except FileNotFoundError:
        there = stat.S_IFREG
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    if stat.S_ISREG(there):
        return os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
    fd = os.open(path, flags | os.O_WRONLY)  # a pipe that nobody reads is an error: it would keep nothing
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, "is a symbolic link; name the file itself", str(path))
    return fd
