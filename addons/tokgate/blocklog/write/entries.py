"""The appender's queue: records and checkpoints that are to be written, and lines that are written in part."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.log_state import StrayLines
from tokgate.blocklog.records.record import EventAction, Record, text_at

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

    @property
    def lacks_newline(self) -> bool:
        """Whether nothing but its newline is missing of the line at the file's end."""
        return self.begun > 0 and self.begun == len(self.lines[0].data) - 1

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
