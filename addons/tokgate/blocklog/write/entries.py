"""Entries of the appender's queue: records, and placeholders for those that depend on what is written before them."""

from dataclasses import dataclass
from pathlib import Path

from tokgate.blocklog.integrity.chain import Head
from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.records.record import Record
from tokgate.blocklog.records.stamp import Stamp
from tokgate.blocklog.write.segment import Torn


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


@dataclass(frozen=True, slots=True)
class PendingLine:
    """An encoded line that isn't written completely, its entry, and the chain's head once it is."""

    entry: QueueEntry
    data: bytes
    head: Head | None
    checkpoint: Checkpoint | None = None
