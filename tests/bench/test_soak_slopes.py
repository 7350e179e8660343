"""What a soak takes for growth."""

import os
import random
from pathlib import Path

import pytest
from soak_slopes import LIMITS, Measured, judged, slope

MINUTES = [each / 30 for each in range(900)]


def verdict(value: float, step: float = 0.0, noise: float = 0.0) -> list[str]:
    """What is said to grow where memory grows by `value` a minute, by `step` once, and sways by `noise`."""
    rng = random.Random(1)
    points = [(at, 50_000 + value * at + (step if at > 15 else 0) + rng.uniform(-noise, noise)) for at in MINUTES]
    said: list[str] = []
    grows = judged(Measured({"memory of the gate": points}), said.append)
    assert len(said) == 1
    return grows


@pytest.mark.parametrize(
    ("grown", "found"),
    [((0.0,), False), ((57.0,), True), ((57.0, 0.0, 200.0), True), ((0.0, 4000.0), False), ((0.0, 0.0, 500.0), False)],
    ids=["level", "as the opener of old", "amid noise", "a cache that filled once", "noise alone"],
)
def test_growth(grown: tuple[float, ...], found: bool) -> None:
    """57 kB a minute is a leak; one step, or peaks, are none."""
    assert (verdict(*grown) != []) is found


def test_peaks_move_no_slope() -> None:
    """A median of slopes: a third of the values may be anything."""
    points = [(at, 2 * at + (10_000 if number % 5 == 0 else 0)) for number, at in enumerate(MINUTES)]
    assert slope(points) == pytest.approx(2, rel=0.2)
    assert slope([(1.0, 5.0)]) == 0


def test_it_measures(tmp_path: Path) -> None:
    """This process has memory and descriptors, and one that is gone is left out."""
    (tmp_path / "block.ndjson").write_bytes(bytes(2048))
    measured = Measured()
    measured.look({"gate": os.getpid(), "gone": 1 << 22}, tmp_path, 7)
    measured.look({"gate": os.getpid()}, tmp_path, 8)  # too early
    assert measured.points["log"] == [(7.0, 2.0)]
    assert measured.points["memory of the gate"][0][1] > 1000
    assert {name.partition(" ")[0] for name in measured.points} == LIMITS.keys()
    assert "memory of the gone" not in measured.points
