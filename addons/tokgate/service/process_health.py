"""Which child processes hang or keep dying, and when they are started again.

Times, and what processes report of themselves, are passed in. Each process reports about once a second; one that was
stopped, or whose loop hangs, reports no more.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokgate.service.children import Child, Role
from tokgate.service.status import SILENT

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


HANGS: Final = 10.0
"""Seconds without a report after which a process is killed, so that another takes its place.

Those in which it waited for a processor don't count: it is busy, as all of the machine is, and another would be so too.
"""
STILL: Final = 5.0
"""Seconds in which a silent process has neither run nor waited for a processor, after which it is killed.

It was stopped, or waits for what does not come: a report would have taken it a moment.
"""
OPENER_HANGS: Final = 30.0
"""The same for openers, which stand back where processors are short."""
_STARTS: Final = {Role.OPENER: 20.0, Role.COLLECTOR: 5.0, Role.METRICS: 5.0}
"""Seconds that a process may take to start before it is missed; a gate is missed at once."""
STARTING: Final = 60.0
"""Seconds for its first report: an opener imports mitmproxy, which takes long on a machine that is busy."""
PAUSED: Final = 2.0
"""Seconds between two looks after which it was the supervisor that did not run, as when all of them were stopped."""
KEEPS_DYING: Final = 3
"""Deaths of a slot within DYING_SECONDS that make it unhealthy."""
DYING_SECONDS: Final = 300.0
MOST_DESCRIPTORS: Final = 0.9
"""The share of a process's descriptors beyond which it is short of them."""

_WITHOUT: Final = {
    Role.GATE: "no gate serves",
    Role.OPENER: "no opener serves: no page is shown, and HTTP that needs one is refused",
    Role.COLLECTOR: "nothing writes the log",
    Role.METRICS: "nothing serves metrics",
}


def processor_use(pid: int) -> tuple[float, float]:
    """Seconds for which threads of a process ran, and waited for a processor (Linux: scheduler/sched-stats.rst).

    Zeros where the kernel doesn't tell, or the process has ended.
    """
    ran = waited = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            times = (thread / "schedstat").read_text().split()
            ran, waited = ran + int(times[0]), waited + int(times[1])
    return ran / 1e9, waited / 1e9


@dataclass(slots=True)
class _Silence:
    """A process that is silent: for how long it was at the first look, and when it last had anything to do."""

    first: float
    used: tuple[float, float]
    """As of `processor_use`, at the latest look."""
    moved: float
    """How long it was silent when that last grew."""
    excused: float = 0.0
    """Seconds of the silence in which it waited for a processor."""


class Heartbeat:
    """Finds the processes that hang. A pause of the supervisor itself counts as nobody's silence."""

    def __init__(self, now: float, *, use: Callable[[int], tuple[float, float]] = processor_use) -> None:
        """Times are monotonic seconds. `use`: as `processor_use`."""
        self._looked = now
        self._use: Final = use
        self._silent: dict[int, _Silence] = {}

    def hanging(self, children: Sequence[Child], now: float) -> list[Child]:
        """The processes to be killed; to be called often, after all reports were taken."""
        paused, self._looked = now - self._looked, now
        if paused >= PAUSED:
            self._silent.clear()
            for child in children:
                if child.heard:
                    child.heard = min(now, child.heard + paused)
                else:
                    child.started += paused
        silent = [child for child in children if child.silence(now) >= SILENT]
        self._silent = {child.pid: self._look(child.pid, child.silence(now)) for child in silent}
        return [child for child in silent if self._hangs(child, child.silence(now))]

    def _hangs(self, child: Child, silence: float) -> bool:
        known = self._silent[child.pid]
        still = bool(child.heard) and any(known.used) and silence - known.moved >= STILL
        patience = STARTING if not child.heard else OPENER_HANGS if child.role is Role.OPENER else HANGS
        return still or silence - known.excused >= patience

    def _look(self, pid: int, silence: float) -> _Silence:
        """What is known of a silent process now. The kernel counts a wait at its end, one of each thread."""
        used, known = self._use(pid), self._silent.get(pid)
        if known is None:
            return _Silence(silence, used, silence)
        excused = min(known.excused + max(0.0, used[1] - known.used[1]), silence - known.first)
        return _Silence(known.first, used, known.moved if used == known.used else silence, excused)


def faults(
    children: Sequence[Child],
    wanted: Sequence[tuple[Role, int]],
    states: Mapping[tuple[Role, int], RestartState],
    now: float,
) -> Iterator[str]:
    """Why clients may not get what they should, in words, whatever serves beside it."""
    current = [child for child in children if not child.retired]
    for role in dict.fromkeys(role for role, _ in wanted):
        serving = children if role is Role.COLLECTOR else current  # one that finishes is followed by another at once
        if not any(child.role is role and _works(child, now) for child in serving):
            yield _WITHOUT[role]
    for child in current:
        if child.heard and child.silence(now) >= SILENT:
            yield f"{child.name} has not reported for {child.silence(now):.0f} s"
        if child.report.get("full"):
            yield f"{child.name} is at its limit of {child.report['full']} connections, and accepts no more"
        yield from _shortages(child)
    for (role, slot), state in states.items():
        deaths = sum(now - died < DYING_SECONDS for died in state.recent)
        if deaths >= KEEPS_DYING:
            yield f"{role.value}-{slot} keeps dying, {deaths} times in five minutes: {state.last}"


def _works(child: Child, now: float) -> bool:
    """Whether it serves, or will in a moment: what gates hand over waits for it, and so do records."""
    if not child.heard:
        return child.silence(now) < _STARTS.get(child.role, 0.0)
    return child.silence(now) < SILENT


def _shortages(child: Child) -> Iterator[str]:
    """What a process lacks for its work, by its own report."""
    used, limit = child.report.get("descriptors") or (0, 1)
    if used >= MOST_DESCRIPTORS * limit:
        yield f"{child.name} has {used} of its {limit} descriptors open"
    if child.report.get("starved"):
        yield f"{child.name} can't connect for want of what this machine has: {child.report['starved']}"
    if child.report.get("accounts"):
        yield f"users can't sign in to {child.name}: {child.report['accounts']}"
