"""Useless bans: found when another is as strict for the same clients at every instant, and only then."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whenever import Time, Weekday

from labs.builders import CLIPS, OFFICE, at, ban, exemption, network, service, snapshot, wall
from tokgate.policy.analysis.redundant_bans import shadows
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.decide import decide
from tokgate.policy.decision import Response, Verdict
from tokgate.policy.schedule import Window

DESK = network("desk", "192.0.2.192/28")
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
        networks=(OFFICE, DESK, LAB),
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
        ({"action": Action.WARN}, {}, [("a", "b")]),
        ({}, {"starts": LATER}, [("b", "a")]),
        ({}, {"starts": LATER, "action": Action.WARN, "expires": END}, [("b", "a")]),
        ({}, {"services": ("clips", "ads"), "networks": ("lab", "office"), "starts": EARLIER}, [("a", "b")]),
        ({"networks": ("office", "lab")}, {"networks": ("office", "lab"), "action": Action.MONITOR}, [("b", "a")]),
        ({}, {"windows": (window(),)}, [("b", "a")]),
        ({"windows": (window("07:00", "19:00"),)}, {"windows": (window(),)}, [("b", "a")]),
        ({"windows": (window("22:00", "07:00"),)}, {"windows": (window("23:00", "06:00"),)}, [("b", "a")]),
        ({"windows": (window("00:00", "00:00"),)}, {"windows": (window("00:00", "12:00"),)}, [("b", "a")]),
        ({"windows": (window(),)}, {"windows": (window("08:00", "18:00", "BE"),)}, [("b", "a")]),
        ({"expires": END, "on_expiry": OnExpiry.HOLD}, {"starts": LATER}, [("b", "a")]),
        ({"inspect_stores": True}, {"inspect_stores": True}, [("b", "a")]),
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
        ({"networks": ("office", "desk")}, {"starts": EARLIER}),
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
    assert found({}, {}, hole, exemption("b-hole", ban="b", starts=wall("2023-03-20T00:00"))) == []


def test_a_useless_ban_is_told_once() -> None:
    """With one of the bans that make it so, however many do."""
    policy = snapshot(ban("a"), ban("b"), ban("c", starts=LATER))
    assert [(shadow.ban.name, shadow.by.name) for shadow in shadows(policy)] == [("b", "a"), ("c", "a")]


def test_a_hole_before_the_life_of_a_ban_does_not_count() -> None:
    """What the other ban lets pass before this one starts is not missing from this one."""
    early = exemption("early", ban="a", until=wall("2023-03-15T00:00"))
    assert found({}, {"starts": LATER}, early) == [("b", "a")]


MOMENTS = st.sampled_from([wall("2023-03-01T00:00"), wall("2023-03-10T00:00"), wall("2023-03-26T02:30")])
ENDS = st.sampled_from([None, wall("2023-04-10T00:00"), wall("2023-06-01T00:00")])
WINDOWS = st.sampled_from([(), (window(),), (window("09:00", "17:00"),), (window("22:00", "06:00"),)])
BANS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    starts=MOMENTS,
    expires=ENDS,
    windows=WINDOWS,
    action=st.sampled_from(Action),
    on_expiry=st.sampled_from(OnExpiry),
    networks=st.sampled_from([("office",), ("lab", "office")]),
)
HOLES = st.builds(
    lambda name, of, client, until: exemption(name, ban=of, clients=(ip_network(client),), until=until),
    st.sampled_from(["h1", "h2"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["192.0.2.9/32", "192.0.2.0/28"]),
    st.sampled_from([wall("2023-03-20T00:00"), wall("2023-07-01T00:00")]),
)


@settings(max_examples=150)
@given(BANS, BANS, BANS, st.lists(HOLES, max_size=2, unique_by=lambda hole: hole.name), st.data())
def test_without_the_useless_nothing_changes(one: Any, other: Any, third: Any, holes: list[Any], data: Any) -> None:
    """At no instant does any client get another verdict when a useless ban is left out."""
    bans = [ban("a", **one), ban("b", **other), ban("c", **third)]
    whole = snapshot(*bans, networks=(OFFICE, LAB), exemptions=tuple(holes))
    for shadow in shadows(whole):
        left = [each for each in bans if each.name != shadow.ban.name]
        kept = tuple(hole for hole in holes if hole.ban != shadow.ban.name)
        rest = snapshot(*left, networks=(OFFICE, LAB), exemptions=kept)
        minute = data.draw(st.integers(0, 150 * 24 * 60))
        when = at("2023-02-15T00:00Z").add(minutes=minute)
        for client in ("192.0.2.9", "192.0.2.1", "192.0.2.77", "198.51.100.7"):
            before, after = (decide(each, client, "clips.example.org", when) for each in (whole, rest))
            assert before.verdict is after.verdict
            assert before.verdict is Verdict.ALLOW or before.ban == after.ban
