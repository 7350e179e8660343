"""What grows with time: memory, descriptors and the log of a tokgate under load, measured and judged.

A slope is the median of the slopes between all pairs of measurements (Theil–Sen), which single peaks don't move. It
fails a run if it is above its limit in both halves of the time that counts: what a cache takes once is in one of them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Final

EVERY: Final = 2.0
"""Seconds between two measurements."""
WARMING: Final = 0.2
"""The share of the time in which caches fill."""
MOST: Final = 150
"""Measurements of a half that are compared in pairs."""
LIMITS: Final[Mapping[str, float]] = {"memory": 10.0, "descriptors": 0.5, "log": 0.15}
"""The most by which each may grow: kB a minute, descriptors a minute, kB a connection."""

type Points = Sequence[tuple[float, float]]


@dataclass(slots=True)
class Measured:
    """Measurements by what they are of: of processes over minutes, of the log over connections."""

    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    _next: float = 0.0
    _began: float | None = None

    def look(self, processes: Mapping[str, int], folder: Path, connections: int) -> None:
        """Measure, if it is time. A process that is gone is left out."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        self._began = now if self._began is None else self._began
        minutes = (now - self._began) / 60
        for name, pid in processes.items():
            try:
                self._add(f"memory of the {name}", minutes, _memory(pid))
                self._add(f"descriptors of the {name}", minutes, len(list(Path(f"/proc/{pid}/fd").iterdir())))
            except OSError:
                continue
        size = sum(path.stat().st_size for path in folder.glob("block*"))
        self._add("log", float(connections), size / 1024)

    def _add(self, what: str, at: float, value: float) -> None:
        self.points.setdefault(what, []).append((at, value))


def _memory(pid: int) -> float:
    """A process's own memory: kB that are shared with nobody, swapped out or not (proc_pid_smaps(5))."""
    kinds = ("Private_Clean:", "Private_Dirty:", "Swap:")
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return float(sum(int(line.split()[1]) for line in lines if line.startswith(kinds)))


def slope(points: Points) -> float:
    """How much the values grow for each unit: the median over all pairs; 0.0 with fewer than two places."""
    chosen = points[:: max(1, len(points) // MOST)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(chosen, 2) if b[0] > a[0]]
    return median(slopes) if slopes else 0.0


def judged(measured: Measured, say: Callable[[str], object]) -> list[str]:
    """What grew, after saying how much everything did."""
    grows = []
    for what, points in measured.points.items():
        counted = [each for each in points if each[0] >= WARMING * points[-1][0]]
        halves = counted[: len(counted) // 2], counted[len(counted) // 2 :]
        limit = LIMITS[what.partition(" ")[0]]
        found = [slope(half) for half in halves]
        unit = "kB a connection" if what == "log" else "a minute" if what[0] == "d" else "kB a minute"
        verdict = "grows" if min(found) > limit else "level"
        first, last = counted[0][1] if counted else 0.0, counted[-1][1] if counted else 0.0
        halves_said = " and ".join(f"{each:+.3f}" for each in found)
        say(f"{what}: {first:,.0f} to {last:,.0f}; {halves_said} {unit} in the two halves, at most {limit}: {verdict}")
        if min(found) > limit:
            grows.append(what)
    return grows
