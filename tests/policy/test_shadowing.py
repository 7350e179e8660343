"""Useless bans: found when another is as strict for the same clients at every instant, and only then."""

from ipaddress import ip_network
from typing import Any

import pytest
from whenever import Time, Weekday

from builders import CLIPS, OFFICE, ban, exemption, network, service, snapshot, wall
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.decision import Response
from tokgate.policy.schedule import Window
from tokgate.policy.shadowing import shadows

LAB = network("lab", "198.51.100.0/24", zone="America/New_York")
WEEKDAYS = frozenset(Weekday) - {Weekday.SATURDAY, Weekday.SUNDAY}


def window(start: str = "08:00", end: str = "18:00", *holidays: str, days: frozenset[Weekday] = WEEKDAYS) -> Window:
    """A window of weekdays."""
    return Window(days, Time.parse_iso(start), Time.parse_iso(end), holidays)


def found(one: dict[str, Any], other: dict[str, Any], *exemptions: Any) -> list[tuple[str, str]]:
    """Which of the bans `a` and `b` is useless, and because of which."""
    policy = snapshot(
        ban("a", **one),
        ban("b", **other),
        services=(CLIPS, service("ads", "suffix:ads.example.org")),
        networks=(OFFICE, LAB),
        exemptions=exemptions,
    )
    return [(shadow.ban.name, shadow.by.name) for shadow in shadows(policy)]


EARLIER = wall("2023-03-01T00:00")
LATER = wall("2023-03-20T00:00")
END = wall("2023-09-10T00:00")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, [("b", "a")]),
        ({}, {"starts": EARLIER}, [("a", "b")]),
        ({}, {"starts": LATER}, [("b", "a")]),
        ({}, {"starts": LATER, "action": Action.WARN, "expires": END}, [("b", "a")]),
        ({}, {"services": ("clips", "ads"), "networks": ("lab", "office"), "starts": EARLIER}, [("a", "b")]),
        ({"networks": ("office", "lab")}, {"networks": ("office", "lab"), "action": Action.MONITOR}, [("b", "a")]),
        ({}, {"windows": (window(),)}, [("b", "a")]),
        ({"windows": (window("07:00", "19:00"),)}, {"windows": (window(),)}, [("b", "a")]),
        ({"windows": (window("22:00", "07:00"),)}, {"windows": (window("23:00", "06:00"),)}, [("b", "a")]),
        ({"windows": (window(),)}, {"windows": (window("08:00", "18:00", "BE"),)}, [("b", "a")]),
        ({"expires": END, "on_expiry": OnExpiry.HOLD}, {"starts": LATER}, [("b", "a")]),
    ],
)
def test_useless(one: dict[str, Any], other: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    """The ban that changes nothing, and the one that makes it so."""
    assert found(one, other) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"expires": END}, {"starts": LATER}),
        ({"action": Action.WARN}, {"starts": LATER}),
        ({}, {"services": ("ads",)}),
        ({}, {"services": ("clips", "ads")}),
        ({}, {"networks": ("lab",)}),
        ({"expires": END}, {"starts": END}),
        ({}, {"monitor_from": EARLIER}),
        ({"windows": (window(),)}, {"windows": (window("07:59"),), "starts": LATER}),
        ({"windows": (window("08:00", "18:00", "BE"),)}, {"windows": (window(),), "starts": LATER}),
        ({"windows": (window(),)}, {"starts": LATER}),
        ({}, {"inspect_stores": True}),
        ({"action": Action.WARN}, {"starts": EARLIER, "action": Action.WARN, "expires": END}),
        ({"starts": EARLIER, "response": Response.PAGE, "action": Action.WARN}, {}),
    ],
)
def test_of_use(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Each does something at some instant that the other does not."""
    assert found(one, other) == []


def test_exemptions_count() -> None:
    """A hole in the stricter ban is where the other still matters, unless it has the same hole."""
    hole = exemption("a-hole", ban="a")
    assert found({}, {}, hole) == []
    assert found({}, {}, hole, exemption("b-hole", ban="b", clients=(ip_network("192.0.2.0/28"),))) == [("b", "a")]
    assert found({}, {}, hole, exemption("b-hole", ban="b", until=wall("2023-03-20T00:00"))) == []


def test_a_hole_before_the_life_of_a_ban_does_not_count() -> None:
    """What the other ban lets pass before this one starts is not missing from this one."""
    early = exemption("early", ban="a", until=wall("2023-03-15T00:00"))
    assert found({}, {"starts": LATER}, early) == [("b", "a")]
