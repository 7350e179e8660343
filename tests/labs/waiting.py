"""Waiting for a condition: what never comes to hold fails in the end, and a crowded machine fails nothing."""

import asyncio
import select
import time
from collections.abc import Callable
from typing import Any, Final

DEADLINE: Final = 120.0
"""Seconds: far more than anything takes that happens at all."""

_LONGEST_PAUSE: Final = 0.05
"""Seconds."""


def until[T](what: str, probe: Callable[[], T | None], seconds: float = DEADLINE, every: float = 0.01) -> T:
    """Poll until the probe gives something true, and give it; say what was awaited when the deadline passes.

    The longer it takes, the longer are the pauses: a probe may take the processor from what is waited for.
    """
    give_up = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < give_up, f"not within {seconds:g} s: {what}"
        time.sleep(every)
        every = max(every, min(1.2 * every, _LONGEST_PAUSE))
    return found


async def eventually(what: str, condition: Callable[[], object]) -> None:
    """The same on an event loop, which goes on meanwhile."""
    give_up = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up, f"not within {DEADLINE:g} s: {what}"
        await asyncio.sleep(0.005)


def readable(watched: Any, seconds: float) -> bool:
    """Whether a socket or descriptor can be read within so long. By poll(2): select(2) takes none from 1,024 on."""
    poller = select.poll()
    poller.register(watched, select.POLLIN)
    return bool(poller.poll(1000 * seconds))
