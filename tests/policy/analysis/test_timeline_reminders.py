"""When a ban's end is told: the edges of each reminder, what comes late, and what was told already."""

from typing import Any

import pytest
from whenever import Instant

from labs.builders import BRUSSELS, at, ban, network, snapshot, wall
from tokgate.policy.analysis.timeline import (
    Reminder,
    ReminderKey,
    due_reminders,
    missed_reminders,
    near_from,
    planned_reminders,
)
from tokgate.policy.schedule import Duration

TICK = 1  # nanosecond
ENDING = ban(starts=wall("2023-03-10T00:00"), expires=wall("2023-09-10T00:00"))
ENDS = at("2023-09-09T22:00:00Z")
EDGES = {
    "P30D": at("2023-08-10T22:00:00Z"),
    "P7D": at("2023-09-02T22:00:00Z"),
    "P1D": at("2023-09-08T22:00:00Z"),
}


def told_at(now: Instant, told: frozenset[ReminderKey] = frozenset(), **settings: Any) -> list[str]:
    """Which reminders of `ENDING` are told at an instant."""
    planned = planned_reminders(snapshot(ENDING, **settings))
    return [reminder.notice.before for reminder in due_reminders(planned, now, told)]


@pytest.mark.parametrize("before", EDGES)
def test_edges(before: str) -> None:
    """A reminder is due from its very instant on, and not one tick earlier."""
    edge = EDGES[before]
    assert before not in told_at(edge.subtract(nanoseconds=TICK))
    assert told_at(edge) == [before]
    assert told_at(edge.add(nanoseconds=TICK)) == [before]


def test_the_end() -> None:
    """Up to the last tick it can be told that a ban ends; at its end there is nothing to remind of."""
    assert told_at(ENDS.subtract(nanoseconds=TICK)) == ["P1D"]
    assert told_at(ENDS) == []


def test_told_once() -> None:
    """What was told is not told again, and the next one is."""
    planned = planned_reminders(snapshot(ENDING))
    told = missed_reminders(planned, EDGES["P30D"])
    assert told_at(EDGES["P30D"], told) == []
    assert told_at(EDGES["P7D"].subtract(nanoseconds=TICK), told) == []
    assert told_at(EDGES["P7D"], told) == ["P7D"]


def test_a_late_start_tells_once() -> None:
    """Of several that are due the latest alone is told, and the earlier ones never."""
    late = EDGES["P1D"]
    assert told_at(late) == ["P1D"]
    told = missed_reminders(planned_reminders(snapshot(ENDING)), late)
    assert told_at(late, told) == []
    assert told_at(EDGES["P30D"], told) == []  # the clock was set back


def test_a_ban_that_is_prolonged_is_told_anew() -> None:
    """Another end is another matter."""
    told = missed_reminders(planned_reminders(snapshot(ENDING)), EDGES["P1D"])
    longer = snapshot(ban(starts=wall("2023-03-10T00:00"), expires=wall("2023-09-11T00:00")))
    assert [each.notice.before for each in due_reminders(planned_reminders(longer), EDGES["P1D"], told)] == ["P7D"]


def test_another_version_of_the_policy_tells_nothing_again() -> None:
    """What else the policy says makes no difference."""
    told = missed_reminders(planned_reminders(snapshot(ENDING)), EDGES["P7D"])
    other = snapshot(ENDING, ban("second", starts=wall("2023-03-10T00:00")))
    assert list(due_reminders(planned_reminders(other), EDGES["P7D"], told)) == []


def test_short_bans_are_not_reminded_of_before_they_start() -> None:
    """A reminder that would come before the ban's own start is left out; one at its start is not."""
    week = snapshot(ban(starts=wall("2023-03-10T00:00"), expires=wall("2023-03-17T00:00")))
    assert [each.notice.before for each in planned_reminders(week)] == ["P7D", "P1D"]
    shorter = snapshot(ban(starts=wall("2023-03-10T00:01"), expires=wall("2023-03-17T00:00")))
    assert [each.notice.before for each in planned_reminders(shorter)] == ["P1D"]


def test_bans_until_lifted_have_no_end_to_be_near_to() -> None:
    """Nothing is planned for them."""
    assert planned_reminders(snapshot(ban())) == ()


def test_days_follow_the_wall_clock() -> None:
    """A day before midnight after the change to winter time is 25 hours: midnight in Brussels, too."""
    policy = snapshot(ban(expires=wall("2023-10-30T00:00")), reminders=(Duration(days=1), Duration(hours=24)))
    assert [(each.at, each.notice.before) for each in planned_reminders(policy)] == [
        (at("2023-10-28T22:00:00Z"), "P1D"),
        (at("2023-10-28T23:00:00Z"), "PT24H"),
    ]


def test_each_zone_has_its_own_end() -> None:
    """Where a wall time is two instants, it is told for each zone."""
    policy = snapshot(
        ban(networks=("office", "abroad"), expires=wall("2023-09-10T00:00")),
        networks=(network("office", "192.0.2.0/24"), network("abroad", "198.51.100.0/24", zone="America/New_York")),
        reminders=(Duration(days=1),),
    )
    found = planned_reminders(policy)
    assert [(each.notice.zone, each.at) for each in found] == [
        (BRUSSELS, at("2023-09-08T22:00:00Z")),
        ("America/New_York", at("2023-09-09T04:00:00Z")),
    ]
    assert [each.track.networks for each in found] == [("office",), ("abroad",)]


def test_none_wanted() -> None:
    """`reminders: []` means never; one beyond the calendar is never due either."""
    assert told_at(EDGES["P1D"], reminders=()) == []
    assert planned_reminders(snapshot(ENDING, reminders=(Duration(years=3000),))) == ()


def test_in_order_of_time() -> None:
    """The plan is sorted, whatever the order of the settings."""
    planned = planned_reminders(snapshot(ENDING, reminders=(Duration(days=1), Duration(days=30), Duration(days=7))))
    assert [reminder.at for reminder in planned] == sorted(EDGES.values())
    assert all(isinstance(reminder, Reminder) for reminder in planned)


def test_when_an_end_counts_as_near() -> None:
    """`tokgate check` warns of an end from the first reminder on, and of none where no reminder is wanted."""
    assert near_from(snapshot(ENDING), ENDS, BRUSSELS) == EDGES["P30D"]
    assert near_from(snapshot(ENDING, reminders=()), ENDS, BRUSSELS) is None
