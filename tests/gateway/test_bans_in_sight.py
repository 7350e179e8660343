"""Which bans the kernel hears of, and when."""

from typing import Any

import pytest
from whenever import Instant

from labs.builders import at, ban, network, snapshot, wall
from tokgate.gateway.bans_in_sight import acting, in_sight, unchanged
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot

STARTS = "2023-03-09T23:00:00Z"
"""10 March 2023 in Brussels."""
A_DAY_BEFORE = "2023-03-08T23:00:00Z"
ENDS = {"expires": wall("2023-05-01T00:00")}
ENDED = "2023-04-30T22:00:00Z"


def held(**stated: Any) -> Snapshot:
    """A policy with one ban."""
    return snapshot(ban(**stated), networks=(network("office", "192.0.2.0/24"),))


@pytest.mark.parametrize(
    ("stated", "instant", "seen"),
    [
        ({}, "2023-03-08T22:59:59Z", False),
        ({}, A_DAY_BEFORE, True),
        ({"announced": wall("2023-01-01T00:00")}, "2023-02-01T00:00:00Z", False),
        ({"monitor_from": wall("2023-02-01T00:00")}, "2023-01-30T23:00:00Z", True),
        (ENDS, "2023-04-30T21:59:59Z", True),
        (ENDS, ENDED, False),
        (ENDS | {"on_expiry": OnExpiry.HOLD}, "2024-01-01T00:00:00Z", True),
    ],
    ids=["over a day ahead", "a day ahead", "announced", "monitors", "last second", "over", "held"],
)
def test_in_sight(stated: dict[str, Any], instant: str, seen: bool) -> None:
    """A network whose ban is over or far away would be slowed for nothing; one that comes in late would be missed."""
    assert bool(in_sight(held(**stated), at(instant))) is seen


@pytest.mark.parametrize(
    ("stated", "instant", "acts"),
    [
        ({}, "2023-03-09T22:59:59Z", False),
        ({}, STARTS, True),
        ({"action": Action.MONITOR}, STARTS, False),
        ({"warn_from": wall("2023-02-01T00:00")}, "2023-02-01T00:00:00Z", True),
        (ENDS, ENDED, False),
    ],
    ids=["before", "blocks", "monitors", "warns", "over"],
)
def test_acting(stated: dict[str, Any], instant: str, acts: bool) -> None:
    """Connections from before are reset only where a ban does something to people."""
    policy = held(**stated)
    assert bool(list(acting(policy.tracks, at(instant)))) is acts


@pytest.mark.parametrize(
    ("instant", "since", "until"),
    [
        ("2023-01-01T00:00:00Z", None, A_DAY_BEFORE),
        (A_DAY_BEFORE, A_DAY_BEFORE, STARTS),
        ("2023-03-09T22:59:59Z", A_DAY_BEFORE, STARTS),
        (STARTS, STARTS, ENDED),
        (ENDED, ENDED, None),
    ],
)
def test_unchanged(instant: str, since: str | None, until: str | None) -> None:
    """A table that isn't replaced outside of this span, either way, says what is no longer so."""
    found = unchanged(held(**ENDS), at(instant))
    assert found == Span(Instant.MIN if since is None else at(since), Instant.MAX if until is None else at(until))
