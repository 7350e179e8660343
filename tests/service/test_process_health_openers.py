"""How many openers run, by states: times and shares are made up."""

from itertools import pairwise

import pytest

from tokgate.service.process_health import (
    BUSY,
    BUSY_SECONDS,
    DEATH_SECONDS,
    IDLE,
    IDLE_SECONDS,
    OpenerCount,
    OpenerRange,
)


class Openers:
    """Openers that all have work for the same share of time, looked at every second."""

    def __init__(self, least: int, most: int) -> None:
        self.count = OpenerCount(OpenerRange(least, most))
        self.now = 1000.0

    def passes(self, seconds: float, share: float, *, reported: int | None = None) -> int:
        """Time passes; how many are wanted then. `reported`: that many have; all by default."""
        end = self.now + seconds
        while True:
            number = self.count.wanted if reported is None else reported
            self.count.look([share] * number, self.now)
            if self.now >= end:
                return self.count.wanted
            self.now += 1.0


@pytest.mark.parametrize(("cores", "bounds"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (8, (4, 8))])
def test_the_default(cores: int, bounds: tuple[int, int]) -> None:
    """One for two cores, and on demand one for each."""
    assert OpenerRange.on(cores) == OpenerRange(*bounds)


def test_one_more_while_they_are_busy() -> None:
    """Not for a moment's work, and up to the most alone."""
    openers = Openers(1, 3)
    assert openers.passes(BUSY_SECONDS - 1, BUSY) == 1
    assert openers.passes(1, BUSY) == 2
    assert openers.passes(BUSY_SECONDS - 1, BUSY) == 2  # since the new one reports
    assert openers.passes(1, BUSY) == 3
    assert openers.passes(10 * BUSY_SECONDS, 1.0) == 3


def test_a_break_begins_anew() -> None:
    """Bursts with time left between them are no lack of openers."""
    openers = Openers(1, 2)
    for _ in range(5):
        assert openers.passes(BUSY_SECONDS - 1, 1.0) == 1
        assert openers.passes(0, BUSY - 0.01) == 1


def test_one_that_has_time_is_enough() -> None:
    """Whoever is free takes the next connection, so one of them may be busy with what it has."""
    openers = Openers(2, 3)
    for _ in range(10):
        openers.count.look([1.0, 2 * BUSY - 1.01], openers.now)
        openers.now += BUSY_SECONDS
    assert openers.count.wanted == 2


def test_while_one_starts_nothing_is_judged() -> None:
    """How busy they are with it is known once it has reported."""
    openers = Openers(2, 4)
    assert openers.passes(10 * BUSY_SECONDS, 1.0, reported=1) == 2
    openers.count.begin_with(3)
    assert openers.passes(10 * IDLE_SECONDS, 0.0, reported=2) == 3


def test_the_last_one_goes_after_minutes() -> None:
    """One at a time, down to the fewest, and never for a moment without work."""
    openers = Openers(1, 3)
    openers.count.begin_with(3)
    assert openers.passes(IDLE_SECONDS - 1, 0.0) == 3
    assert openers.passes(0, BUSY / 2) == 3
    openers.now += 1
    assert openers.passes(IDLE_SECONDS, 0.0) == 2
    openers.now += 1
    assert openers.passes(IDLE_SECONDS, 0.0) == 1
    assert openers.passes(10 * IDLE_SECONDS, 0.0) == 1


@pytest.mark.parametrize("count", range(2, 9))
def test_the_same_work_never_goes_back_and_forth(count: int) -> None:
    """Whatever lets one go leaves the others far from busy."""
    most_that_is_idle = IDLE * (count - 1) / count
    openers = Openers(1, 8)
    openers.count.begin_with(count)
    assert openers.passes(IDLE_SECONDS, most_that_is_idle) == count - 1
    load = most_that_is_idle * count
    counts = [openers.passes(1, load / openers.count.wanted) for _ in range(int(4 * IDLE_SECONDS))]
    assert all(later <= earlier for earlier, later in pairwise(counts))


def test_after_a_death_none_is_added() -> None:
    """Where memory is short another one would take more of it."""
    openers = Openers(1, 2)
    openers.count.died(openers.now)
    assert openers.passes(DEATH_SECONDS - 1, 1.0) == 1
    assert openers.passes(BUSY_SECONDS + 1, 1.0) == 2


@pytest.mark.parametrize(("work", "share"), [(BUSY_SECONDS, 1.0), (IDLE_SECONDS, 0.0)], ids=["busy", "idle"])
def test_a_fixed_number(work: float, share: float) -> None:
    """`--openers 2` is two, whatever they do."""
    assert Openers(2, 2).passes(3 * work, share) == 2


@pytest.mark.parametrize(("before", "now"), [(0, 2), (3, 3), (9, 4)])
def test_a_new_program_goes_on_with_as_many(before: int, now: int) -> None:
    """As the program before had, as far as its own options allow."""
    count = OpenerCount(OpenerRange(2, 4))
    count.begin_with(before)
    assert count.wanted == now
