"""Busy polling: a gate that has just served something looks for more for some microseconds before it sleeps.

On a virtual machine it takes 20 µs and more until a processor that has become idle runs a process again. Looking does
not keep the processor from others: it yields to them, and ends when one has run. Where it does not pay, because
the next event mostly comes later, the gate sleeps at once and tries again now and then.
"""

import time
from collections.abc import Callable
from os import sched_yield
from typing import Final

EVENTS: Final = 512
"""Events taken at once."""
LONGEST: Final = 50e-6
"""Seconds of looking before a sleep."""
CONTENDED: Final = 20e-6
"""If a look took longer than this, in seconds, another process ran meanwhile."""
SHORT: Final = 200e-6
"""A sleep that was no longer than this, in seconds, might have been avoided."""
FEW: Final = 2
"""With more events at a time a gate has enough to do, and sleeping lets more of them come together."""
CREDIT: Final = 8.0
_IN_VAIN: Final = 0.5
"""What looking in vain costs. What was found brings 1, so that a third of the tries has to succeed."""
_SLEPT: Final = 1 / 32
"""What a short sleep brings."""

Events = list[tuple[int, int]]


class BusyPolling:
    """Waits for events of an epoll object."""

    def __init__(self, poll: Callable[[float, int], Events], clock: Callable[[], float] = time.perf_counter) -> None:
        """`poll` is as `select.epoll.poll`, `clock` in seconds."""
        self._poll: Final = poll
        self._clock: Final = clock
        self._credit = CREDIT
        self._latest: Events = []

    def wait(self, timeout: float, *, look: bool = True) -> Events:
        """The events that there are, at the latest after `timeout` seconds; without `look` it sleeps at once."""
        if timeout <= 0 or not look or len(self._latest) > FEW:
            ready = self._poll(timeout, EVENTS)
        elif self._credit < 1:
            ready = self._sleep(timeout)
        else:
            ready = self._look() or self._poll(timeout, EVENTS)
        self._latest = ready
        return ready

    def _sleep(self, timeout: float) -> Events:
        began = self._clock()
        ready = self._poll(timeout, EVENTS)
        if ready and self._clock() - began <= SHORT:
            self._credit += _SLEPT
        return ready

    def _look(self) -> Events:
        poll, clock = self._poll, self._clock
        ready = poll(0, EVENTS)
        if ready:
            return ready
        began = looked = clock()
        while looked - began < LONGEST:
            sched_yield()
            ready = poll(0, EVENTS)
            if ready:
                self._credit = min(CREDIT, self._credit + 1)
                return ready
            before, looked = looked, clock()
            if looked - before > CONTENDED:
                break
        self._credit -= _IN_VAIN
        return []
