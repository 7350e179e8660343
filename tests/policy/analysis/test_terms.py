"""Terms of a ban, overrides, and warnings that are continued: how long each lasts."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from whenever import ItemizedDelta

from labs.builders import BRUSSELS, at, ban, duration, exemption, network, snapshot, wall
from tokgate.policy.analysis.terms import (
    blocks_from,
    continued_until,
    earlier_terms,
    outlasts,
    overrides,
    warns_with_a_page,
)
from tokgate.policy.analysis.timeline import planned_reminders, transitions
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.decide import decide
from tokgate.policy.decision import Response, Verdict
from tokgate.policy.schedule import Duration

TERMS = snapshot(
    ban("third", extends="second", starts=wall("2024-03-10T00:00")),
    ban("first", duration=duration("P6M")),
    ban("second", extends="first", starts=wall("2023-09-10T00:00"), expires=wall("2024-03-10T00:00")),
)


def test_earlier_terms_come_latest_first() -> None:
    """Whoever is refused reads how long the measure has lasted; a ban that is gone, or a circle, ends the story."""
    found = list(earlier_terms(TERMS.bans, TERMS.bans["third"], BRUSSELS))
    assert [(term.ban.name, str(term.ends)) for term in found] == [
        ("second", "2024-03-09T23:00:00Z"),
        ("first", "2023-09-09T22:00:00Z"),
    ]
    assert list(earlier_terms({}, TERMS.bans["third"], BRUSSELS)) == []
    circle = ban("circle", extends="circle")
    assert list(earlier_terms({"circle": circle}, circle, BRUSSELS)) == []


def test_no_reminder_of_an_end_that_is_none() -> None:
    """Nobody is woken by the end of a term that the next one follows; the ban is in force on both sides of it."""
    assert planned_reminders(TERMS) == ()
    for instant in ("2023-09-09T21:59:59Z", "2023-09-09T22:00:00Z", "2024-03-09T23:00:00Z"):
        assert decide(TERMS, "192.0.2.1", "clips.example.org", at(instant)).verdict == "block"


def test_the_end_says_what_goes_on() -> None:
    """A calendar does not announce that a ban expires without saying that another takes over."""
    found = list(transitions(TERMS, at("2023-09-09T00:00Z"), at("2023-09-11T00:00Z")))
    assert {(each.ban.name, each.after, each.extended_by) for each in found} == {
        ("first", "expired", ("second",)),
        ("second", "block", ()),
    }


@pytest.mark.parametrize(
    "stated", [{}, {"duration": duration("P1Y")}, {"duration": duration("P1M"), "on_expiry": OnExpiry.HOLD}]
)
def test_an_extension_takes_over(stated: dict[str, Any]) -> None:
    """The ban that it extends ends there, whatever end it states; until then it tells its own."""
    first = ban("first", **stated)
    taken = snapshot(first, ban("second", extends="first", starts=wall("2023-06-01T00:00")))
    before, after = at("2023-05-31T21:59:59Z"), at("2023-05-31T22:00:00Z")
    decided = [decide(taken, "192.0.2.1", "clips.example.org", each) for each in (before, after)]
    assert [(each.verdict, each.ban) for each in decided] == [("block", "first"), ("block", "second")]
    assert decided[0].next_change == after
    track = next(track for track in taken.tracks if track.ban.name == "first")
    assert track.schedule.ends == snapshot(first).tracks[0].schedule.ends
    warns = snapshot(
        replace(first, action=Action.WARN), ban("second", extends="first", starts=wall("2023-06-01T00:00"))
    )
    (warned,) = (track for track in warns.tracks if track.ban.name == "first")
    assert continued_until(warned, at("2023-05-31T20:00Z")) == after


START, END = at("2023-03-15T09:00:00Z"), at("2023-03-15T11:00:00Z")


def test_wall_times_in_several_zones() -> None:
    """It is under way as long as it is anywhere that has clients of it; or, where it has none, as it is written."""
    policy = snapshot(
        ban(networks=("office", "abroad")),
        networks=(network("office", "192.0.2.0/24"), network("abroad", "198.51.100.0/24", zone="America/New_York")),
        exemptions=tuple(
            exemption(
                name, clients=tuple(map(ip_network, clients)),
                starts=wall("2023-03-15T09:00"), until=wall("2023-03-15T10:00"), override=True,
            )
            for name, clients in {
                "both": ("192.0.2.9/32", "198.51.100.9/32"), "here": ("192.0.2.9/32",), "nowhere": ("203.0.113.9/32",),
            }.items()
        ),
    )  # fmt: skip
    spans = {name: (found.span.start, found.span.end) for name, found in overrides(policy).items()}
    everywhere = (at("2023-03-15T08:00:00Z"), at("2023-03-15T14:00:00Z"))
    here = (at("2023-03-15T08:00:00Z"), at("2023-03-15T09:00:00Z"))
    assert spans == {"both": everywhere, "here": here, "nowhere": everywhere}


def test_longest() -> None:
    """The limit itself is allowed, one tick more is not; a limit beyond the calendar is none."""
    longest = Duration(hours=2)
    assert not outlasts(START, END, longest, "UTC")
    assert outlasts(START, END.add(nanoseconds=1), longest, "UTC")
    assert not outlasts(START, END, Duration(years=9000), "UTC")
    assert outlasts(wall("2023-03-26T01:00"), wall("2023-03-26T05:00"), longest, "Europe/Brussels")
    assert not outlasts(wall("2023-03-26T01:00"), wall("2023-03-26T04:00"), longest, "Europe/Brussels")


WARNED = at("2023-03-09T20:00Z")  # three hours before the ban blocks


@pytest.mark.parametrize(
    ("stated", "moment", "end"),
    [
        ({"warn_from": wall("2023-03-01T00:00")}, "2023-03-08T20:00Z", "2023-03-09T04:00Z"),
        ({"warn_from": wall("2023-03-01T00:00")}, "2023-03-09T20:00Z", "2023-03-09T23:00Z"),
        ({"action": Action.WARN}, "2023-03-09T20:00Z", "2023-03-10T04:00Z"),
        ({"action": Action.WARN, "expires": wall("2023-03-20T00:00")}, "2023-03-19T20:00Z", "2023-03-19T23:00Z"),
        ({"action": Action.WARN, "continue_for": ItemizedDelta(hours=1)}, "2023-03-12T20:00Z", "2023-03-12T21:00Z"),
    ],
)
def test_until_when(stated: dict[str, Any], moment: str, end: str) -> None:
    """Who continues past a warning does so for the time that the page says, and never into the ban's blocking."""
    (track,) = snapshot(ban(**stated)).tracks
    assert track.zone == BRUSSELS
    assert continued_until(track, at(moment)) == at(end)


def test_when_it_blocks() -> None:
    """The page says from when there is nothing to continue to; a ban that only warns says nothing of the kind."""
    (warns,) = snapshot(ban(action=Action.WARN)).tracks
    (blocks,) = snapshot(ban(warn_from=wall("2023-03-01T00:00"))).tracks
    assert blocks_from(warns, WARNED) is None
    assert blocks_from(blocks, WARNED) == at("2023-03-09T23:00Z")
    assert blocks_from(blocks, at("2023-03-09T23:00Z")) is None


@pytest.mark.parametrize(
    ("verdict", "response", "page"),
    [
        (Verdict.WARN, Response.PAGE, True),
        (Verdict.WARN, Response.REFUSE, False),
        (Verdict.WARN, None, False),
        (Verdict.BLOCK, Response.PAGE, False),
    ],
)
def test_who_gets_the_warning_as_a_page(verdict: Verdict, response: Response | None, page: bool) -> None:
    """Only what warns with a page is opened to show it; a ban that blocks has no button to continue."""
    made = decide(snapshot(ban(action=Action.WARN)), "192.0.2.7", "www.clips.example.org", WARNED)
    assert warns_with_a_page(replace(made, verdict=verdict, response=response)) is page
