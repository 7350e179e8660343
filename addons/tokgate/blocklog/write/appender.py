"""Appends whole lines to the log: rotation by size and day, and files that others rename, truncate or remove.

The lines form a chain: they get their numbers and hashes here, in the order of the file.

Single-threaded and blocking. After an OSError a call can be repeated: pending records are kept.
"""

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Final

from whenever import Date, Instant

from tokgate.blocklog import access_log
from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.paths import access_path_for
from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.log_state import StrayLines
from tokgate.blocklog.records.record import EventAction, Record, Stamp, counted, encode, instant_of, text_at, timestamp
from tokgate.blocklog.write.checkpointer import Checkpointer, LogOptions
from tokgate.blocklog.write.continuity import Continuity, resume
from tokgate.blocklog.write.retention import LogClock, Retention
from tokgate.blocklog.write.segment import Rotation, Segment

ROTATION_RETRY: Final = 60.0
"""Seconds after which renaming is tried again; until then the file is written on."""


_FIRST: Final = {
    EventAction.LOG_CONTINUED,
    EventAction.LOG_RECOVERED,
    EventAction.LOG_FOREIGN,
    EventAction.LOG_CUT,
    EventAction.CLOCK_SET_BACK,
    EventAction.CLOCK_SET_FORWARD,
}


type QueueEntry = Record | None
"""None: a checkpoint over what was written before is due."""


def goes_first(entry: QueueEntry) -> bool:
    """Whether an entry tells of the lines right before it, or of the clock that all later ones are dated by."""
    return text_at(entry, "event", "action") in _FIRST


@dataclass(frozen=True, slots=True)
class PendingLine:
    """An encoded line that isn't written completely, its entry, and the chain's head once it is."""

    entry: QueueEntry
    data: bytes
    head: Head
    checkpoint: Checkpoint | None = None


class LineQueue:
    """Entries that wait for their lines, and lines that aren't written completely, in the order of the file."""

    def __init__(self) -> None:
        self.waiting: Final[deque[QueueEntry]] = deque()
        self.lines: Final[deque[PendingLine]] = deque()
        self.begun = 0
        """Octets of the first line that are in the file."""

    def __len__(self) -> int:
        return len(self.waiting) + len(self.lines)

    def __iter__(self) -> Iterator[QueueEntry]:
        yield from self.waiting
        yield from (line.entry for line in self.lines)

    def add_early(self, entry: QueueEntry) -> None:
        """Queue an entry before all but those that have to go first."""
        self.waiting.insert(sum(1 for _ in takewhile(goes_first, self.waiting)), entry)

    def rest(self) -> bytes:
        """The octets of all lines that aren't in the file yet."""
        return b"".join(line.data for line in self.lines)[self.begun :]

    def take_written(self, count: int) -> Iterator[PendingLine]:
        """Take out the lines that are complete, now that `count` more octets are in the file."""
        self.begun += count
        while self.lines and self.begun >= len(self.lines[0].data):
            line = self.lines.popleft()
            self.begun -= len(line.data)
            yield line

    def torn(self) -> Record | None:
        """What `StrayLines` says of the incomplete line at the file's end; None if there is none."""
        torn = StrayLines()
        if self.begun:
            torn.add(self.lines[0].data[: self.begun])
        return torn.torn()

    def rewind(self) -> None:
        """Have the lines made again that aren't complete in the file."""
        self.waiting.extendleft(line.entry for line in reversed(self.lines))
        self.lines.clear()
        self.begun = 0

    def drop(self) -> int:
        """Drop all entries; returns how many records that were, but for what the log says about its own files."""
        count = sum(entry is not None and not goes_first(entry) for entry in self)
        self.waiting.clear()
        self.lines.clear()
        return count


class ForeignLines(Exception):
    """Another program wrote to the log, or cut it."""


