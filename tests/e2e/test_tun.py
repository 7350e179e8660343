"""A network behind mitmproxy's `tun` mode, which carries UDP: QUIC is decided by name, DNS question by question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.rcode
import pytest
from lab_clients import UNRECOGNIZED_NAME, browser, python
from lab_gateway import Gateway, office_policy, refuses
from lab_netns import Lab, wait_until
from lab_origin import ADDRESSES, ALLOWED, BANNED, LARGE, Origin, fingerprint, to_banned
from lab_resolver import ADDRESS, TTL, Resolver, ask
from whenever import Instant

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


def http3(lab: Lab, origin: Origin, name: str, family: int, *options: str, path: str = "/") -> tuple[int, str]:
    """curl's exit code and output for a page over HTTP/3 and nothing else."""
    address = ADDRESSES[name][family]
    done = lab.client.run(
        *("curl", "-sS", "--max-time", "60", "--http3-only", "--cacert", origin.authority, *options),
        *("--resolve", f"{name}:443:{address}", f"https://{name}{path}"),
        check=False,
    )
    return done.returncode, done.stdout


def test_allowed_quic_passes_undecrypted(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A page over HTTP/3 comes with the origin's own certificate."""
    code, output = http3(lab, origin, ALLOWED, family, "--write-out", "%{certs}")

    assert code == 0
    assert f"origin of {ALLOWED} over HTTP/3.0" in output
    assert fingerprint(output.encode()) == origin.fingerprints[ALLOWED]


def test_banned_quic_is_refused_at_once(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The client is told no in QUIC's own words before anything reaches the origin, and that is logged."""
    with origin.watch() as seen:
        started = time.monotonic()
        code, output = http3(lab, origin, BANNED, family)
        elapsed = time.monotonic() - started

    assert (code, output) == (7, "")
    assert elapsed < 3  # far from curl's own patience
    assert to_banned(seen) == 0
    record = gateway.wait_for_record(
        "the refusal is logged",
        lambda r: refuses(BANNED, Lab.CLIENT[family])(r) and r["event"]["action"] == "quic-refused",
    )
    assert (record["network"]["transport"], record["network"]["protocol"]) == ("udp", "quic")
    assert record["tls"] == {"client": {"server_name": BANNED}, "established": False}
    assert record["destination"]["port"] == 443
    assert record["tokgate"]["ja4"].startswith("q13d")


def test_browser(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Chromium, whose hello fills two datagrams, speaks HTTP/3 with an allowed name, and is refused a banned one."""
    with browser(lab.client, origin.authority) as browse:
        allowed = browse(f"https://{ALLOWED}/", family, *forced(ALLOWED, origin))
        banned = browse(f"https://{BANNED}/", family, *forced(BANNED, origin))

    assert allowed.text.strip() == f"origin of {ALLOWED} over HTTP/3.0"
    assert banned.error.startswith("ERR_QUIC_")


def forced(name: str, origin: Origin) -> tuple[str, str]:
    """What binds Chromium to HTTP/3 for a name."""
    return (
        f"--origin-to-force-quic-on={name}:443",
        f"--ignore-certificate-errors-spki-list={origin.pins[name]}",
    )


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
    wait_until("the name is reachable", lambda: http3(lab, origin, BANNED, 4)[0] == 0)
    starts = gateway.soon(3)
    gateway.write_policy(office_policy(starts=str(starts)))
    wait_until("the ban is near", lambda: Instant.now() >= starts.subtract(seconds=3))

    code, size = http3(
        *(lab, origin, BANNED, 4, "--output", "/dev/null", "--speed-time", "3", "--speed-limit", "1"),
        *("--write-out", "%{size_download}"),
        path="/paced",
    )

    assert code == 28, "neither finished nor refused: nothing came any more"
    assert 0 < int(size) < LARGE
    cut = gateway.wait_for_record("the cut is logged", lambda r: r["event"]["action"] == "connection-cut")
    assert (cut["network"]["transport"], cut["destination"]["domain"]) == ("udp", BANNED)
    assert http3(lab, origin, BANNED, 4)[0] == 7
    assert http3(lab, origin, ALLOWED, 4)[0] == 0
