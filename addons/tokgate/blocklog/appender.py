"""Whole lines into one log file after another: rotation by size and day, and files that others rename, cut or remove.

Single-threaded and blocking; it raises what the system says and can be asked again: nothing it holds is lost by that.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Date

from tokgate.blocklog import lifecycle
from tokgate.blocklog.document import Record
from tokgate.blocklog.line import encode
from tokgate.blocklog.segment import Segment
from tokgate.blocklog.stamp import Stamp

ROTATION_RETRY: Final = 60.0
"""Seconds for which a file that can't be renamed is simply written on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is done: with the line that brings it to `max_bytes`, or when its UTC day is over."""

    max_bytes: int | None = 64 << 20
    daily: bool = True


@dataclass(frozen=True, slots=True)
class _Left:
    """The file that the next one continues."""

    name: str | None
    lines: int
    size: int
    why: str


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
    ) -> None:
        """Nothing is opened yet."""
        self.path: Final = path
        self.written = 0
        self.rotations = 0
        self._rotation: Final = rotation
        self._stamp: Final = stamp
        self._trouble: Final = trouble
        self._reject: Final = reject
        self._segment: Segment | None = None
        self._left: _Left | None = None
        self._waiting: Final[deque[Record]] = deque()
        self._inflight: Final[deque[tuple[Record, bytes]]] = deque()
        self._partial = 0
        self._no_rotation_before = 0.0

    @property
    def pending(self) -> int:
        """Records that aren't wholly written."""
        return len(self._waiting) + len(self._inflight)

    def add(self, record: Record) -> None:
        """Take a record to be written."""
        self._waiting.append(record)

    def ready(self) -> None:
        """Have the right file open: at the path, not full. Raises OSError, LogLocked."""
        segment = self._segment
        if segment is not None and segment.replaced():
            self.leave("renamed or removed")
            segment = None
        if segment is None:
            segment = self._open()
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
        data = b"".join(line for _, line in self._inflight)
        if data:
            self._account(segment, segment.write(data[self._partial :] if self._partial else data))

    def sync(self) -> None:
        """Have all that was written on the disk."""
        if self._segment is not None:
            self._segment.sync()

    def leave(self, why: str) -> None:
        """Close the file; the next use opens what is at the path then, and says so if that is another."""
        segment = self._segment
        if segment is None:
            return
        if segment.replaced():  # else what is opened next is the same file
            self._left = _Left(segment.present_name(), segment.lines, segment.size, why)
        self._segment = None
        self._rewind()
        for last in (segment.sync, segment.close):
            try:
                last()
            except OSError as error:
                self._trouble(error)

    def abandon(self) -> int:
        """Forget what is pending; returns how many records that were."""
        count = self.pending
        self._waiting.clear()
        self._inflight.clear()
        return count

    def _open(self) -> Segment:
        segment = Segment(self.path, self._today())
        openers = []
        if segment.torn is not None:
            torn = segment.torn
            openers.append(lifecycle.log_recovered(self._stamp(), size=torn.size, sha256=torn.sha256))
        left = self._left
        if left is not None:
            openers.append(
                lifecycle.log_continued(self._stamp(), file=left.name, records=left.lines, size=left.size, why=left.why)
            )
        self._waiting.extendleft(reversed(openers))
        segment.openers = segment.lines + len(openers) if openers else 0
        self._segment, self._left = segment, None
        return segment

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

    def _encode(self, segment: Segment) -> None:
        """Make lines of what fits into the file. The place for a chain: lines are made in the order of the file.

        Lines that weren't wholly written when the file had to change are made again, after the new file's first.
        """
        size, limit = segment.size, self._rotation.max_bytes
        while self._waiting:
            record = self._waiting.popleft()
            try:
                line = encode(record)
            except (TypeError, ValueError, RecursionError) as error:
                self._reject(error)
                continue
            self._inflight.append((record, line))
            size += len(line)
            if segment.regular and limit is not None and size >= limit:
                break

    def _account(self, segment: Segment, count: int) -> None:
        count += self._partial
        while self._inflight and count >= len(self._inflight[0][1]):
            count -= len(self._inflight.popleft()[1])
            segment.lines += 1
            self.written += 1
        self._partial = count

    def _rewind(self) -> None:
        """Lines that aren't wholly in the file will be made and written again."""
        self._waiting.extendleft(record for record, _ in reversed(self._inflight))
        self._inflight.clear()
        self._partial = 0

    def _today(self) -> Date:
        return self._stamp().at.to_tz("UTC").date()
