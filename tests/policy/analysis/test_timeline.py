"""The timeline: every transition once, in order, and nothing between two of them.

When a ban's end is told: the edges of each reminder, what comes late, and what was told already.
"""

from typing import Any

import pytest
from whenever import Instant, Time, Weekday

from labs.builders import BRUSSELS, at, ban, exemption, network, snapshot, wall
from tokgate.policy.analysis.timeline import (
    ReminderKey,
    TransitionKind,
    due_reminders,
    missed_reminders,
    near_from,
    planned_reminders,
    transitions,
)
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Duration, Window


def test_windows_are_endless_and_lazy() -> None:
    """An open-ended ban with windows yields transitions for as long as one asks."""
    policy = snapshot(ban(windows=(Window(frozenset({Weekday.MONDAY}), Time(8), Time(18)),)))
    endless = transitions(policy, at("2023-03-12T00:00Z"), Instant.MAX)
    seen = [(t.at, t.kind) for _, t in zip(range(3), endless, strict=False)]
    assert seen == [
        (at("2023-03-13T07:00Z"), TransitionKind.WINDOW_OPENS),
        (at("2023-03-13T17:00Z"), TransitionKind.WINDOW_CLOSES),
        (at("2023-03-20T07:00Z"), TransitionKind.WINDOW_OPENS),
    ]


def test_an_exemption_ends_where_it_holds() -> None:
    """One for addresses of a network ends in that network's zone alone; one for users may hold in each."""
    networks = (network("office", "192.0.2.0/24"), network("far", "198.51.100.0/24", zone="Asia/Kolkata"))
    both = ban(networks=("office", "far"))
    policy = snapshot(both, networks=networks, exemptions=(exemption(), exemption("staff", users=("alice",))))
    ends = list(transitions(policy, at("2023-03-31T00:00Z"), at("2023-04-01T00:00Z")))
    assert [(t.exemption, t.zone) for t in ends] == [
        ("staff", "Asia/Kolkata"), ("press", "Europe/Brussels"), ("staff", "Europe/Brussels"),
    ]  # fmt: skip
    assert {(t.before, t.after) for t in ends} == {(Phase.BLOCK, Phase.BLOCK)}
    assert list(transitions(policy, ends[0].at, ends[1].at)) == ends[:1]


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


@pytest.mark.parametrize(
    ("now", "told_before", "told"),
    [
        *(
            (EDGES[before].subtract(nanoseconds=TICK), None, rest)
            for before, rest in zip(EDGES, ([], ["P30D"], ["P7D"]), strict=True)
        ),
        *((EDGES[before], None, [before]) for before in EDGES),
        (ENDS.subtract(nanoseconds=TICK), None, ["P1D"]),
        (ENDS, None, []),
        (EDGES["P30D"], "P30D", []),
        (EDGES["P7D"].subtract(nanoseconds=TICK), "P30D", []),
        (EDGES["P7D"], "P30D", ["P7D"]),
        (EDGES["P1D"], "P1D", []),
        (EDGES["P30D"], "P1D", []),  # the clock was set back
    ],
)
def test_what_is_told(now: Instant, told_before: str | None, told: list[str]) -> None:
    """From its very instant to the ban's end a reminder is due, once; of several the latest, and none before it."""
    planned = planned_reminders(snapshot(ENDING))
    known = frozenset() if told_before is None else missed_reminders(planned, EDGES[told_before])
    assert told_at(now, known) == told


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


def test_when_an_end_counts_as_near() -> None:
    """`tokgate check` warns of an end from the first reminder on, and of none where no reminder is wanted."""
    assert near_from(snapshot(ENDING), ENDS, BRUSSELS) == EDGES["P30D"]
    assert near_from(snapshot(ENDING, reminders=()), ENDS, BRUSSELS) is None
