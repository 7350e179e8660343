"""The appender's queue: records, placeholders for records that depend on what is written before, and their lines."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.log_state import Torn
from tokgate.blocklog.records.record import EventAction, Record, Stamp, encode, text_at, timestamp
from tokgate.blocklog.write.checkpointer import Checkpointer

_FIRST: Final = {
    EventAction.LOG_RECOVERED,
    EventAction.LOG_FOREIGN,
    EventAction.LOG_CUT,
    EventAction.CLOCK_SET_BACK,
    EventAction.CLOCK_SET_FORWARD,
}


@dataclass(frozen=True, slots=True)
class PreviousFile:
    """The file that the next one continues."""

    name: str | None
    lines: int
    size: int
    why: str
    last: Head | None
    torn: Torn | None = None


@dataclass(frozen=True, slots=True)
class Continuation:
    """A placeholder for the `log-continued` record with which a new file begins."""

    stamp: Stamp
    previous: PreviousFile


@dataclass(frozen=True, slots=True)
class Deletion:
    """A placeholder for a `log-deleted` record. The files are deleted once that record is signed."""

    stamp: Stamp
    files: tuple[Path, ...]
    days: int
    follows: str | None = None
    missed: tuple[str, ...] = ()


class CheckpointDue:
    """A placeholder for a `log-checkpoint` record over what was written before."""

    __slots__ = ()


type QueueEntry = Record | Continuation | Deletion | CheckpointDue


def goes_first(entry: QueueEntry) -> bool:
    """Whether an entry tells of the lines right before it, or of the clock that all later ones are dated by."""
    return isinstance(entry, Continuation) or text_at(entry, "event", "action") in _FIRST


@dataclass(frozen=True, slots=True)
class PendingLine:
    """An encoded line that isn't written completely, its entry, and the chain's head once it is."""

    entry: QueueEntry
    data: bytes
    head: Head | None
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

    @property
    def lacks_newline(self) -> bool:
        """Whether nothing but its newline is missing of the line at the file's end."""
        return self.begun > 0 and self.begun == len(self.lines[0].data) - 1

    def torn(self) -> Torn | None:
        """The incomplete line at the file's end; None if there is none."""
        if not self.begun:
            return None
        data = self.lines[0].data[: self.begun]
        return Torn(len(data), hashlib.sha256(data).hexdigest())

    def rewind(self) -> None:
        """Have the lines made again that aren't complete in the file."""
        self.waiting.extendleft(line.entry for line in reversed(self.lines))
        self.lines.clear()
        self.begun = 0

    def drop(self) -> int:
        """Drop all entries; returns how many records that were."""
        count = sum(isinstance(entry, dict) for entry in self)
        self.waiting.clear()
        self.lines.clear()
        return count


class LineMaker:
    """Turns entries into lines of one chain, or of none without a checkpointer."""

    def __init__(self, stamp: Callable[[], Stamp]) -> None:
        """`stamp` makes a new stamp, by the wall clock."""
        self.checkpointer: Checkpointer | None = None
        self._stamp: Final = stamp

    def make(self, entry: QueueEntry, head: Head | None, inflight: Iterable[PendingLine]) -> PendingLine | None:
        """The line of an entry after `head`, the last of `inflight`; None if there is nothing to write.

        Raises TypeError, ValueError or RecursionError for what JSON can't represent.
        """
        checkpoint = None
        if isinstance(entry, CheckpointDue):
            stamp = self._stamp()
            checkpoint = self._checkpoint(head, stamp, inflight)
            if checkpoint is None:
                return None
            record = log_state.log_checkpoint(stamp, checkpoint.as_json())
        elif isinstance(entry, Continuation):
            previous = entry.previous
            record = log_state.log_continued(
                entry.stamp, file=previous.name, records=previous.lines, size=previous.size, why=previous.why,
                last=previous.last, torn=previous.torn,
            )  # fmt: skip
        elif isinstance(entry, Deletion):
            names = [path.name for path in entry.files]
            record = log_state.log_deleted(entry.stamp, names, entry.days, follows=entry.follows, missed=entry.missed)
        else:
            record = entry
        if head is not None:
            record, head = link(head, record)
        return PendingLine(entry, encode(record), head, checkpoint)

    def _checkpoint(self, head: Head | None, stamp: Stamp, inflight: Iterable[PendingLine]) -> Checkpoint | None:
        if self.checkpointer is None or head is None:
            return None
        coming = [(line.head, line.checkpoint is not None) for line in inflight if line.head is not None]
        return self.checkpointer.checkpoint(head, timestamp(stamp.at), coming)
