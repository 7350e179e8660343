"""Continuing past a warning: whether a page is shown, and how long continuing holds."""

from typing import Final

from whenever import Instant, TimeDelta

from tokgate.policy.bans import Action
from tokgate.policy.decision import Decision, Verdict
from tokgate.policy.schedule import add_duration
from tokgate.policy.snapshot import Track

LONGEST: Final = TimeDelta(hours=24 * 30)
"""Longest `continue_for` of a ban."""


def warns_with_a_page(decision: Decision) -> bool:
    """Whether a browser gets the warning as a page, from which it may continue."""
    return decision.verdict is Verdict.WARN and decision.response is not None and decision.response.shows_page


def blocks_from(track: Track, at: Instant) -> Instant | None:
    """When a ban that warns at `at` begins to block; None if it only warns."""
    starts = track.schedule.starts
    return starts if track.ban.action is Action.BLOCK and starts > at else None


def continued_until(track: Track, at: Instant) -> Instant:
    """Until when a client that continues at `at` may pass: for `continue_for`, or until the ban blocks or ends."""
    ends = [add_duration(at, track.ban.continue_for, track.zone)]
    ends += [end for end in (blocks_from(track, at), track.schedule.ends) if end is not None and end > at]
    return min(ends)
