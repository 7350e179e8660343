"""What the kernel hears of a policy, and when: which bans, and which addresses of their services, for whom."""

from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from whenever import Time, Weekday

from labs.builders import at, ban, exemption, network, service, snapshot, wall
from tokgate.gateway.nftables import text
from tokgate.gateway.ruleset import (
    TableOptions,
    behind_nat64,
    ruleset_of,
)
from tokgate.policy.bans import Action
from tokgate.policy.schedule import Span, Window
from tokgate.policy.snapshot import Snapshot

NOW = at("2023-06-01T00:00:00Z")
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
    """Prefixes that adjoin are one element of the set; those behind any NAT64 are told as well."""
    assert ruleset_of(held(ban()), NOW, TableOptions()).addresses == ADDRESSES
    policy = held(ban(), nat64_prefixes=(IPv6Network("2001:db8:64::/96"),))
    assert IPv6Network("2001:db8:64::cb00:7100/120") in ruleset_of(policy, NOW, TableOptions()).addresses


def test_bans_in_two_zones_are_two() -> None:
    """A wall time is another instant abroad; networks of one zone stand together, and so do bans that say the same."""
    policy = held(ban(networks=("office", "abroad")), ban("again", networks=("office",)))
    found = ruleset_of(policy, NOW, TableOptions()).address_bans
    assert [[n.name for n in each.networks] for each in found] == [["office"], ["abroad"]]


@pytest.mark.parametrize(
    ("prefix", "network", "expected"),
    [  # RFC 6052 §2.4
        ("2001:db8::/32", "192.0.2.33/32", "2001:db8:c000:221::/64"),
        ("2001:db8:100::/40", "192.0.2.33/32", "2001:db8:1c0:2:21::/80"),
        ("2001:db8:122::/48", "192.0.2.33/32", "2001:db8:122:c000:2:2100::/88"),
        ("2001:db8:122:300::/56", "192.0.2.33/32", "2001:db8:122:3c0:0:221::/96"),
        ("2001:db8:122:344::/64", "192.0.2.33/32", "2001:db8:122:344:c0:2:2100::/104"),
        ("2001:db8:122:344::/96", "192.0.2.33/32", "2001:db8:122:344::c000:221/128"),
        ("2001:db8:122::/48", "192.0.0.0/16", "2001:db8:122:c000::/64"),
        ("2001:db8:122::/48", "192.0.2.0/24", "2001:db8:122:c000:2::/80"),
        ("2001:db8:122:344::/64", "0.0.0.0/0", "2001:db8:122:344::/64"),
        ("64:ff9b::/96", "192.0.2.0/24", "64:ff9b::c000:200/120"),
    ],
)
def test_behind_translators(prefix: str, network: str, expected: str) -> None:
    """The examples of the RFC, and whole networks, on both sides of the octet that is skipped."""
    assert behind_nat64(IPv6Network(prefix), IPv4Network(network)) == IPv6Network(expected)


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
