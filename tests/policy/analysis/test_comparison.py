"""Comparison: what is decided otherwise by two policies, from when until when, and agreement with `decide`."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whenever import Time, Weekday

from labs.builders import OFFICE, at, ban, exemption, network, snapshot, wall
from tokgate.policy.analysis.comparison import differs, exemption_changes, verdict_changes
from tokgate.policy.bans import Action
from tokgate.policy.decide import decide
from tokgate.policy.decision import Response
from tokgate.policy.schedule import Span, Window
from tokgate.policy.snapshot import Snapshot

ABROAD = network("abroad", "198.51.100.0/24", zone="America/New_York")
YEAR = Span(at("2023-01-01T00:00Z"), at("2024-01-01T00:00Z"))


def policy(*bans: Any, **more: Any) -> Snapshot:
    return snapshot(*bans, networks=(OFFICE, ABROAD), **more)


@pytest.mark.parametrize(("response", "ends"), [(Response.REFUSE, 1), (Response.PAGE, 2)])
def test_bans_that_take_turns(response: Response, ends: int) -> None:
    """For clients it is one change, whichever ban was in force, unless they were answered otherwise."""
    turn, end = "2023-05-31T22:00:00Z", "2023-08-31T22:00:00Z"
    bans = ban(expires=at(turn)), ban("later", starts=at(turn), expires=at(end), response=response)
    for old, new in ((policy(*bans), policy()), (policy(), policy(*bans))):
        assert [str(each.span.end) for each in verdict_changes(old, new, YEAR)] == [turn, end][-ends:]


def test_another_zone() -> None:
    """Who moves a network to another zone reads by how much its bans shift."""
    moved = snapshot(ban(), networks=(network("office", "192.0.2.0/24", zone="America/New_York"),))
    assert [str(each.span.end) for each in verdict_changes(policy(ban()), moved, YEAR)] == ["2023-03-10T05:00:00Z"]


def test_exemptions() -> None:
    """Longer, gone and new; by another name it is the same hole."""
    old = policy(ban(), exemptions=(exemption("press"), exemption("gone", clients=(ip_network("192.0.2.1/32"),))))
    new = policy(ban(), exemptions=(exemption("media", until=wall("2023-04-30T18:00")),))
    found = [
        (str(each.client), each.before, each.after, each.span.start.format_iso(), each.span.end.format_iso())
        for each in exemption_changes(old, new, YEAR)
    ]
    assert found == [
        ("192.0.2.9/32", None, "media", "2023-03-31T16:00:00Z", "2023-04-30T16:00:00Z"),
        ("192.0.2.1/32", "gone", None, "2023-01-01T00:00:00Z", "2023-03-31T16:00:00Z"),
    ]
    assert list(exemption_changes(old, old, YEAR)) == []


STARTS = st.sampled_from([wall("2023-03-01T00:00"), wall("2023-03-26T02:30"), at("2023-05-01T00:00Z")])
ENDS = st.sampled_from([None, wall("2023-06-01T00:00"), wall("2023-10-29T02:30")])
WINDOWS = st.sampled_from([(), (Window(frozenset(Weekday), Time(22), Time(6)),)])
BANS = st.builds(
    lambda name, starts, expires, windows, action: ban(
        name, starts=starts, expires=expires, windows=windows, action=action, networks=("office", "abroad")
    ),
    st.sampled_from(["a", "b"]),
    STARTS,
    ENDS,
    WINDOWS,
    st.sampled_from(Action),
)


@settings(max_examples=150)
@given(st.lists(BANS, max_size=2), st.lists(BANS, max_size=2), st.integers(0, 365 * 24 * 60 - 1))
def test_agrees_with_decide(one: list[Any], other: list[Any], minute: int) -> None:
    """At any instant the policies decide differently exactly where a stretch says so, as it says."""
    old, new = policy(*one), policy(*other)
    when = YEAR.start.add(minutes=minute)
    within = Span(when.subtract(hours=30), when.add(hours=30))
    for client, name in (("192.0.2.7", "office"), ("198.51.100.7", "abroad")):
        before, after = (decide(each, client, "clips.example.org", when) for each in (old, new))
        stretches = [each for each in verdict_changes(old, new, within) if each.network == name]
        assert all(each.span & within == each.span for each in stretches)
        said = [each for each in stretches if when in each.span]
        assert len(said) == differs(before, after)
        assert not any(differs(each.before, before) or differs(each.after, after) for each in said)


def test_many_networks_are_walked_once() -> None:
    """A thousand networks under one windowed ban are each told, under their own name, without a walk for each."""
    many = tuple(network(f"n{n}", f"10.{n >> 8}.{n & 255}.0/24") for n in range(1000))
    names = tuple(each.name for each in many)
    window = Window(frozenset(Weekday), Time(8), Time(18))
    old, new = (
        snapshot(ban(networks=names, windows=(window,), action=action), networks=many)
        for action in (Action.MONITOR, Action.BLOCK)
    )
    found = list(verdict_changes(old, new, Span(at("2023-05-01T00:00Z"), at("2023-05-15T00:00Z"))))
    assert len(found) == 14 * 1000
    assert {each.network for each in found} == set(names)
    assert all(each.before.network == each.after.network == each.network for each in found)
