"""The gateway's canary: its names are decided for it alone, whatever the policy says."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from labs.builders import at, ban, network, snapshot
from tokgate.policy.canary import ALLOWED, BANNED, CanarySettings
from tokgate.policy.decide import Sighting, decide, decide_signals
from tokgate.policy.decision import Reason, Signal, Verdict
from tokgate.policy.settings import GatewaySettings, UnknownClients

NOON = at("2023-06-01T12:00:00Z")
CANARY = CanarySettings()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("unknown", list(UnknownClients))
def test_its_names(version: int, unknown: UnknownClients) -> None:
    """One is refused and one passes, also where clients in no network are refused; its own server passes."""
    policy = snapshot(ban(), networks=(network("office", "192.0.2.0/24"),), unknown_clients=unknown)
    client, server = str(CANARY.client(version).far), str(CANARY.server(version).far)
    for name, verdict in ((BANNED, Verdict.BLOCK), (ALLOWED, Verdict.ALLOW), (server, Verdict.ALLOW)):
        found = decide(policy, client, name, NOON)
        assert (found.verdict, found.reason) == (verdict, Reason.CANARY)
    seen = [Sighting(Signal.SNI, ALLOWED), Sighting(Signal.ADDRESS, server)]
    assert decide_signals(policy, client, seen, NOON).decision.verdict is Verdict.ALLOW


@pytest.mark.parametrize("client", ["192.0.2.10", "198.18.116.3", "2001:db8::1"])
def test_nobody_else(client: str) -> None:
    """To all others these are names as any: nobody can ask for one to get through."""
    policy = snapshot(ban(), networks=(network("office", "192.0.2.0/24"),))
    for name in (BANNED, ALLOWED):
        assert decide(policy, client, name, NOON).reason is not Reason.CANARY


def test_other_names() -> None:
    """Who takes its address can't reach more than anybody in no network."""
    policy = snapshot(ban(), networks=(network("office", "192.0.2.0/24"),), unknown_clients=UnknownClients.BLOCK)
    assert decide(policy, str(CANARY.client(4).far), "www.example.org", NOON).reason is Reason.UNKNOWN_CLIENT


def test_switched_off() -> None:
    """Then its addresses are as any."""
    off = GatewaySettings(canary=replace(CANARY, enabled=False))
    policy = snapshot(ban(), networks=(network("office", "192.0.2.0/24"),), gateway=off)
    assert policy.canary == {}


def test_links() -> None:
    """Two links of four addresses, in any prefix that is large enough; and what is written is read again."""
    settings = CanarySettings(seconds=7, ipv4=IPv4Network("10.99.0.0/16"))
    ends = [(str(link.near), str(link.far), link.length) for link in (settings.client(4), settings.server(4))]
    assert ends == [("10.99.0.1", "10.99.0.2", 30), ("10.99.0.5", "10.99.0.6", 30)]
    assert str(settings.server(6).far).endswith("::6")
    assert CanarySettings.read(settings.written) == settings
