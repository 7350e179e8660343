"""Reporting transitions: each once, at its instant by the wall clock, however that jumps."""

import pytest
from whenever import Instant, TimeDelta

from labs import builders
from tokgate.runtime import instance

START = builders.at("2023-03-09T23:00:00Z")
END = builders.at("2023-09-09T22:00:00Z")
SNAPSHOT = builders.snapshot(builders.ban(expires=builders.wall("2023-09-10T00:00")))
TICK = TimeDelta(nanoseconds=1)


@pytest.mark.parametrize(
    ("since", "now", "count"),
    [
        (START - TICK, START, 1),
        (START, START + TICK, 0),
        (START.subtract(seconds=1), START - TICK, 0),
        (START.subtract(seconds=1), END, 2),
        (END, START, 0),
    ],
)
def test_passed(since: Instant, now: Instant, count: int) -> None:
    """What lies after `since` and not after `now`; a clock that goes back passes nothing."""
    assert len(instance.passed_transitions(SNAPSHOT, since, now)) == count


@pytest.mark.parametrize(
    ("since", "now", "seconds"),
    [
        (START.subtract(hours=1), START.subtract(hours=1), 1.0),
        (START.subtract(seconds=1), START.subtract(milliseconds=250), 0.25),
        (START.subtract(seconds=1), START.add(milliseconds=250), 0.0),
        (START, START, 1.0),
        (END, END.add(hours=1), 1.0),
    ],
)
def test_pause(since: Instant, now: Instant, seconds: float) -> None:
    """Until the next transition that was not reported, and never so long that a jump goes unnoticed."""
    assert instance.seconds_until_next(SNAPSHOT, since, now) == pytest.approx(seconds)


def test_a_jump_over_years_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much lies between, only so much is reported at once."""
    monkeypatch.setattr(instance, "MAX_AT_ONCE", 1)

    assert len(instance.passed_transitions(SNAPSHOT, START.subtract(seconds=1), END)) == 1
