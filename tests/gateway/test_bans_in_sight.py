"""Which bans the kernel hears of, and when."""

from typing import Any

import pytest

from labs.builders import at, ban, network, snapshot, wall
from tokgate.gateway.bans_in_sight import acting, in_sight, next_change
from tokgate.policy.bans import Action, OnExpiry
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
    ("instant", "due"),
    [
        ("2023-01-01T00:00:00Z", A_DAY_BEFORE),
        (A_DAY_BEFORE, STARTS),
        (STARTS, ENDED),
        (ENDED, None),
    ],
)
def test_next_change(instant: str, due: str | None) -> None:
    """A table that isn't replaced at these instants says what is no longer so."""
    found = next_change(held(**ENDS), at(instant))
    assert found == (None if due is None else at(due))
