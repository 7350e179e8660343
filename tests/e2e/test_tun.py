"""A network behind mitmproxy's `tun` mode, which carries UDP: QUIC is decided by name, DNS question by question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dns.rcode
import pytest
from whenever import Instant

from labs.clients import UNRECOGNIZED_NAME, browser, forced_to_quic, http3, python
from labs.gateway import Gateway, office_policy, refused_over_http3
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, LARGE, Origin, fingerprint
from labs.resolver import ADDRESS, TTL, Resolver, ask

DEVICE = "tgtun0"
ROUTES = (
    ("ip", "rule", "{}", "iif", "client0", "lookup", "200"),
    ("ip", "-6", "rule", "{}", "iif", "client0", "lookup", "200"),
    ("ip", "route", "{}", "default", "dev", DEVICE, "table", "200"),
    ("ip", "-6", "route", "{}", "default", "dev", DEVICE, "table", "200"),
)
"""What sends all that comes from the office through the device."""


class TunGateway(Gateway):
    """A gateway whose mitmproxy has a network device of its own."""

    def listens(self) -> bool:
        """Whether the device is there, and up."""
        return "UP" in self.namespace.run("ip", "-o", "link", "show", DEVICE, check=False).stdout


@pytest.fixture(scope="module")
def gateway(
    lab: Lab,
    origin: Origin,
    check_lines: Callable[[Path], object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Gateway]:
    """A gateway that sends the office through the device."""
    folder = tmp_path_factory.mktemp("tun")
    with TunGateway(lab.gateway, folder, policy=office_policy(), mode=f"tun:{DEVICE}", check=check_lines) as running:
        for command in ROUTES:
            lab.gateway.run(*(word.format("add") for word in command))
        yield running
        for command in ROUTES[:2]:
            lab.gateway.run(*(word.format("del") for word in command))


def test_allowed_quic_passes_undecrypted(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A page over HTTP/3 comes with the origin's own certificate."""
    code, output = http3(lab.client, origin, ALLOWED, family, "--write-out", "%{certs}")

    assert code == 0
    assert f"origin of {ALLOWED} over HTTP/3.0" in output
    assert fingerprint(output.encode()) == origin.fingerprints[ALLOWED]


def test_banned_quic_is_refused_at_once(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The client is told no in QUIC's own words before anything reaches the origin, and that is logged."""
    record = refused_over_http3(lab, origin, gateway, family)
    assert record["tls"] == {"client": {"server_name": BANNED}, "established": False}
    assert record["destination"]["port"] == 443
    assert record["tokgate"]["ja4"].startswith("q13d")


def test_browser(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Chromium, whose hello fills two datagrams, speaks HTTP/3 with an allowed name, and is refused a banned one."""
    with browser(lab.client, origin.authority) as browse:
        allowed = browse(f"https://{ALLOWED}/", family, *forced_to_quic(ALLOWED, origin))
        banned = browse(f"https://{BANNED}/", family, *forced_to_quic(BANNED, origin))

    assert allowed.text.strip() == f"origin of {ALLOWED} over HTTP/3.0"
    assert banned.error.startswith("ERR_QUIC_")


def test_tcp_is_decided_alike(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """TLS over TCP is refused and passed through the same device."""
    assert python(lab.client, BANNED, family, False, origin.authority).error == UNRECOGNIZED_NAME
    assert f"origin of {ALLOWED}" in python(lab.client, ALLOWED, family, False, origin.authority).body


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_dns(lab: Lab, gateway: Gateway, resolver: Resolver, tcp: bool) -> None:
    """Whichever resolver a client asks: banned names don't exist, others come from that resolver as they are."""
    resolver.asked.clear()

    banned = ask(lab.client, BANNED, server=ADDRESS, tcp=tcp)
    allowed = ask(lab.client, "resolved.example.org", server=ADDRESS, tcp=tcp)

    assert (banned.rcode(), allowed.answer[0].ttl) == (dns.rcode.NXDOMAIN, TTL)
    assert resolver.asked == [("resolved.example.org", "A")]
    record = gateway.wait_for_record("it is logged", lambda r: r["event"]["action"] == "dns-query-blocked")
    assert (record["destination"]["ip"], record["destination"]["port"]) == (ADDRESS, 53)


def test_quic_is_cut_when_a_ban_starts(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A download under way ends with the start of the ban, and does not go on by being sent again."""
    gateway.write_policy(office_policy(action="monitor"))
    wait_until("the name is reachable", lambda: http3(lab.client, origin, BANNED, 4)[0] == 0)
    starts = gateway.soon(3)
    gateway.write_policy(office_policy(starts=str(starts)))
    wait_until("the ban is near", lambda: Instant.now() >= starts.subtract(seconds=3))

    code, size = http3(
        *(lab.client, origin, BANNED, 4, "--output", "/dev/null", "--speed-time", "3", "--speed-limit", "1"),
        *("--write-out", "%{size_download}"),
        path="/paced",
    )

    assert code == 28, "neither finished nor refused: nothing came any more"
    assert 0 < int(size) < LARGE
    cut = gateway.wait_for_record("the cut is logged", lambda r: r["event"]["action"] == "connection-cut")
    assert (cut["network"]["transport"], cut["destination"]["domain"]) == ("udp", BANNED)
    assert http3(lab.client, origin, BANNED, 4)[0] == 7
    assert http3(lab.client, origin, ALLOWED, 4)[0] == 0
