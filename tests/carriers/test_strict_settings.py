"""Each strict setting on every road by which a client comes: what docs/policy.md promises of it happens on all."""

import struct
from dataclasses import dataclass
from typing import Any

import dns.message
import pytest

from labs.carriers import ALERT, Kind, Lab, Way
from labs.proxy_lab import ALLOWED, NOW, policy
from labs.quic_lab import QuicGate
from labs.quic_packets import initial
from labs.records import Holder, Records
from tokgate.blocklog.records.record import Observer
from tokgate.evasion import hello as build
from tokgate.policy.observation import Endpoint
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.actions import Refuse
from tokgate.traffic.admission import admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import DnsArrival, DnsQuestion
from tokgate.wire.dns_message.query import read_query
from tokgate.wire.http_detection import PREFACE

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Road:
    """How a client comes, and by what it asks for its destination."""

    way: Way
    host: str

    def __str__(self) -> str:
        return f"{self.way}-by-{'address' if self.host == ADDRESS else 'name'}"


ROADS = [Road(Way.REDIRECTED, ADDRESS)]
ROADS += [Road(way, host) for way in (Way.CONNECT, Way.SOCKS) for host in (ADDRESS, ALLOWED)]
HELLOS = {
    "no-name": build.hello(build.supported_versions(0x0304), build.alpn(b"h2")),
    "address-for-name": build.hello(build.server_name(b"192.0.2.9"), build.alpn(b"h2")),
    "ech-outer": build.hello(build.server_name(b"cloudflare-ech.com"), build.ech()),
    "odd-name": build.hello(build.server_name(b"!"), build.alpn(b"h2")),
    "two-names": build.hello(build.server_name(ALLOWED.encode(), b"www.example.com")),
    "named": build.hello(build.server_name(ALLOWED.encode()), build.alpn(b"h2")),
    "port-in-name": build.hello(build.server_name(f"{ALLOWED}:443".encode())),
    "wildcard-name": build.hello(build.server_name(f"a!b.{ALLOWED}".encode())),
    "utf-8-name": build.hello(build.server_name("bücher.example".encode())),
}
NAMELESS = {"no-name", "address-for-name"}
REFUSES: dict[tuple[str, str], set[str]] = {
    ("missing_sni", "allow"): set(),
    ("missing_sni", "check-address"): set(),
    ("missing_sni", "check-certificate"): NAMELESS,
    ("missing_sni", "block"): NAMELESS,
    ("ech_outer", "allow"): set(),
    ("ech_outer", "block"): {"ech-outer"},
}
"""What each value refuses to clients under a ban; who answers here shows no certificate."""
ALWAYS = {"odd-name", "two-names"}
"""What is refused under any: no one can say which host it is for."""


def strict(setting: tuple[str, str]) -> Snapshot:
    stated: dict[str, Any] = dict([setting])
    return policy(**stated)


def expected(setting: tuple[str, str]) -> dict[str, bool]:
    return {name: name not in REFUSES[setting] | ALWAYS for name in HELLOS}


@pytest.mark.parametrize("road", ROADS, ids=str)
@pytest.mark.parametrize("setting", REFUSES, ids="-".join)
def test_over_tcp(lab: Lab, setting: tuple[str, str], road: Road) -> None:
    """A hello that a setting refuses gets its alert, and its destination hears nothing of it."""
    heard: list[bytes] = []

    def serve(client: Any) -> None:
        while data := client.recv(65536):
            heard.append(data)
            client.sendall(data)

    origin = lab.origin(serve)
    lab.start(strict(setting))
    for name, passes in expected(setting).items():
        said = build.records(HELLOS[name])
        assert lab.heard(road.way, origin.port, said, at=road.host) == (said if passes else ALERT), name
        assert (said in heard) is passes, name


@pytest.mark.parametrize("setting", REFUSES, ids="-".join)
def test_over_quic(records: Records, setting: tuple[str, str]) -> None:
    for name, passes in expected(setting).items():
        gate, message = QuicGate(records, strict(setting)), HELLOS[name]
        flight = initial(b"\x06\0" + struct.pack("!H", 0x4000 | len(message)) + message)
        gate.comes(flight)
        assert (gate.sent.to_server == [flight], bool(gate.sent.to_client)) == (passes, not passes), name


STRANGERS: dict[str, Any] = {"networks": ("192.0.2.0/24",)}


@pytest.mark.parametrize("value", ["allow", "block"])
def test_unknown_clients(lab: Lab, value: str) -> None:
    """A client in no network gets nothing under `block`: no tunnel, no TLS, no plain HTTP/2, no other protocol."""
    origin, passes, named = lab.origin(), value == "allow", build.records(HELLOS["named"])
    lab.start(policy(unknown_clients=value, **STRANGERS))
    for road in ROADS[1:]:
        with lab.dial(road.way) as client:
            granted = lab.granted(client, road.way, road.host, origin.port)
            assert (granted and client.answer(named) == named) is passes, road
    words = (named, build.records(HELLOS["no-name"]), b"SSH-2.0-x\r\n")
    for said in words if passes else (*words, PREFACE) if lab.kind is Kind.GATE else words:
        answer = lab.heard(Way.REDIRECTED, origin.port, said)
        assert (answer == said) is passes


@pytest.mark.parametrize("value", ["allow", "block"])
def test_unknown_clients_in_dns(records: Records, value: str) -> None:
    holder, observer = Holder(policy(unknown_clients=value, **STRANGERS)), Observer(hostname="a", version="0")
    enforcer = Enforcer(holder, records, observer, now=lambda: NOW)
    query = read_query(dns.message.make_query(ALLOWED, "A").to_wire())
    arrival = DnsArrival(client=Endpoint(ADDRESS, 40000), query=query)
    assert isinstance(admit(enforcer, arrival, DnsQuestion(arrival)).action, Refuse) is (value == "block")