class Appender:
    """Holds records until they are written.

    `trouble` is called with errors that don't stop writing, `reject` with those of records that JSON can't represent.
    """

    def __init__(
        self,
        path: Path,
        rotation: Rotation,
        stamp: Callable[[], Stamp],
        *,
        trouble: Callable[[Exception], None],
        reject: Callable[[Exception], None],
        options: LogOptions,
        uptime: Callable[[], float],
    ) -> None:
        """Nothing is opened yet. `uptime` as for LogClock."""
        self.path: Final = path
        self.written = 0
        self.rotations = 0
        self._rotation: Final = rotation
        self._stamp: Final = stamp
        self._trouble: Final = trouble
        self._reject: Final = reject
        self._segment: Segment | None = None
        self._resumed = False
        self._previous_file: Callable[[Stamp], Record] | None = None
        self._options: Final = options
        self._checkpointer: Final = Checkpointer(path, options, trouble)
        self._clock: Final = LogClock(stamp, uptime)
        self.foreign = 0
        """How many lines others wrote to the log."""
        self._queue: Final = LineQueue()
        self._no_rotation_before = 0.0
        self._retention: Final = Retention(path, options.retention_days, trouble)

    @property
    def pending(self) -> int:
        """How many records aren't written completely."""
        return len(self._queue)

    def add(self, record: Record) -> None:
        """Queue a record. `advance` writes it."""
        self._queue.waiting.append(record)

    def attest(self) -> None:
        """Queue a checkpoint after what is pending, if any record is unsigned."""
        if self.unattested:
            self._queue.waiting.append(None)

    @property
    def unattested(self) -> int:
        """How many records came after the last checkpoint."""
        return self._checkpointer.unattested

    @property
    def never_attested(self) -> bool:
        """Whether this run has signed nothing yet."""
        return not self._checkpointer.attested

    def ready(self) -> Segment:
        """Open or rotate; returns the file at the path, open and not full. Raises OSError, LogRefused."""
        segment = self._segment
        if segment is None or segment.replaced():
            if segment is not None and segment.present_name() is None and not self.path.exists():
                self._trouble(ForeignLines("the log's file was removed while it was written"))
            self.leave("renamed or removed")
            segment = self._open()
            self._delete_expired()
        elif self._retention.due:
            self._delete_expired()
        else:
            self.look()
        if self._queue.begun or time.monotonic() < self._no_rotation_before:
            return segment
        why = self._rotation.due(segment, self._today())
        return segment if why is None else self._rotate(segment, why)

    def look(self) -> None:
        """Open the file, and tell if another program wrote to it since the last look, or took it away. Raises OSError.

        Raises LogRefused.
        """
        segment = self._segment
        if segment is None or segment.replaced():
            self.ready()
            return
        cut, foreign = segment.done_by_others()
        if cut or foreign is not None:
            self._queue.rewind()
        if foreign is not None:
            self._queue.waiting.appendleft(self._tell(foreign))
        if cut:
            self._trouble(ForeignLines(f"the log was cut to {counted(segment.size, 'byte')} while it was written"))
            if segment.size:  # copytruncate leaves none, and the lines in a copy
                self._queue.waiting.appendleft(log_state.log_cut(self._stamp(), self._checkpointer.head))

    def _tell(self, foreign: Record) -> Record:
        self.foreign += foreign["lines"]
        lines, where = counted(foreign["lines"], "line"), f"{foreign['file']}:{foreign['line']}"
        self._trouble(ForeignLines(f"{lines} by others, from {where} on"))
        return log_state.log_foreign(self._stamp(), foreign)

    def advance(self) -> None:
        """Write some of what is pending. Raises OSError; lines written before that are counted and not repeated."""
        segment = self.ready()
        if not self._queue.begun and self.pending:
            self.require_room()
        if not self._queue.lines:
            self._encode(segment)
        if data := self._queue.rest():
            self._account(segment, segment.write(data))

    def require_room(self) -> None:
        """Raise OSError instead of writing where others need the room; not if files are about to be deleted."""
        if self._segment is None or self._retention.about_to_delete:
            return
        least = self._segment.room_missing(self._options.keep_free)
        if least:
            raise OSError(
                errno.ENOSPC, f"No space left on device but the {least >> 10} KiB that settings.log.keep_free keeps",
                str(self.path),
            )  # fmt: skip

    def sync(self) -> None:
        """Sync the file to the disk. Raises OSError."""
        if self._segment is not None:
            self._sync(self._segment)

    def leave(self, why: str) -> None:
        """Close the file. The next use opens the file at the path, which begins with `why` if it is another."""
        segment = self._segment
        if segment is None:
            return
        if 0 < self._queue.begun == len(self._queue.lines[0].data) - 1:  # nothing but its newline is missing
            self._account(segment, 1)
        if segment.replaced():  # else what is opened next is the same file
            self._previous_file = partial(
                log_state.log_continued, file=segment.present_name(), records=segment.lines, size=segment.size, why=why,
                last=self._checkpointer.head, torn=self._queue.torn(),
            )  # fmt: skip
        self._segment = None
        self._queue.rewind()
        try:
            self._sync(segment)
        except OSError as error:
            self._trouble(error)
        try:
            segment.close()
        except OSError as error:
            self._trouble(error)

    def close(self) -> None:
        """Close the file and the journal beside it."""
        self.leave("closed")
        self._checkpointer.close()

    def abandon(self) -> int:
        """Drop what is pending; returns how many records that were. A torn line is reported by the next file."""
        if self._queue.begun:
            self.leave("records were given up")
        self._retention.planned = None
        return self._queue.drop()

    def _sync(self, segment: Segment) -> None:
        self._checkpointer.syncing()
        segment.sync()
        self._checkpointer.synced()
        # The record that names them and a checkpoint over it are on the disk now, or the key can't be used.
        self._retention.delete(self._checkpointer.attested)

    def _open(self) -> Segment:
        segment = Segment(self.path, self._today())
        continuity = self._resume(segment)
        openers: list[QueueEntry] = []
        if continuity.torn is not None:
            openers.append(log_state.log_recovered(self._stamp(), continuity.torn))
        previous = self._previous_file or continuity.previous
        if previous is not None:
            openers.append(previous(self._stamp()))
        if continuity.foreign is not None:
            openers.append(self._tell(continuity.foreign))
        if continuity.cut is not None:
            self._trouble(ForeignLines(f"records up to {continuity.cut.sequence} are gone from the log"))
            openers.append(log_state.log_cut(self._stamp(), continuity.cut))
        self._queue.waiting.extendleft(reversed(openers))
        segment.openers = segment.lines + len(openers) if openers else 0
        self._segment, self._previous_file = segment, None
        return segment

    def _resume(self, segment: Segment) -> Continuity:
        """Find where the chain goes on, and what others wrote, also while this run had the file closed."""
        if not self._resumed:
            resumed = resume(segment, self._checkpointer, self.path, self._trouble)
            self._resumed = True
            if resumed.last is not None:
                signed = text_at(resumed.last, "event", "action") == EventAction.LOG_CHECKPOINT
                self._clock.was_written(instant_of(resumed.last), signed=signed)
            return resumed
        found = segment.survey(self._checkpointer.known().owns)
        if self._previous_file is not None and segment.lines:
            self._trouble(ForeignLines(f"a file of {counted(segment.lines, 'line')} was put in the log's place"))
        torn, strange = found.rest.torn(), found.head is not None and found.rest.strange
        return Continuity(torn, found.rest.foreign(self.path.name, found.line, running=True) if strange else None)

    def _rotate(self, segment: Segment, why: str) -> Segment:
        try:
            segment.archive(self._stamp().at)
        except OSError as error:
            self._no_rotation_before = time.monotonic() + ROTATION_RETRY
            self._trouble(error)
            return segment
        self.rotations += 1
        self.leave(why)
        opened, stamp = self._open(), self._stamp()
        try:  # with the log, so that as many days of it are kept
            if (rotated := access_log.rotate(access_path_for(self.path), stamp.at)) is not None:
                self._queue.waiting.append(log_state.access_log_rotated(stamp, rotated))
        except OSError as error:
            self._trouble(error)
        self._delete_expired()
        return opened

    def _delete_expired(self) -> None:
        """Queue the record that names expired files, and a checkpoint; once both are on the disk they are deleted."""
        if self._retention.about_to_delete:  # a second record would name the same files
            return
        if (deletion := self._retention.look(self._stamp(), self._clock.settled())) is not None:
            self._queue.waiting.extend((deletion, None))

    def _encode(self, segment: Segment) -> None:
        """Encode pending entries, in order, up to what fits into the file.

        Lines that weren't complete when the file was replaced are encoded again, after the new file's first records.
        """
        head, queue = self._checkpointer.head, self._queue
        size, limit = segment.size, self._rotation.max_bytes
        if (told := self._clock.look()) is not None:
            queue.add_early(told)
        while queue.waiting:
            entry = queue.waiting.popleft()
            try:
                line = self._line(entry, head)
            except (TypeError, ValueError, RecursionError) as error:
                self._reject(error)
                continue
            if line is None:  # there is no key that could sign it
                self._clock.signed(self._stamp().at)
                continue
            queue.lines.append(line)
            head = line.head
            size += len(line.data)
            if limit is not None and size >= limit:
                break
        self._checkpointer.announce([line.head.hash for line in queue.lines])

    def _line(self, entry: QueueEntry, head: Head) -> PendingLine | None:
        """The line of an entry after `head`; None for a checkpoint without a key.

        Raises TypeError, ValueError or RecursionError for what JSON can't represent.
        """
        record, checkpoint = entry, None
        if record is None:
            stamp = self._stamp()
            coming = [(line.head, line.checkpoint is not None) for line in self._queue.lines]
            checkpoint = self._checkpointer.checkpoint(head, timestamp(stamp.at), coming)
            if checkpoint is None:
                return None
            record = log_state.log_checkpoint(stamp, checkpoint.as_json())
        record, head = link(head, record)
        return PendingLine(entry, encode(record), head, checkpoint)

    def _account(self, segment: Segment, count: int) -> None:
        for line in self._queue.take_written(count):
            segment.lines += 1
            self.written += 1
            self._checkpointer.wrote(line.head, line.checkpoint)
            if line.checkpoint is not None:
                self._clock.signed(Instant.parse_iso(line.checkpoint.at))
            self._retention.wrote(line.entry, line.head.sequence)
        if self._checkpointer.unattested >= self._options.records and not self._queue.lines:
            self._queue.add_early(None)

    def _today(self) -> Date:
        return self._stamp().at.to_tz("UTC").date()
