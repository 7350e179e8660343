"""When coverage is told: once an hour by the wall clock and at the end, each count once."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from whenever import Instant

from tokgate.blocklog.coverage import coverage_counted
from tokgate.blocklog.document import Record
from tokgate.blocklog.stamp import Stamp
from tokgate.gate.counters import Kind

_HOUR: Final = 3600


class CoverageTeller:
    """Makes a record of what was counted since the one before. One process has one: whoever sees all counts."""

    def __init__(self, now: Instant) -> None:
        """Counting begins `now`."""
        self._since = now
        self._told: Counter[tuple[str, str]] = Counter()

    def due(self, now: Instant) -> bool:
        """Whether another hour of the clock has begun, also by a jump of it in either direction."""
        return now.timestamp() // _HOUR != self._since.timestamp() // _HOUR

    def tell(self, decisions: Mapping[Kind, int], now: Instant) -> Callable[[Stamp], Record]:
        """A record of what `decisions`, which only grow, have more than last time."""
        counts: Counter[tuple[str, str]] = Counter()
        for kind, number in decisions.items():
            counts[kind.network, kind.visibility.value] += number
        fresh: dict[str, dict[str, int]] = {}
        for (network, visibility), number in sorted((counts - self._told).items()):
            fresh.setdefault(network, {})[visibility] = number
        since, self._since, self._told = self._since, now, counts
        return partial(coverage_counted, coverage=fresh, since=min(since, now))
