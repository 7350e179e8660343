"""Continuing past a warning: until when."""

from dataclasses import replace
from typing import Any

import pytest
from whenever import ItemizedDelta

from labs.builders import BRUSSELS, at, ban, snapshot, wall
from tokgate.policy.analysis.warning_period import blocks_from, continued_until, warns_with_a_page
from tokgate.policy.bans import Action
from tokgate.policy.decide import decide
from tokgate.policy.decision import Response, Verdict

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
