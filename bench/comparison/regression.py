"""Compares a short run with the results that were kept: by ratio to HAProxy in the same run, whatever the machine."""

from dataclasses import dataclass
from typing import Final

from comparison.results import Results, Spread

OURS: Final = "tokgate"
REFERENCE: Final = "haproxy"
_TOLERANCE: Final = 0.10
_TAIL_TOLERANCE: Final = 0.30
"""For percentiles far out, which a short run measures less well."""

WATCHED: Final[dict[tuple[str, str], bool]] = {
    ("small1", "rate"): True,
    ("small32", "rate"): True,
    ("small32", "cpu_us"): False,
    ("small32", "p99_ms"): False,
    ("small256", "rate"): True,
    ("bulk1", "mb_per_s"): True,
    ("bulk8", "mb_per_s"): True,
    ("bulk8", "cpu_s_per_gib"): False,
    ("beside-bulk", "p99_ms"): False,
    ("refused1", "p50_ms"): False,
    ("refused32", "rate"): True,
    ("idle", "kib"): False,
}
"""Test and metric, and whether more of it is better."""


@dataclass(frozen=True, slots=True)
class Change:
    """A figure's ratio to HAProxy, kept and now. `slower`: clearly worse now than in the worst round that was kept."""

    test: str
    metric: str
    more_is_better: bool
    kept: Spread
    now: Spread

    @property
    def slower(self) -> bool:
        """Whether to say so."""
        tolerance = _TAIL_TOLERANCE if self.metric.startswith("p99") else _TOLERANCE
        if self.more_is_better:
            return self.now.median < self.kept.least * (1 - tolerance)
        return self.now.median > self.kept.greatest * (1 + tolerance)

    @property
    def percent(self) -> float:
        """How much better (above zero) or worse it is than the kept median."""
        change = self.now.median / self.kept.median
        return 100 * ((change if self.more_is_better else 1 / change) - 1)


def ratios(results: Results, test: str, metric: str) -> Spread | None:
    """Ours to HAProxy's, in each round that has both."""
    ours, theirs = results.by_round(test, OURS, metric), results.by_round(test, REFERENCE, metric)
    both = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys() if theirs[number] > 0]
    return Spread.of(both) if both and min(both) > 0 else None


def compare(kept: Results, now: Results) -> list[Change]:
    """Every watched figure that both runs have."""
    changes = []
    for (test, metric), more_is_better in WATCHED.items():
        before, after = ratios(kept, test, metric), ratios(now, test, metric)
        if before and after:
            changes.append(Change(test, metric, more_is_better, before, after))
    return changes


def rows(changes: list[Change]) -> list[list[str]]:
    """A table, header first."""
    table = [["test", "figure", "× HAProxy kept", "spread", "now", "change", ""]]
    for change in changes:
        kept, now = change.kept, change.now
        figures = [f"{kept.median:.3f}", f"{kept.least:.3f}–{kept.greatest:.3f}", f"{now.median:.3f}"]
        table.append(
            [change.test, change.metric, *figures, f"{change.percent:+.0f} %", "SLOWER" if change.slower else ""]
        )
    return table
