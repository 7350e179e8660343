"""DNS mode between real networks: banned names don't exist, and others are resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import dns.edns
import dns.rcode
import pytest

from labs.gateway import ROOT, Gateway, MakeGateway, office_policy
from labs.netns import Lab
from labs.resolver import ADDRESS, Upstream, ask

BANNED = "dns.tiktok.com"
ALLOWED = "resolved.example.org"
CARRIERS: dict[str, dict[str, Any]] = {
    "tokgate-run": {"options": ("--listen-host", "", "--name-server", ADDRESS)},
    "mitmdump": {"stock": True, "options": ("--set", f"dns_name_servers={ADDRESS}")},
}
both_transports = pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])


@pytest.fixture(scope="module", params=CARRIERS)
def dns_gateway(request: pytest.FixtureRequest, resolver: Upstream, any_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway that resolves for the office and for visitors."""
    with any_gateway(policy=office_policy(), mode="dns", ports=(53,), **CARRIERS[request.param]) as running:
        yield running


@both_transports
@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS"])
def test_banned_name(lab: Lab, resolver: Upstream, dns_gateway: Gateway, kind: str, tcp: bool) -> None:
    """A banned name is refused with the reason, logged, and asked of nobody."""
    resolver.asked.clear()

    got = ask(lab.client, BANNED, kind, tcp=tcp)

    assert got.rcode() == dns.rcode.NXDOMAIN
    (error,) = got.options
    assert isinstance(error, dns.edns.EDEOption)
    assert (error.code, "Example Authority" in (error.text or "")) == (16, True)
    assert resolver.asked == []
    record = dns_gateway.wait_for_record("it is logged", lambda r: r["event"]["action"] == "dns-query-blocked")
    assert (record["source"]["ip"], record["dns"]["question"]["name"]) == (Lab.CLIENT[4], BANNED)


@both_transports
@pytest.mark.parametrize("kind", ["A", "AAAA", "HTTPS", "TXT"])
def test_allowed_name(lab: Lab, dns_gateway: Gateway, kind: str, tcp: bool) -> None:
    """Any other name is resolved, by the name server that the policy's operator chose."""
    got = ask(lab.client, ALLOWED, kind, tcp=tcp)

    assert (got.rcode(), got.edns) == (dns.rcode.NOERROR, 0)
    assert len(got.answer) == 1


@both_transports
def test_visitors(lab: Lab, dns_gateway: Gateway, tcp: bool) -> None:
    """Who is under no ban gets the address."""
    assert ask(lab.guest, BANNED, server="198.51.100.1", tcp=tcp).answer[0][0].to_text() == ADDRESS


def test_ipv6_clients(lab: Lab, dns_gateway: Gateway) -> None:
    """Clients may come over IPv6."""
    assert ask(lab.client, BANNED, server=Lab.GATEWAY[6]).rcode() == dns.rcode.NXDOMAIN
    assert ask(lab.client, ALLOWED, server=Lab.GATEWAY[6]).answer


def redirection() -> str:
    """The firewall's rules for DNS as deploy/README.md has them, for this laboratory's clients and port."""
    readme = (ROOT / "deploy" / "README.md").read_text()
    rules = re.search(r"nft -f - <<'END'\n(.*?)END", readme, re.DOTALL)
    assert rules
    return rules[1].replace("10.32.0.0/14", "192.0.2.0/24").replace(":5300", ":53")


@both_transports
def test_redirected_clients(lab: Lab, resolver: Upstream, dns_gateway: Gateway, tcp: bool) -> None:
    """Clients that ask another resolver are answered in its place when the firewall redirects them."""
    assert ask(lab.client, BANNED, server=ADDRESS, tcp=tcp).answer, "the control"
    lab.gateway.run("nft", "-f", "-", given=redirection())
    try:
        assert ask(lab.client, BANNED, server=ADDRESS, tcp=tcp).rcode() == dns.rcode.NXDOMAIN
        assert ask(lab.client, ALLOWED, server=ADDRESS, tcp=tcp).answer
    finally:
        lab.gateway.run("nft", "delete", "table", "inet", "tokgate-dns")
