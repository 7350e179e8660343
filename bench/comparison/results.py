"""What was measured: one figure for each test, proxy, round and metric; kept as JSON, one sample a line."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

Figures = Mapping[str, float]

DISTURBING: Final = 0.15
"""Processors busy with other work from which on a sample counts as disturbed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One test of one proxy in one round. `others`: processors that work outside the bench kept busy meanwhile."""

    test: str
    proxy: str
    round: int
    others: float
    figures: Figures


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that could not be done, and why. `test` None: the proxy could not run at all; `round` None: all rounds."""

    test: str | None
    proxy: str
    round: int | None
    reason: str


@dataclass(slots=True)
class Results:
    """All samples of a run, and what could not be measured."""

    about: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def by_round(self, test: str, proxy: str, metric: str) -> dict[int, float]:
        """The figure in each round that has it."""
        return {
            sample.round: sample.figures[metric]
            for sample in self.samples
            if sample.test == test and sample.proxy == proxy and metric in sample.figures
        }

    def proxies(self, test: str) -> list[str]:
        """Which proxies have samples of a test, in the order in which they were measured first."""
        return list(dict.fromkeys(sample.proxy for sample in self.samples if sample.test == test))

    def metrics(self, test: str) -> list[str]:
        """Which figures a test has."""
        return list(dict.fromkeys(name for sample in self.samples if sample.test == test for name in sample.figures))

    def disturbed(self) -> int:
        """How many samples were taken while other work kept a noticeable part of a processor busy."""
        return sum(sample.others > DISTURBING for sample in self.samples)

    def why_missing(self, test: str, proxy: str) -> str:
        """Why there is no sample."""
        for failure in self.failures:
            if failure.proxy == proxy and failure.test in (None, test):
                return f"{proxy}: {failure.reason}"
        return f"{proxy}: not part of this run"

    def save(self, path: Path) -> None:
        """Write it."""
        lines = ",\n  ".join(_line(sample) for sample in self.samples)
        failures = ",\n  ".join(_line(failure) for failure in self.failures)
        about = json.dumps(self.about, indent=2, ensure_ascii=False).replace("\n", "\n ")
        path.write_text(f'{{"about": {about},\n "samples": [\n  {lines}\n ],\n "failures": [\n  {failures}\n ]}}\n')

    @classmethod
    def load(cls, path: Path) -> "Results":
        """Read what `save` wrote."""
        stated = json.loads(path.read_text("utf-8"))
        return cls(
            about=stated["about"],
            samples=[Sample(**sample) for sample in stated["samples"]],
            failures=[Failure(**failure) for failure in stated["failures"]],
        )


def _line(record: Sample | Failure) -> str:
    if isinstance(record, Sample):
        figures = {name: float(f"{value:.5g}") for name, value in record.figures.items()}
        stated: dict[str, Any] = {"test": record.test, "proxy": record.proxy, "round": record.round}
        stated |= {"others": round(record.others, 2), "figures": figures}
    else:
        stated = {"test": record.test, "proxy": record.proxy, "round": record.round, "reason": record.reason}
    return json.dumps(stated, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the least and the greatest of what it is the median of."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __iter__(self) -> Iterator[float]:
        return iter((self.median, self.least, self.greatest))
