"""Continuing past a warning: how long it holds, and until when there is anything to continue to."""

from typing import Final

from whenever import Instant, TimeDelta

from tokgate.policy.bans import Action
from tokgate.policy.decision import Decision, Response, Verdict
from tokgate.policy.schedule import add_duration
from tokgate.policy.snapshot import Track

LONGEST: Final = TimeDelta(hours=24 * 30)
"""The longest that a ban may say."""


def warns_with_a_page(decision: Decision) -> bool:
    """Whether a browser is to be shown the warning, and may continue."""
    return decision.verdict is Verdict.WARN and decision.response is Response.PAGE


def blocks_from(track: Track, at: Instant) -> Instant | None:
    """When a ban that warns at `at` begins to block; None if it only warns."""
    starts = track.schedule.starts
    return starts if track.ban.action is Action.BLOCK and starts > at else None


def continued_until(track: Track, at: Instant) -> Instant:
    """The end of what a client that continues at `at` gets: after `continue_for`, or when the ban blocks or ends."""
    ends = [add_duration(at, track.ban.continue_for, track.zone)]
    ends += [end for end in (blocks_from(track, at), track.schedule.ends) if end is not None and end > at]
    return min(ends)
