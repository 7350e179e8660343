"""Whether a gate looks for more before it sleeps: where that pays, and not where others need the processor."""

from collections.abc import Callable

import pytest

from tokgate.gate.event_loop import CONTENDED, CREDIT, FEW, LONGEST, SHORT, BusyPolling, Events

EVENT: Events = [(7, 1)]
STEP = 2e-6
"""What a look takes, in seconds."""


class Kernel:
    """An epoll object whose next event comes `after` so many seconds, and the clock beside it."""

    def __init__(self, after: float, events: Events = EVENT, step: float = STEP) -> None:
        self.now = 0.0
        self.after = after
        self.step = step
        self.sleeps = self.looks = 0
        self._events = events
        self._comes = after

    def clock(self) -> float:
        return self.now

    def poll(self, timeout: float, most: int) -> Events:
        assert most >= len(self._events)
        if timeout > 0:
            self.sleeps += 1
            if self._comes > self.now + timeout:
                self.now += timeout
                return []
            self.now = max(self.now, self._comes)
        else:
            self.looks += 1
            self.now += self.step
        if self.now < self._comes:
            return []
        self._comes = self.now + self.after
        return self._events


@pytest.fixture
def polling() -> Callable[[Kernel], BusyPolling]:
    return lambda kernel: BusyPolling(kernel.poll, kernel.clock)


def _served(polling: BusyPolling, times: int, timeout: float = 1.0) -> None:
    for _ in range(times):
        assert polling.wait(timeout)


@pytest.mark.parametrize("after", [0.0, STEP, LONGEST / 2])
def test_what_comes_soon_is_waited_for_awake(polling: Callable[[Kernel], BusyPolling], after: float) -> None:
    """A client whose words come one after another is not answered later for a sleep in between."""
    kernel = Kernel(after)
    _served(polling(kernel), 1000)
    assert kernel.sleeps == 0


def test_what_comes_late_is_slept_for(polling: Callable[[Kernel], BusyPolling]) -> None:
    """A gate with little to do takes no more of the processor than one that never looks."""
    kernel = Kernel(10 * SHORT)
    waits = polling(kernel)
    _served(waits, 100)
    assert kernel.looks > 0
    kernel.looks = 0
    _served(waits, 100)
    assert kernel.looks == 0


def test_it_is_tried_again(polling: Callable[[Kernel], BusyPolling]) -> None:
    """Where events come soon again, the gate finds out by its short sleeps."""
    kernel = Kernel(10 * SHORT)
    waits = polling(kernel)
    _served(waits, 100)
    kernel.after = LONGEST / 2
    _served(waits, 100)
    kernel.sleeps = 0
    _served(waits, 1000)
    assert kernel.sleeps == 0


def test_sleeps_that_looking_would_not_avoid(polling: Callable[[Kernel], BusyPolling]) -> None:
    """Of events that always come a little too late for it, few are looked for."""
    kernel = Kernel(SHORT * 0.9)
    waits = polling(kernel)
    _served(waits, 100)
    kernel.looks = 0
    _served(waits, 1600)
    assert 0 < kernel.looks <= 100 * (LONGEST / STEP + 2)


def test_others_need_the_processor(polling: Callable[[Kernel], BusyPolling]) -> None:
    """When another process ran instead, the gate sleeps, so that it may run on."""
    kernel = Kernel(LONGEST * 0.9, step=CONTENDED * 1.1)
    _served(polling(kernel), int(CREDIT))
    assert kernel.sleeps == CREDIT


@pytest.mark.parametrize(("events", "sleeps"), [(FEW, 0), (FEW + 1, 9)])
def test_enough_to_do(polling: Callable[[Kernel], BusyPolling], events: int, sleeps: int) -> None:
    """Behind a batch of many the next one is slept for, so that it is as large; behind one of few it is not."""
    kernel = Kernel(LONGEST / 2, EVENT * events)
    _served(polling(kernel), 10)
    assert kernel.sleeps == sleeps


def test_not_to_look(polling: Callable[[Kernel], BusyPolling]) -> None:
    """A gate that carries data sleeps at once: what it would look for comes without end."""
    kernel = Kernel(LONGEST / 2)
    waits = polling(kernel)
    for _ in range(10):
        assert waits.wait(1.0, look=False)
    assert (kernel.looks, kernel.sleeps) == (0, 10)


def test_no_wait(polling: Callable[[Kernel], BusyPolling]) -> None:
    """With bulk to carry it looks once, and nothing is learned from that."""
    kernel = Kernel(LONGEST / 2)
    waits = polling(kernel)
    for _ in range(100):
        assert waits.wait(0.0) == []
        kernel.now = 0.0
    assert kernel.sleeps == 0


def test_the_timeout(polling: Callable[[Kernel], BusyPolling]) -> None:
    """Nothing comes: the gate goes on to what is due."""
    kernel = Kernel(100.0)
    assert polling(kernel).wait(0.25) == []
    assert kernel.now == pytest.approx(0.25 + LONGEST, abs=2 * STEP)
