"""Counts the records that were dropped, until a `log-gap` record tells of them."""

import threading
from dataclasses import dataclass
from typing import Final

from whenever import Instant


@dataclass(frozen=True, slots=True)
class Drops:
    """Dropped records that no `log-gap` record counts yet: how many, and when the first and the last of them were."""

    count: int
    since: Instant
    until: Instant


class DropCounter:
    """May be called by threads, and by a signal handler that interrupts one of them."""

    def __init__(self) -> None:
        """Nothing was dropped yet."""
        self.total = 0
        """All since the start."""
        self._untold: Drops | None = None
        self._lock: Final = threading.RLock()  # reentrant, for the signal handler

    @property
    def untold(self) -> int:
        """How many no `log-gap` record counts yet."""
        return 0 if (drops := self._untold) is None else drops.count

    def drop(self, count: int, now: Instant) -> None:
        """Count records that were dropped at `now`."""
        with self._lock:
            before = self._untold
            self._untold = Drops(count + before.count, before.since, now) if before else Drops(count, now, now)
            self.total += count

    def take(self) -> Drops | None:
        """Take what no `log-gap` record counts yet; the caller writes that record. None if nothing was dropped."""
        with self._lock:
            drops, self._untold = self._untold, None
        return drops
