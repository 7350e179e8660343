"""Which child processes hang, and what is wrong with them in words. Pure: times are passed in.

Each process reports about once a second. One that was stopped, or whose loop hangs, reports no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tokgate.runtime.status import SILENT
from tokgate.service.children import Child, Role
from tokgate.service.continuity.restarts import RestartState

HANGS: Final = 10.0
"""Seconds without a report after which a process is killed, so that another takes its place."""
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


class Heartbeat:
    """Finds the processes that hang. A pause of the supervisor itself counts as nobody's silence."""

    def __init__(self, now: float) -> None:
        """Times are monotonic seconds."""
        self._looked = now

    def hanging(self, children: Sequence[Child], now: float) -> list[Child]:
        """The processes to be killed; to be called often, after all reports were taken."""
        paused, self._looked = now - self._looked, now
        if paused >= PAUSED:
            for child in children:
                if child.heard:
                    child.heard = min(now, child.heard + paused)
                else:
                    child.started += paused
        return [child for child in children if child.silence(now) >= _patience(child)]


def _patience(child: Child) -> float:
    if not child.heard:
        return STARTING
    return OPENER_HANGS if child.role is Role.OPENER else HANGS


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
