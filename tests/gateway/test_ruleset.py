"""What the kernel hears of a policy, and when: which bans, and which addresses of their services, for whom."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from whenever import Instant, Time, Weekday

from labs.builders import at, ban, exemption, network, service, snapshot, wall
from tokgate.gateway.nftables import text
from tokgate.gateway.ruleset import (
    TableOptions,
    acting,
    behind_nat64,
    in_sight,
    ruleset_of,
    unchanged,
)
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.schedule import Span, Window
from tokgate.policy.snapshot import Snapshot

NOW = at("2023-06-01T00:00:00Z")
STARTS, ENDS = at("2023-03-09T23:00:00Z"), at("2023-12-31T23:00:00Z")
OVER = {"expires": wall("2023-05-01T00:00")}
CLIPS = service("clips", addresses=("203.0.113.0/25", "203.0.113.128/25", "2001:db8:c11::/48"))
ADDRESSES = (IPv4Network("203.0.113.0/24"), IPv6Network("64:ff9b::cb00:7100/120"), IPv6Network("2001:db8:c11::/48"))


def held(*bans: Any, **settings: Any) -> Snapshot:
    """A policy in which `clips` has addresses and `forum` has none."""
    parts: dict[str, Any] = {
        "services": (CLIPS, service("forum", "suffix:forum.example.org")),
        "networks": (network("office", "192.0.2.0/24"), network("abroad", "198.51.100.0/24", zone="America/New_York")),
    }
    return snapshot(*bans, **(parts | settings))


def test_addresses_are_merged() -> None:
    """Prefixes that adjoin are one element of the set, and those behind NAT64 are told as well."""
    policy = held(ban())
    assert ruleset_of(policy, NOW, TableOptions()).addresses == ADDRESSES


def test_translators_of_the_policy_count() -> None:
    """A NAT64 with a prefix of its own is no way to a banned address either."""
    policy = held(ban(), nat64_prefixes=(IPv6Network("2001:db8:64::/96"),))
    assert IPv6Network("2001:db8:64::cb00:7100/120") in ruleset_of(policy, NOW, TableOptions()).addresses


@pytest.mark.parametrize(
    ("stated", "blocks"),
    [
        ({}, Span(STARTS, Instant.MAX)),
        ({"expires": wall("2024-01-01T00:00")}, Span(STARTS, ENDS)),
        ({"expires": wall("2023-05-01T00:00"), "on_expiry": OnExpiry.HOLD}, Span(STARTS, Instant.MAX)),
        ({"monitor_from": wall("2023-01-01T00:00"), "warn_from": wall("2023-02-01T00:00")}, Span(STARTS, Instant.MAX)),
    ],
    ids=["for ever", "with an end", "held", "after a warning"],
)
def test_from_when_to_when(stated: dict[str, Any], blocks: Span) -> None:
    """UDP is refused while the ban blocks: not while it warns, and not after its end unless it is held."""
    policy = held(ban(**stated))
    (found,) = ruleset_of(policy, NOW, TableOptions()).address_bans
    assert (found.blocks, found.addresses) == (blocks, ADDRESSES)


@pytest.mark.parametrize(
    "stated",
    [OVER, {"services": ("forum",)}, {"action": Action.WARN}, {"action": Action.MONITOR}],
    ids=["over", "no addresses", "warns", "monitors"],
)
def test_nothing_to_refuse(stated: dict[str, Any]) -> None:
    """Where nothing blocks, or nothing has addresses, no UDP is touched."""
    policy = held(ban(**stated))
    assert ruleset_of(policy, NOW, TableOptions()).address_bans == ()


def test_bans_in_two_zones_are_two() -> None:
    """A wall time is another instant abroad; networks of one zone stand together, and so do bans that say the same."""
    policy = held(ban(networks=("office", "abroad")), ban("again", networks=("office",)))
    found = ruleset_of(policy, NOW, TableOptions()).address_bans
    assert [[n.name for n in each.networks] for each in found] == [["office"], ["abroad"]]


def test_exemptions_are_told_with_their_time() -> None:
    """Who is exempt keeps their calls, as long as they are."""
    policy = held(ban(), exemptions=(exemption(),))
    (found,) = ruleset_of(policy, NOW, TableOptions()).address_bans
    assert found.exempt == ((IPv4Network("192.0.2.9/32"), Span(Instant.MIN, at("2023-03-31T16:00:00Z"))),)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [  # RFC 6052 §2.4
        ("2001:db8::/32", "2001:db8:c000:221::/64"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::/80"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::/88"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::/96"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::/104"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221/128"),
    ],
)
def test_prefixes_of_translators(prefix: str, expected: str) -> None:
    """The examples of the RFC."""
    assert behind_nat64(IPv6Network(prefix), IPv4Network("192.0.2.33/32")) == IPv6Network(expected)


@pytest.mark.parametrize(
    ("prefix", "network", "expected"),
    [
        ("2001:db8:122::/48", "192.0.0.0/16", "2001:db8:122:c000::/64"),
        ("2001:db8:122::/48", "192.0.2.0/24", "2001:db8:122:c000:2::/80"),
        ("2001:db8:122:344::/64", "0.0.0.0/0", "2001:db8:122:344::/64"),
        ("64:ff9b::/96", "192.0.2.0/24", "64:ff9b::c000:200/120"),
    ],
)
def test_networks_behind_translators(prefix: str, network: str, expected: str) -> None:
    """Whole networks, on both sides of the octet that is skipped."""
    assert behind_nat64(IPv6Network(prefix), IPv4Network(network)) == IPv6Network(expected)


BEGINS = "2023-03-09T23:00:00Z"
"""10 March 2023 in Brussels."""
A_DAY_BEFORE = "2023-03-08T23:00:00Z"
WITH_END = {"expires": wall("2023-05-01T00:00")}
ENDED = "2023-04-30T22:00:00Z"


def one_ban(**stated: Any) -> Snapshot:
    """A policy with one ban."""
    return snapshot(ban(**stated), networks=(network("office", "192.0.2.0/24"),))


@pytest.mark.parametrize(
    ("stated", "instant", "seen"),
    [
        ({}, "2023-03-08T22:59:59Z", False),
        ({}, A_DAY_BEFORE, True),
        ({"announced": wall("2023-01-01T00:00")}, "2023-02-01T00:00:00Z", False),
        ({"monitor_from": wall("2023-02-01T00:00")}, "2023-01-30T23:00:00Z", True),
        (WITH_END, "2023-04-30T21:59:59Z", True),
        (WITH_END, ENDED, False),
        (WITH_END | {"on_expiry": OnExpiry.HOLD}, "2024-01-01T00:00:00Z", True),
    ],
    ids=["over a day ahead", "a day ahead", "announced", "monitors", "last second", "over", "held"],
)
def test_in_sight(stated: dict[str, Any], instant: str, seen: bool) -> None:
    """A network whose ban is over or far away would be slowed for nothing; one that comes in late would be missed."""
    assert bool(in_sight(one_ban(**stated), at(instant))) is seen


@pytest.mark.parametrize(
    ("stated", "instant", "acts"),
    [
        ({}, "2023-03-09T22:59:59Z", False),
        ({}, BEGINS, True),
        ({"action": Action.MONITOR}, BEGINS, False),
        ({"warn_from": wall("2023-02-01T00:00")}, "2023-02-01T00:00:00Z", True),
        (WITH_END, ENDED, False),
    ],
    ids=["before", "blocks", "monitors", "warns", "over"],
)
def test_acting(stated: dict[str, Any], instant: str, acts: bool) -> None:
    """Connections from before are reset only where a ban does something to people."""
    policy = one_ban(**stated)
    assert bool(list(acting(policy.tracks, at(instant)))) is acts


@pytest.mark.parametrize(
    ("instant", "since", "until"),
    [
        ("2023-01-01T00:00:00Z", None, A_DAY_BEFORE),
        (A_DAY_BEFORE, A_DAY_BEFORE, BEGINS),
        ("2023-03-09T22:59:59Z", A_DAY_BEFORE, BEGINS),
        (BEGINS, BEGINS, ENDED),
        (ENDED, ENDED, None),
    ],
)
def test_unchanged(instant: str, since: str | None, until: str | None) -> None:
    """A table that isn't replaced outside of this span, either way, says what is no longer so."""
    found = unchanged(one_ban(**WITH_END), at(instant))
    assert found == Span(Instant.MIN if since is None else at(since), Instant.MAX if until is None else at(until))


