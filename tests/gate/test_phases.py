"""Reporting transitions: each once, at its instant by the wall clock, however that jumps."""

import asyncio
from dataclasses import dataclass

import pytest
from whenever import Instant

import builders
from tokgate.gate import phases
from tokgate.policy.decision import Phase
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import Transition

START = builders.at("2023-03-09T23:00:00Z")
END = builders.at("2023-09-09T22:00:00Z")
SNAPSHOT = builders.snapshot(builders.ban(expires=builders.wall("2023-09-10T00:00")))
TICK = {"nanoseconds": 1}


@pytest.mark.parametrize(
    ("since", "now", "count"),
    [
        (START.subtract(**TICK), START, 1),
        (START, START.add(**TICK), 0),
        (START.subtract(seconds=1), START.subtract(**TICK), 0),
        (START.subtract(seconds=1), END, 2),
        (END, START, 0),
    ],
)
def test_passed(since: Instant, now: Instant, count: int) -> None:
    """What lies after `since` and not after `now`; a clock that goes back passes nothing."""
    assert len(phases.passed(SNAPSHOT, since, now)) == count


@pytest.mark.parametrize(
    ("now", "seconds"),
    [(START.subtract(hours=1), 1.0), (START.subtract(milliseconds=250), 0.25), (END.add(hours=1), 1.0)],
)
def test_nap(now: Instant, seconds: float) -> None:
    """Until the next transition, and never so long that a jump goes unnoticed."""
    assert phases.nap(SNAPSHOT, now) == pytest.approx(seconds)


def test_a_jump_over_years_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much lies between, only so much is reported at once."""
    monkeypatch.setattr(phases, "MAX_AT_ONCE", 1)

    assert len(phases.passed(SNAPSHOT, START.subtract(seconds=1), END)) == 1


@dataclass
class Holder:
    """Holds a snapshot."""

    snapshot: Snapshot


async def test_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transition is reported once, forwards only."""
    times = iter([START.subtract(seconds=1), START.subtract(milliseconds=1), START, START, END, START, END])
    reported: list[tuple[Instant, Phase | None]] = []

    def now() -> Instant:
        try:
            return next(times)
        except StopIteration:
            raise asyncio.CancelledError from None

    def report(transition: Transition, _: Snapshot) -> None:
        reported.append((transition.at, transition.after))

    monkeypatch.setattr(phases, "LONGEST_NAP", 0.0)
    with pytest.raises(asyncio.CancelledError):
        await phases.follow(Holder(SNAPSHOT), report, now)

    assert reported == [(START, Phase.BLOCK), (END, Phase.EXPIRED), (END, Phase.EXPIRED)]
