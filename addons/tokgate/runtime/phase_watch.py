"""Finds phase changes of bans at their instants by the wall clock, for the log.

Decisions don't wait for this: each is made for its own instant. This only reports.
"""

from itertools import islice
from typing import Final

from whenever import Instant

from tokgate.policy.analysis.timeline import Transition, next_transition, transitions
from tokgate.policy.snapshot import Snapshot

MAX_AT_ONCE: Final = 1000
"""Transitions reported at once, if the clock jumps over years."""
LONGEST_PAUSE: Final = 1.0
"""Seconds: how late a clock change may be noticed."""


def passed(snapshot: Snapshot, since: Instant, now: Instant) -> list[Transition]:
    """The transitions in `(since, now]`, at most MAX_AT_ONCE; none if the clock was set back."""
    if now <= since:
        return []
    return list(islice(transitions(snapshot, since.add(nanoseconds=1), now.add(nanoseconds=1)), MAX_AT_ONCE))


def pause(snapshot: Snapshot, since: Instant, now: Instant) -> float:
    """Seconds until the next call of `passed`, after transitions until `since` were reported."""
    upcoming = next_transition(snapshot, since)
    if upcoming is None:
        return LONGEST_PAUSE
    return min(LONGEST_PAUSE, max(0.0, (upcoming - now).total("seconds")))
