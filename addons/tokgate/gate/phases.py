"""Tells when bans change: at each transition's instant by the wall clock, a line in the log and to whoever listens.

Decisions don't wait for this: each is made for its own instant. This only reports.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final

from whenever import Instant

from tokgate.gate.enforcer import SnapshotSource
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import Transition, next_transition, transitions

MAX_AT_ONCE: Final = 1000
"""Transitions reported at once, should the clock jump over years."""
LONGEST_NAP: Final = 1.0
"""Seconds: how late a jump of the clock may be noticed."""


def passed(snapshot: Snapshot, since: Instant, now: Instant) -> list[Transition]:
    """The transitions in `(since, now]`; none if the clock went backwards."""
    if now <= since:
        return []
    return list(islice(transitions(snapshot, since.add(nanoseconds=1), now.add(nanoseconds=1)), MAX_AT_ONCE))


def nap(snapshot: Snapshot, now: Instant) -> float:
    """Seconds until it's time to look again."""
    upcoming = next_transition(snapshot, now)
    if upcoming is None:
        return LONGEST_NAP
    return min(LONGEST_NAP, max(0.0, (upcoming - now).total("seconds")))


async def follow(
    source: SnapshotSource, report: Callable[[Transition, Snapshot], None], now: Callable[[], Instant] = Instant.now
) -> None:
    """Report every transition that the wall clock passes, until cancelled."""
    since = now()
    while True:
        await asyncio.sleep(nap(source.snapshot, since))
        snapshot, at = source.snapshot, now()
        for transition in passed(snapshot, since, at):
            report(transition, snapshot)
        since = at
