"""The wall clock as the log has seen it: jumps, and the time of which it is certain enough to delete by it."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from whenever import Instant, TimeDelta

from tokgate.blocklog.integrity.chain_state import CLOCK_TOLERANCE
from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.record import Record, Stamp

SETTLED: Final = 3600.0
"""Seconds for which a checkpoint's time has to stand before files are deleted by it: whoever watches sees a jump."""
_APART: Final = 30.0
"""Seconds between checkpoints that are remembered: however many are written, these are few."""


def since_start() -> float:
    """Seconds since the machine's start, sleep included (CLOCK_BOOTTIME, clock_gettime(2)): no one can set them."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class LogClock:
    """Compares the wall clock with records, with checkpoints, and with a clock that nobody can set."""

    def __init__(self, stamp: Callable[[], Stamp], uptime: Callable[[], float] | None) -> None:
        """`stamp` is by the wall clock; `uptime` counts seconds, None: jumps forward are not looked for."""
        self._stamp: Final = stamp
        self._uptime: Final = uptime
        self._latest: Instant | None = None
        self._seen: tuple[Instant, float] | None = None
        self._signed: Final[deque[tuple[float, Instant]]] = deque()

    def look(self) -> Record | None:
        """The record that the clock jumped since the last look; None if it didn't."""
        stamp, before = self._stamp(), self._latest
        due = self._due(stamp.at)
        self._latest = stamp.at
        if before is not None and stamp.at < before.subtract(seconds=CLOCK_TOLERANCE):
            self._forget_after(stamp.at)
            return log_state.clock_set_back(stamp, before)
        self._latest = max(stamp.at, before or stamp.at)
        if due is not None and stamp.at > due.add(seconds=CLOCK_TOLERANCE):
            return log_state.clock_set_forward(stamp, due)
        return None

    def _due(self, now: Instant) -> Instant | None:
        """What time it has to be, by the last look and the clock that nobody can set; None at the first look."""
        if self._uptime is None:
            return None
        seen, up = self._seen, self._uptime()
        self._seen = now, up
        return None if seen is None else seen[0] + TimeDelta(seconds=up - seen[1])

    def was_written(self, at: Instant | None, *, signed: bool) -> None:
        """Note the instant of the last record of an earlier run, and whether that is a checkpoint."""
        self._latest = at
        if at is not None and signed:
            self._signed.append((time.monotonic() - SETTLED, at))

    def signed(self, at: Instant) -> None:
        """Note the instant of a checkpoint, now."""
        now = time.monotonic()
        if not self._signed or now - self._signed[-1][0] >= _APART:
            self._signed.append((now, at))
        self.settled()

    def settled(self) -> Instant | None:
        """The time that the newest checkpoint states which has stood for SETTLED seconds; None if none has."""
        since = time.monotonic() - SETTLED
        # What is older than another that counts is not needed any more.
        while len(self._signed) > 1 and self._signed[1][0] <= since:
            self._signed.popleft()
        first = next(iter(self._signed), None)
        return None if first is None or first[0] > since else first[1]

    def _forget_after(self, now: Instant) -> None:
        """A clock that was set back says that checkpoints which are later than it were wrong."""
        kept = [each for each in self._signed if each[1] <= now]
        self._signed.clear()
        self._signed.extend(kept)
