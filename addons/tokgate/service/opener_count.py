"""How many openers there are: one more while those that run have no time left, one fewer after idle minutes.

Pure: times, and what openers report of themselves, are passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

BUSY: Final = 0.8
"""The share of time for which openers have work, on average, from which they have no time left."""
BUSY_SECONDS: Final = 5.0
"""How long they have none before one more starts, which takes seconds itself."""
IDLE: Final = 0.4
"""The average share up to which one fewer would do, with it gone: far below BUSY, so that none starts again at once."""
IDLE_SECONDS: Final = 300.0
"""How long one fewer would do before the last one is retired."""
DEATH_SECONDS: Final = 300.0
"""After an opener died none is added for so long: memory may be short, and another one would take more."""


@dataclass(frozen=True, slots=True)
class OpenerRange:
    """The fewest and the most openers."""

    least: int = 1
    most: int = 1

    @classmethod
    def on(cls, cores: int) -> Self:
        """The default: one for two cores, and up to one for each while they are busy."""
        return cls(max(1, cores // 2), cores)

    def holds(self, count: int) -> int:
        """The number in the range that is closest to `count`."""
        return min(max(count, self.least), self.most)


class OpenerCount:
    """Counts the openers that have to run. Times in monotonic seconds."""

    def __init__(self, bounds: OpenerRange) -> None:
        self.wanted = bounds.least
        self._bounds: Final = bounds
        self._busy_since: float | None = None
        self._idle_since: float | None = None
        self._not_before = 0.0

    def begin_with(self, count: int) -> None:
        """Go on with as many as a program before had, as far as there may be."""
        self.wanted = self._bounds.holds(count)

    def died(self, now: float) -> None:
        """One ended without being told to."""
        self._not_before = now + DEATH_SECONDS

    def look(self, shares: Sequence[float], now: float) -> None:
        """Decide again. `shares`: for which share of time (0 to 1) each opener that has reported has work."""
        load = sum(shares)
        judged = len(shares) >= self.wanted  # else one starts: how it will be with that one is not known yet
        busy = judged and load >= BUSY * self.wanted and self.wanted < self._bounds.most and now >= self._not_before
        idle = judged and load <= IDLE * (self.wanted - 1) and self.wanted > self._bounds.least
        self._busy_since = _since(self._busy_since, now, goes_on=busy)
        self._idle_since = _since(self._idle_since, now, goes_on=idle)
        if self._busy_since is not None and now - self._busy_since >= BUSY_SECONDS:
            self.wanted, self._busy_since = self.wanted + 1, None
        elif self._idle_since is not None and now - self._idle_since >= IDLE_SECONDS:
            self.wanted, self._idle_since = self.wanted - 1, None


def _since(before: float | None, now: float, *, goes_on: bool) -> float | None:
    """Since when something goes on without a break."""
    if not goes_on:
        return None
    return now if before is None else before
