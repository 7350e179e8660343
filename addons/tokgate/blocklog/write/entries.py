"""Entries of the appender's queue: records, and placeholders for those that depend on what is written before them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tokgate.blocklog.integrity.chain import Head
from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.read.reader import text_at
from tokgate.blocklog.records.record import EventAction, Record
from tokgate.blocklog.records.stamp import Stamp
from tokgate.blocklog.write.segment import Torn

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
