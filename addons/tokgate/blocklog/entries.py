"""What waits to become a line of the log: records, and places for those that depend on what is written before them."""

from dataclasses import dataclass
from pathlib import Path

from tokgate.blocklog.chain import Head
from tokgate.blocklog.checkpoint import Checkpoint
from tokgate.blocklog.document import Record
from tokgate.blocklog.segment import Torn
from tokgate.blocklog.stamp import Stamp


@dataclass(frozen=True, slots=True)
class Left:
    """The file that the next one continues."""

    name: str | None
    lines: int
    size: int
    why: str
    last: Head | None
    torn: Torn | None = None


@dataclass(frozen=True, slots=True)
class Continuation:
    """Stands among what waits: the record that a new file begins with."""

    stamp: Stamp
    left: Left


@dataclass(frozen=True, slots=True)
class Deletion:
    """Stands among what waits: files whose time is over. They go once the record that tells of it is on the disk."""

    stamp: Stamp
    files: tuple[Path, ...]
    days: int


class CheckpointDue:
    """Stands among what waits: a signature over what was written before."""

    __slots__ = ()


type Entry = Record | Continuation | Deletion | CheckpointDue


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is being written, what it was made of, and the chain's head once it is whole."""

    entry: Entry
    data: bytes
    head: Head | None
    checkpoint: Checkpoint | None = None