MONDAY = Window(frozenset({Weekday.MONDAY}), Time(8), Time(17))
ROOM: dict[str, Any] = {"services": (), "on_all": True, "windows": (MONDAY,)}


def test_a_ban_on_all_follows_its_windows() -> None:
    """All TCP comes to the gates from a day before; all else is refused while a window is open, but of those exempt."""
    policy = snapshot(
        ban(**ROOM),
        networks=(network("office", "192.0.2.0/24"),),
        exemptions=(exemption("hole", until=wall("2023-12-01T00:00")),),
    )
    opens, closes = at("2023-06-05T06:00:00Z"), at("2023-06-05T15:00:00Z")
    for moment, refused in (
        (opens.subtract(nanoseconds=1), 0),
        (opens, 1),
        (closes.subtract(nanoseconds=1), 1),
        (closes, 0),
    ):
        rules = ruleset_of(policy, moment, TableOptions())
        assert [each.name for each in rules.all_clients] == ["office"]
        assert len(rules.all_bans) == refused
        assert moment in rules.holds
        assert rules.holds.end == (closes if refused else opens if moment < opens else closes.add(hours=7 * 24 - 9))
    (all_ban,) = ruleset_of(policy, opens, TableOptions()).all_bans
    assert all_ban.blocks == Span(opens, closes)
    assert [str(prefix) for prefix, _ in all_ban.exempt] == ["192.0.2.9/32"]
    written = text(ruleset_of(policy, opens, TableOptions()))
    assert "ip saddr @all_ports4 meta l4proto tcp jump to_gate" in written
    assert f"meta time >= {closes.timestamp()} return" in written
    assert "jump all1_refused" not in text(ruleset_of(policy, closes, TableOptions()))


@pytest.mark.parametrize(
    ("stated", "instant"),
    [
        ({"action": Action.MONITOR}, "2023-06-05T07:00Z"),
        ({"action": Action.WARN}, "2023-06-05T07:00Z"),
        ({}, "2023-03-06T07:30Z"),
    ],
    ids=["monitors", "warns", "before"],
)
def test_a_ban_on_all_that_refuses_nothing(stated: dict[str, Any], instant: str) -> None:
    """The kernel refuses only while the ban blocks."""
    policy = snapshot(ban(**ROOM | stated), networks=(network("office", "192.0.2.0/24"),))
    assert ruleset_of(policy, at(instant), TableOptions()).all_bans == ()
