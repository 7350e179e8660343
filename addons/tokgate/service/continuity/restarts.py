"""When processes that died are started again: at once the first time, then after longer and longer delays."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tokgate.service.children import Role

logger = logging.getLogger(__name__)

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 30.0
"""Seconds before a process that keeps dying is started again: doubled each time, from the first to the longest."""
STEADY: Final = 10.0
"""Seconds of life after which a death no longer counts as one in a row."""
RECENT_DEATHS: Final = 16
"""Most deaths of a slot whose times are remembered."""


@dataclass(slots=True)
class RestartState:
    """Deaths of the processes of a slot: in a row, in all, and when the next start is due (monotonic seconds)."""

    failures: int = 0
    deaths: int = 0
    hangs: int = 0
    """Those of the deaths that the supervisor brought about, since no report came."""
    not_before: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_DEATHS))
    """When the latest ones died, in monotonic seconds."""
    last: str = ""
    """How the latest one died."""


class Restarts:
    """Counts the deaths of each slot, and says when its next start is due."""

    def __init__(self, died: Callable[[str], None]) -> None:
        """`died` gets a description of each process that ended without being told to."""
        self.states: Final[dict[tuple[Role, int], RestartState]] = {}
        self._died: Final = died

    def postpone(self, role: Role, slot: int, what: str, now: float, *, lived: float, hung: bool = False) -> None:
        """Report a death at `now`, `what` in words after `lived` seconds of life, and compute when to start anew.

        `now` is in monotonic seconds.
        """
        state = self.states.setdefault((role, slot), RestartState())
        state.deaths += 1
        state.hangs += hung
        state.recent.append(now)
        state.last = what
        state.failures = 1 if lived > STEADY else state.failures + 1
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (state.failures - 1))
        state.not_before = now + delay
        logger.error("%s; starting it again in %.1f s", what, delay)
        self._died(what)

    def due(self, role: Role, slot: int, now: float) -> bool:
        """Whether the slot's process may be started at `now`, in monotonic seconds."""
        state = self.states.get((role, slot))
        return state is None or now >= state.not_before
