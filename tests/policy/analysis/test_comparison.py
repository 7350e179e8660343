"""Comparison: what is decided otherwise by two policies, from when until when, and agreement with `decide`."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whenever import Instant, Time, Weekday

from labs.builders import OFFICE, at, ban, exemption, network, snapshot, wall
from tokgate.policy.analysis.comparison import differs, exemption_changes, verdict_changes
from tokgate.policy.bans import Action
from tokgate.policy.decide import decide
from tokgate.policy.decision import Response
from tokgate.policy.schedule import Span, Window
from tokgate.policy.snapshot import Snapshot

ABROAD = network("abroad", "198.51.100.0/24", zone="America/New_York")
YEAR = Span(at("2023-01-01T00:00Z"), at("2024-01-01T00:00Z"))
EVER = Span(Instant.MIN, Instant.MAX)


def policy(*bans: Any, **more: Any) -> Snapshot:
    return snapshot(*bans, networks=(OFFICE, ABROAD), **more)


def told(old: Snapshot, new: Snapshot, within: Span = YEAR) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            each.network,
            each.before.verdict,
            each.after.verdict,
            each.span.start.format_iso(),
            each.span.end.format_iso(),
        )
        for each in verdict_changes(old, new, within)
    ]


def test_a_ban_moved() -> None:
    """The days by which it starts earlier, in each network's own zone."""
    old = policy(ban(networks=("office", "abroad")))
    new = policy(ban(networks=("office", "abroad"), starts=wall("2023-03-08T00:00")))
    assert told(old, new) == [
        ("office", "allow", "block", "2023-03-07T23:00:00Z", "2023-03-09T23:00:00Z"),
        ("abroad", "allow", "block", "2023-03-08T05:00:00Z", "2023-03-10T05:00:00Z"),
    ]
    assert told(new, old)[0][1:3] == ("block", "allow")


def test_phases_and_ends() -> None:
    """Each phase is a stretch of its own; what is the same between them is left out."""
    old = policy(ban(warn_from=wall("2023-03-01T00:00"), expires=wall("2023-06-01T00:00")))
    new = policy(ban(expires=wall("2023-09-01T00:00")))
    assert told(old, new) == [
        ("office", "warn", "allow", "2023-02-28T23:00:00Z", "2023-03-09T23:00:00Z"),
        ("office", "allow", "block", "2023-05-31T22:00:00Z", "2023-08-31T22:00:00Z"),
    ]


@pytest.mark.parametrize(("response", "ends"), [(Response.REFUSE, 1), (Response.PAGE, 2)])
def test_bans_that_take_turns(response: Response, ends: int) -> None:
    """For clients it is one change, whichever ban was in force, unless they were answered otherwise."""
    turn, end = "2023-05-31T22:00:00Z", "2023-08-31T22:00:00Z"
    bans = ban(expires=at(turn)), ban("later", starts=at(turn), expires=at(end), response=response)
    for old, new in ((policy(*bans), policy()), (policy(), policy(*bans))):
        assert [each[4] for each in told(old, new)] == [turn, end][-ends:]


def test_open_ends() -> None:
    assert told(policy(), policy(ban()), EVER) == [
        ("office", "allow", "block", "2023-03-09T23:00:00Z", Instant.MAX.format_iso()),
    ]


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
    """At any instant the policies decide differently exactly where a stretch says so."""
    old, new = policy(*one), policy(*other)
    when = YEAR.start.add(minutes=minute)
    within = Span(when.subtract(hours=30), when.add(hours=30))
    for client, name in (("192.0.2.7", "office"), ("198.51.100.7", "abroad")):
        before, after = (decide(each, client, "clips.example.org", when) for each in (old, new))
        said = any(when in each.span and each.network == name for each in verdict_changes(old, new, within))
        assert said == differs(before, after)


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
