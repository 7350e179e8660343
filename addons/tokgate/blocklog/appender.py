"""Whole lines into one log file after another: rotation by size and day, and files that others rename, cut or remove.

With a custody the lines form a chain; they get their numbers and hashes here, in the order of the file.

Single-threaded and blocking; it raises what the system says and can be asked again: nothing it holds is lost by that.
"""

import errno
import hashlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Date

from tokgate.blocklog import lifecycle
from tokgate.blocklog.chain import Head, link
from tokgate.blocklog.custody import Custody, Sealing
from tokgate.blocklog.document import Record, timestamp
from tokgate.blocklog.entries import CheckpointDue, Continuation, Deletion, Entry, Left, Line
from tokgate.blocklog.line import encode
from tokgate.blocklog.ordering import written_last
from tokgate.blocklog.reader import as_rotated
from tokgate.blocklog.retention import expired
from tokgate.blocklog.segment import Segment, Torn
from tokgate.blocklog.signing import key_path_for
from tokgate.blocklog.stamp import Stamp

ROTATION_RETRY: Final = 60.0
"""Seconds for which a file that can't be renamed is simply written on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is done: with the line that brings it to `max_bytes`, or when its UTC day is over."""

    max_bytes: int | None = 64 << 20
    daily: bool = True


class Appender:
    """Holds records until they are written. `trouble` hears of errors that stop nothing, `reject` of misfits."""

    def __init__(
        self,
        path: Path,
        rotation: Rotation,
        stamp: Callable[[], Stamp],
        *,
        trouble: Callable[[Exception], None],
        reject: Callable[[Exception], None],
        sealing: Sealing | None = None,
    ) -> None:
        """Nothing is opened yet. Without `sealing` the lines form no chain."""
        self.path: Final = path
        self.written = 0
        self.rotations = 0
        self._rotation: Final = rotation
        self._stamp: Final = stamp
        self._trouble: Final = trouble
        self._reject: Final = reject
        self._segment: Segment | None = None
        self._regular: bool | None = None
        self._left: Left | None = None
        self._sealing: Final = sealing
        self._custody: Custody | None = None
        self._waiting: Final[deque[Entry]] = deque()
        self._inflight: Final[deque[Line]] = deque()
        self._condemned: Final[list[Path]] = []
        self._partial = 0
        self._no_rotation_before = 0.0

    @property
    def pending(self) -> int:
        """Records that aren't wholly written."""
        return len(self._waiting) + len(self._inflight)

    def add(self, record: Record) -> None:
        """Take a record to be written."""
        self._waiting.append(record)

    def attest(self) -> None:
        """Have a checkpoint written after what is pending, if there is anything new to sign."""
        if self.unattested:
            self._waiting.append(CheckpointDue())

    @property
    def unattested(self) -> int:
        """Records since the last checkpoint."""
        return self._custody.unattested if self._custody is not None else 0

    @property
    def never_attested(self) -> bool:
        """Whether this run has signed nothing yet, and could."""
        return self._custody is not None and not self._custody.attested

    def ready(self) -> None:
        """Have the right file open: at the path, not full. Raises OSError, LogLocked."""
        segment = self._segment
        if segment is not None and segment.replaced():
            self.leave("renamed or removed")
            segment = None
        if segment is None:
            segment = self._open()
            self._delete_expired()
        elif segment.changed_by_others():
            self._rewind()
            segment.end_line()
        if not self._partial and (why := self._full(segment)) is not None:
            self._rotate(segment, why)

    def advance(self) -> None:
        """Write some of what is pending. Raises OSError; what was written until then is accounted for."""
        self.ready()
        segment = self._segment
        if segment is None:
            return
        if not self._inflight:
            self._encode(segment)
        data = b"".join(line.data for line in self._inflight)
        if data:
            self._account(segment, segment.write(data[self._partial :] if self._partial else data))

    def sync(self) -> None:
        """Have all that was written on the disk."""
        if self._segment is not None:
            self._sync(self._segment)

    def leave(self, why: str) -> None:
        """Close the file; the next use opens what is at the path then, and says so if that is another."""
        segment = self._segment
        if segment is None:
            return
        if self._partial and self._partial == len(self._inflight[0].data) - 1:  # it lacks only its newline: it is whole
            self._account(segment, 1)
        if segment.replaced():  # else what is opened next is the same file
            self._left = Left(
                segment.present_name(), segment.lines, segment.size, why, self._head(), self._half_a_line()
            )
        self._segment = None
        self._rewind()
        try:
            self._sync(segment)
        except OSError as error:
            self._trouble(error)
        try:
            segment.close()
        except OSError as error:
            self._trouble(error)

    def abandon(self) -> int:
        """Forget what is pending; returns how many records that were. What is half written will be told of."""
        if self._partial:
            self.leave("records were given up")
        entries = [*self._waiting, *(line.entry for line in self._inflight)]
        count = sum(isinstance(entry, dict) for entry in entries)
        self._waiting.clear()
        self._inflight.clear()
        return count

    def _sync(self, segment: Segment) -> None:
        segment.sync()
        if self._custody is not None:
            self._custody.synced()
        while self._condemned:  # their record is on the disk: without it they would be missing
            try:
                self._condemned.pop(0).unlink(missing_ok=True)
            except OSError as error:
                self._trouble(error)

    def _open(self) -> Segment:
        segment = Segment(self.path, self._today())
        if self._regular not in (None, segment.regular):  # a pipe would swallow what a file would keep
            segment.close()
            raise OSError(errno.EINVAL, "is not the kind of file any more that it was at the start", str(self.path))
        self._regular = segment.regular
        if self._custody is None and self._sealing is not None:
            self._take_up(segment, self._sealing)
        openers: list[Entry] = []
        if segment.torn is not None:
            openers.append(lifecycle.log_recovered(self._stamp(), segment.torn))
        left = self._left
        if left is not None:
            openers.append(Continuation(self._stamp(), left))
        self._waiting.extendleft(reversed(openers))
        segment.openers = segment.lines + len(openers) if openers else 0
        self._segment, self._left = segment, None
        return segment

    def _take_up(self, segment: Segment, sealing: Sealing) -> None:
        """Begin a chain, or go on with the one that an earlier run wrote: in this file or in the one before it."""
        key = sealing.key or (key_path_for(self.path) if segment.regular else None)
        self._custody = custody = Custody(sealing, key, self._trouble)
        if segment.last is not None:
            custody.resume(segment.last)
            return
        if not segment.regular or segment.size:
            return
        try:
            latest = written_last(self.path)
            before = None if latest is None else as_rotated(latest)
        except OSError as error:
            self._trouble(error)
            return
        if before is not None and custody.resume(before.last):
            self._left = Left(before.name, before.lines, before.size, "a restart", custody.head, before.torn)

    def _head(self) -> Head | None:
        """The last record that is wholly in a file; None without a chain."""
        return self._custody.head if self._custody is not None else None

    def _half_a_line(self) -> Torn | None:
        """What stands at the file's end of the record whose writing was interrupted."""
        if not self._partial:
            return None
        data = self._inflight[0].data[: self._partial]
        return Torn(len(data), hashlib.sha256(data).hexdigest())

    def _full(self, segment: Segment) -> str | None:
        """Why the file has to be followed by another; None if it hasn't."""
        if not segment.regular or time.monotonic() < self._no_rotation_before:
            return None
        today = self._today()
        if segment.lines <= segment.openers:  # it holds nothing but how it began: a new one would hold no more
            segment.day = today
            return None
        if self._rotation.max_bytes is not None and segment.size >= self._rotation.max_bytes:
            return "the file was full"
        return "the day was over" if self._rotation.daily and segment.day != today else None

    def _rotate(self, segment: Segment, why: str) -> None:
        self._rewind()
        try:
            segment.archive(self._stamp().at)
        except OSError as error:
            self._no_rotation_before = time.monotonic() + ROTATION_RETRY
            self._trouble(error)
            return
        self.rotations += 1
        self.leave(why)
        self._open()
        self._delete_expired()

    def _delete_expired(self) -> None:
        """Record which files' time is over, and have them deleted then."""
        days = self._sealing.retention_days if self._sealing is not None else None
        if days is None:
            return
        stamp = self._stamp()
        try:
            files = tuple(expired(self.path, stamp.at.subtract(hours=24 * days)))
        except OSError as error:
            self._trouble(error)
            return
        if files:
            self._waiting.append(Deletion(stamp, files, days))

    def _encode(self, segment: Segment) -> None:
        """Make lines of what fits into the file, in its order.

        Lines that weren't wholly written when the file had to change are made again, after the new file's first.
        """
        head = self._head()
        size, limit = segment.size, self._rotation.max_bytes
        while self._waiting:
            entry = self._waiting.popleft()
            try:
                line = self._make(entry, head)
            except (TypeError, ValueError, RecursionError) as error:
                self._reject(error)
                continue
            if line is None:
                continue
            self._inflight.append(line)
            head = line.head
            size += len(line.data)
            if segment.regular and limit is not None and size >= limit:
                break

    def _make(self, entry: Entry, head: Head | None) -> Line | None:
        """The line that an entry becomes after `head`; None if there is nothing to write."""
        checkpoint = None
        if isinstance(entry, CheckpointDue):
            stamp = self._stamp()
            if self._custody is not None and head is not None:
                checkpoint = self._custody.checkpoint(head, timestamp(stamp.at))
            if checkpoint is None:
                return None
            record = lifecycle.log_checkpoint(stamp, checkpoint)
        elif isinstance(entry, Continuation):
            left = entry.left
            record = lifecycle.log_continued(
                entry.stamp,
                file=left.name,
                records=left.lines,
                size=left.size,
                why=left.why,
                last=left.last,
                torn=left.torn,
            )
        elif isinstance(entry, Deletion):
            record = lifecycle.log_deleted(entry.stamp, [path.name for path in entry.files], entry.days)
        else:
            record = entry
        if head is not None:
            record, head = link(head, record)
        return Line(entry, encode(record), head, checkpoint)

    def _account(self, segment: Segment, count: int) -> None:
        count += self._partial
        custody = self._custody
        while self._inflight and count >= len(self._inflight[0].data):
            line = self._inflight.popleft()
            count -= len(line.data)
            segment.lines += 1
            self.written += 1
            if custody is not None and line.head is not None:
                custody.wrote(line.head, line.checkpoint)
            if isinstance(line.entry, Deletion):
                self._condemned.extend(line.entry.files)
        self._partial = count
        if custody is not None and not self._inflight and custody.unattested >= custody.sealing.records:
            self._waiting.appendleft(CheckpointDue())

    def _rewind(self) -> None:
        """Lines that aren't wholly in the file will be made and written again."""
        self._waiting.extendleft(line.entry for line in reversed(self._inflight))
        self._inflight.clear()
        self._partial = 0

    def _today(self) -> Date:
        return self._stamp().at.to_tz("UTC").date()
