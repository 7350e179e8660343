"""What holds at an instant: which bans, in which networks, for whom not."""

from ipaddress import ip_network

import pytest

from labs import builders
from tokgate.policy.analysis.now import now_of
from tokgate.policy.bans import Exemption
from tokgate.policy.decide import decide
from tokgate.policy.decision import Phase, Verdict
from tokgate.policy.networks import Network
from tokgate.policy.values.prefixes import IPNetwork

AT = builders.at("2023-04-01T12:00:00Z")
LATER = builders.at("2023-04-02T00:00:00Z")


def prefixes(*said: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, said))


def by_interface(name: str) -> Exemption:
    """One for whoever comes by it."""
    return builders.exemption(interfaces=(name,), clients=(), until=LATER)


def exemption(name: str, *clients: str, until: str = "2023-04-02T00:00:00Z", users: tuple[str, ...] = ()) -> Exemption:
    """One from the only ban."""
    return builders.exemption(name, clients=prefixes(*clients), users=users, until=builders.at(until))


@pytest.mark.parametrize(
    ("exempt", "by"),
    [
        pytest.param([], None, id="none"),
        pytest.param([exemption("one", "192.0.2.7/32")], None, id="one client"),
        pytest.param([exemption("all", "192.0.2.0/24")], ["all"], id="the network"),
        pytest.param([exemption("world", "0.0.0.0/0")], ["world"], id="more than the network"),
        pytest.param(
            [exemption("low", "192.0.2.0/25"), exemption("high", "192.0.2.128/25")], ["low", "high"], id="two"
        ),
        pytest.param([exemption("low", "192.0.2.0/25"), exemption("all", "192.0.2.0/24")], ["all"], id="one of two"),
        pytest.param([exemption("over", "192.0.2.0/24", until="2023-04-01T12:00:00Z")], None, id="over"),
        pytest.param([exemption("users", users=("alice",))], None, id="a user"),
    ],
)
def test_a_network_that_is_open(exempt: list[Exemption], by: list[str] | None) -> None:
    """It is told, with the exemptions that open it, and live traffic from either end of the network says the same."""
    network = Network("office", prefixes("192.0.2.0/24"), builders.BRUSSELS)
    snapshot = builders.snapshot(builders.ban(networks=("office",)), networks=(network,), exemptions=tuple(exempt))
    now = now_of(snapshot, AT)
    (told,) = now.networks
    assert [ban.ban.name for ban in told.bans] == ["ban"]
    assert [[each.exemption.name for each in opened.by] for opened in now.opened] == ([] if by is None else [by])
    hosts = [decide(snapshot, f"192.0.2.{last}", "www.clips.example.org", AT).verdict for last in (1, 254)]
    assert (hosts == [Verdict.ALLOW] * 2) is (by is not None)


@pytest.mark.parametrize(
    ("network", "exempt", "is_open"),
    [
        (Network("office", (), users=("Alice", "bob")), exemption("press", users=("alice", "Bob")), True),
        (Network("office", (), users=("alice", "bob")), exemption("press", users=("alice",)), False),
        (
            Network("office", (), groups=("staff",)),
            builders.exemption(groups=("staff",), clients=(), until=LATER),
            True,
        ),
        (
            Network("office", (), interfaces=("eth1",)),
            by_interface("eth1"),
            True,
        ),
        (
            Network("office", prefixes("192.0.2.0/24"), interfaces=("eth1",)),
            by_interface("eth1"),
            False,
        ),
        (Network("office", ()), exemption("press", "192.0.2.0/24"), False),
    ],
)
def test_networks_of_others_than_addresses(network: Network, exempt: Exemption, is_open: bool) -> None:
    """Users, groups and interfaces; a network that lists nobody is not open."""
    snapshot = builders.snapshot(builders.ban(networks=("office",)), networks=(network,), exemptions=(exempt,))
    assert bool(now_of(snapshot, AT).opened) is is_open


def test_bans_by_their_phase() -> None:
    """One in force is in its networks' list; one that is announced or over is told of beside."""
    ban = builders.ban(starts=builders.at("2023-04-02T00:00:00Z"), expires=builders.at("2023-04-05T00:00:00Z"))
    snapshot = builders.snapshot(ban)
    told = []
    for day in ("2023-04-01", "2023-04-03", "2023-04-06"):
        now = now_of(snapshot, builders.at(f"{day}T12:00:00Z"))
        told.append((now.bans[0].phase, len(now.in_force), now.summary))
    assert told == [
        (Phase.ANNOUNCED, 0, "no ban is in force until 2023-04-02T00:00:00Z"),
        (Phase.BLOCK, 1, "1 ban is in force"),
        (Phase.EXPIRED, 0, "no ban is in force"),
    ]
