"""The bounds that the log's writer keeps, and how it fares. Values only."""

from dataclasses import dataclass, field
from pathlib import Path

from whenever import Instant

from tokgate.blocklog.appender import Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and intervals, in records and seconds.

    A record takes some 8 KiB while it waits, so the default bound is about 80 MiB, reached only while the disk fails.
    Several threads that put at the same moment can pass the bound by one record each.
    """

    queued: int = 10_000
    batch: int = 256
    linger: float = 0.01
    """How long the first record of a batch waits for others: fewer wake-ups beside a busy event loop."""
    sync_every: float = 1.0
    retry_first: float = 0.1
    retry_longest: float = 5.0
    rotation: Rotation = field(default_factory=Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the log fares. Counts are of records since the start; `failing_since` is None while writing works."""

    path: Path
    written: int
    dropped: int
    gap: int
    """Dropped, and not told of in the log yet."""
    errors: int
    queued: int
    rotations: int
    last_error: str | None
    failing_since: Instant | None

    @property
    def ok(self) -> bool:
        """Whether records reach the file."""
        return self.failing_since is None
