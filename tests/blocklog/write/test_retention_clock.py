"""Jumps of the wall clock, and the time that is certain enough to delete by."""

import time

import pytest

from labs.builders import at
from labs.samples import OBSERVER
from tokgate.blocklog.records.record import new_stamp
from tokgate.blocklog.write.retention import SETTLED, LogClock, since_start

NOON = at("2023-03-10T12:00:00Z")


class Clocks:
    """A wall clock that can be set, and one that can't."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.up = NOON, 1000.0
        monkeypatch.setattr("tokgate.blocklog.write.retention.time.monotonic", lambda: self.up)
        self.log = LogClock(lambda: new_stamp(self.wall, OBSERVER), lambda: self.up)
        self.look()

    def look(self, seconds: float = 0.0, *, jump: float = 0.0) -> tuple[str, float] | None:
        """Some seconds later, and a jump of the wall clock: what is recorded."""
        self.up += seconds
        self.wall = self.wall.add(seconds=seconds + jump)
        told = self.log.look()
        return None if told is None else (told["event"]["action"], told["tokgate"]["clock"]["seconds"])


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_jumps(clocks: Clocks) -> None:
    """Both directions are told once, with their seconds; time that passes is no jump, however long."""
    assert clocks.look(86_400) is None
    assert clocks.look(1, jump=2) is None
    assert clocks.look(1, jump=400 * 86_400) == ("clock-set-forward", 400 * 86_400)
    assert clocks.look(1) is None
    assert clocks.look(0, jump=-400 * 86_400) == ("clock-set-back", 400 * 86_400)
    assert clocks.look(1) is None


def test_settled(clocks: Clocks) -> None:
    """A checkpoint's time counts once it has stood for an hour; the newest such one; never one that proved wrong."""
    assert clocks.log.settled() is None
    clocks.log.signed(NOON)
    clocks.look(SETTLED - 1)
    assert clocks.log.settled() is None
    clocks.log.signed(clocks.wall)
    clocks.look(1)
    assert clocks.log.settled() == NOON
    clocks.look(60, jump=86_400)
    clocks.log.signed(clocks.wall)
    clocks.look(SETTLED - 1)
    assert clocks.log.settled() == NOON.add(seconds=SETTLED - 1)
    clocks.look(0, jump=-86_400)
    clocks.look(SETTLED)
    assert clocks.log.settled() == NOON.add(seconds=SETTLED - 1)


def test_an_earlier_run(clocks: Clocks) -> None:
    """The checkpoint with which a run ended tells at once what time it was; another record does not."""
    clocks.log.was_written(NOON, signed=False)
    assert clocks.log.settled() is None
    clocks.log.was_written(NOON, signed=True)
    assert clocks.log.settled() == NOON


def test_many_checkpoints(clocks: Clocks) -> None:
    """However many come within an hour, one from about an hour ago is found."""
    for _ in range(5000):
        clocks.look(1)
        clocks.log.signed(clocks.wall)
    settled = clocks.log.settled()
    assert settled is not None
    assert SETTLED <= (clocks.wall - settled).total("seconds") <= SETTLED * 1.2


def test_seconds_of_sleep_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that slept for an hour has no clock that jumped."""
    monkeypatch.setattr(time, "clock_gettime", lambda clock: {time.CLOCK_BOOTTIME: 4600.0}[clock])
    assert since_start() == 4600.0
