"""The canary as policy: its names are decided for it alone, whatever else the policy says."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from labs.builders import at, ban, network, snapshot
from tokgate.gateway.canary.definition import (
    ALLOWED,
    BANNED,
    among_clients,
    as_json,
    canary_policy,
    client_link,
    compile_with_canary,
    from_json,
    server_link,
)
from tokgate.policy.bans import Action
from tokgate.policy.decide import Sighting, decide, decide_signals, is_under_block
from tokgate.policy.decision import Reason, Signal, Verdict
from tokgate.policy.settings import CanarySettings, GatewaySettings, UnknownClients
from tokgate.policy.snapshot import Snapshot

NOON = at("2023-06-01T12:00:00Z")
CANARY = CanarySettings()
CLIENT = str(client_link(CANARY, 4).far)
AMONG = {"office": ("192.0.2.254", "2001:db8::7")}


def stated(unknown: UnknownClients = UnknownClients.ALLOW) -> Snapshot:
    """A ban of clips in an office."""
    return snapshot(
        ban(), networks=(network("office", "192.0.2.0/24"),), own=canary_policy(CANARY, AMONG), unknown_clients=unknown
    )


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("unknown", list(UnknownClients))
def test_its_names(version: int, unknown: UnknownClients) -> None:
    """One is refused and one passes, also where clients in no network are refused; its own server is reached."""
    policy = stated(unknown)
    client, server = str(client_link(CANARY, version).far), str(server_link(CANARY, version).far)
    for moment in (NOON, at("1999-01-01T00:00:00Z"), at("2999-01-01T00:00:00Z")):
        assert decide(policy, client, BANNED, moment).verdict is Verdict.BLOCK
        passing = [Sighting(Signal.SNI, ALLOWED), Sighting(Signal.ADDRESS, server)]
        for seen in (passing, passing[1:]):
            decision = decide_signals(policy, client, seen, moment).decision
            assert decision.verdict is Verdict.MONITOR
            assert decision.network in policy.own_networks


@pytest.mark.parametrize("client", ["192.0.2.10", "198.18.116.3", "2001:db8::1"])
def test_nobody_else(client: str) -> None:
    """To all others these are names as any: nobody can ask for one to get through."""
    for name in (BANNED, ALLOWED):
        decision = decide(stated(), client, name, NOON)
        assert (decision.verdict, decision.ban) == (Verdict.ALLOW, None)
        assert decide(stated(UnknownClients.BLOCK), client, name, NOON).verdict is (
            Verdict.ALLOW if client == "192.0.2.10" else Verdict.BLOCK
        )


@pytest.mark.parametrize("name", ["www.example.org", "www.clips.example.org", "203.0.113.7", "a..b", ""])
@pytest.mark.parametrize("unknown", list(UnknownClients))
def test_other_names(name: str, unknown: UnknownClients) -> None:
    """Who takes its address can't reach more than anybody in no network."""
    policy = stated(unknown)
    decision, stranger = (decide(policy, client, name, NOON) for client in (CLIENT, "198.51.100.7"))
    assert (decision.verdict, decision.network, decision.response) == (stranger.verdict, None, stranger.response)


def test_a_network_of_the_policy_around_it() -> None:
    """Whoever has its address is under that network's bans as any client there."""
    everyone = network("office", "0.0.0.0/0")
    policy = snapshot(
        ban(), networks=(everyone,), own=canary_policy(CANARY, AMONG), unknown_clients=UnknownClients.BLOCK
    )
    assert decide(policy, CLIENT, "www.clips.example.org", NOON).ban == "ban"
    assert decide(policy, CLIENT, "www.example.org", NOON).network == "office"
    assert decide(policy, CLIENT, BANNED, NOON).verdict is Verdict.BLOCK


@pytest.mark.parametrize("host", ["www.clips.example.org", "www.example.org", "203.0.113.7", ""])
@pytest.mark.parametrize("monitors", [True, False])
def test_a_client_whose_address_it_takes(host: str, monitors: bool) -> None:
    """Is decided as others in its network, also where nothing is readable; and the canary's name is refused there."""
    action = Action.MONITOR if monitors else Action.BLOCK
    policy = compile_with_canary(
        snapshot(ban(action=action), networks=(network("office", "192.0.2.0/24", "2001:db8::/64"),)).policy
    )
    taken = {"IPv4": "192.0.2.254", "IPv6": "2001:db8::ffff:ffff:ffff:fffe"}
    for client in taken.values():
        assert decide(policy, client, host, NOON) == decide(policy, "192.0.2.7", host, NOON)
        assert is_under_block(policy, client, NOON) is not monitors
        assert decide(policy, client, BANNED, NOON).network in policy.own_networks


@pytest.mark.parametrize(
    ("cidrs", "taken"),
    [
        (("192.0.2.0/24", "198.51.100.0/24"), ("192.0.2.254",)),
        (("192.0.2.8/31",), ("192.0.2.8",)),
        (("192.0.2.9", "2001:db8::/64"), ("192.0.2.9", "2001:db8::ffff:ffff:ffff:fffe")),
        (("127.0.0.0/8",), None),
    ],
)
def test_addresses_among_clients(cidrs: tuple[str, ...], taken: tuple[str, ...] | None) -> None:
    """A host's in the first prefix of each version; loopback is no client of a gateway."""
    found = among_clients(snapshot(ban(), networks=(network("office", *cidrs),)).policy)
    assert found == ({} if taken is None else {"office": taken})


def test_it_is_in_no_list() -> None:
    """What people are shown of the policy is what its files state, with the canary or without."""
    office = snapshot(ban(), networks=(network("office", "192.0.2.0/24"),))
    policy = compile_with_canary(office.policy)
    assert decide(policy, CLIENT, BANNED, NOON).verdict is Verdict.BLOCK
    assert policy.policy == office.policy
    assert [track.ban.name for track in policy.tracks] == ["ban"]
    assert (policy.bans, policy.banned_services) == (office.bans, office.banned_services)


def test_switched_off() -> None:
    """Then its addresses are as any."""
    off = GatewaySettings(canary=replace(CANARY, enabled=False))
    policy = compile_with_canary(snapshot(ban(), gateway=off).policy)
    assert not policy.own_networks
    assert decide(policy, CLIENT, BANNED, NOON).reason is Reason.UNKNOWN_CLIENT


def test_links() -> None:
    """Two links of four addresses, in any prefix that is large enough; and what is written is read again."""
    settings = CanarySettings(seconds=7, ipv4=IPv4Network("10.99.0.0/16"))
    ends = [
        (str(link.near), str(link.far), link.length) for link in (client_link(settings, 4), server_link(settings, 4))
    ]
    assert ends == [("10.99.0.1", "10.99.0.2", 30), ("10.99.0.5", "10.99.0.6", 30)]
    assert str(server_link(settings, 6).far).endswith("::6")
    assert from_json(as_json(settings)) == settings
