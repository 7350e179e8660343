"""Coverage records: once an hour of wall-clock time and at the end, each decision counted in one of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.record import Record, Stamp
from tokgate.traffic.counters import DecisionKey

_HOUR: Final = 3600


class CoverageReporter:
    """Makes records of what was counted since the one before. There is one for all processes."""

    def __init__(self, now: Instant) -> None:
        """Counting begins `now`."""
        self._since = now
        self._told: Counter[tuple[str, str]] = Counter()
        self._refused: Counter[str] = Counter()

    def due(self, now: Instant) -> bool:
        """Whether another wall-clock hour has begun, also by a clock change in either direction."""
        return now.timestamp() // _HOUR != self._since.timestamp() // _HOUR

    def tell(
        self, decisions: Mapping[DecisionKey, int], now: Instant, refused: Mapping[str, int] = MappingProxyType({})
    ) -> Callable[[Stamp], Record]:
        """A record of the difference between what was counted, which only grows, and what was at the last call.

        `refused`: packets that the kernel refused, by kind.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for kind, number in decisions.items():
            counts[kind.network, kind.visibility.value] += number
        fresh: dict[str, dict[str, int]] = {}
        for (network, visibility), number in sorted((counts - self._told).items()):
            fresh.setdefault(network, {})[visibility] = number
        since, self._since, self._told = self._since, now, counts
        by_kernel = {kind: number - self._refused[kind] for kind, number in refused.items()}
        self._refused.update(by_kernel)
        by_kernel = {kind: number for kind, number in by_kernel.items() if number > 0}
        return partial(coverage_counted, coverage=fresh, since=min(since, now), refused=by_kernel)
