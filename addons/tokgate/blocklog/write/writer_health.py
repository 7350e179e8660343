"""The limits of the log's writer, and its state of health. Values only."""

from dataclasses import dataclass, field
from pathlib import Path

from whenever import Instant

from tokgate.blocklog.write.rotation import Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Bounds and intervals, in records and seconds.

    A queued record takes some 8 KiB, so the default bound is about 80 MiB, reached only while the disk fails. Threads
    that put at the same moment can exceed the bound by one record each.
    """

    queued: int = 10_000
    batch: int = 256
    linger: float = 0.01
    """How long the first record of a batch waits for others, to save wake-ups beside a busy event loop."""
    sync_every: float = 1.0
    look_every: float = 1.0
    """How often a log without new records is looked at for what others wrote."""
    retry_first: float = 0.1
    retry_longest: float = 5.0
    rotation: Rotation = field(default_factory=Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterHealth:
    """The writer's counters since its start, in records; `failing_since` is None while writing works."""

    path: Path
    written: int
    dropped: int
    gap: int
    """Dropped records that no `log-gap` record counts yet."""
    errors: int
    queued: int
    rotations: int
    last_error: str | None
    failing_since: Instant | None
    foreign: int
    """Lines that other programs wrote to the log."""
    tampered: str | None
    """What others did to the log in the last hour."""

    @property
    def ok(self) -> bool:
        """Whether writing works at present, and nobody else wrote: health is green."""
        return self.failing_since is None and self.tampered is None
