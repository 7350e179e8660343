"""An exam room: three services are reachable, and nothing else, whatever a client speaks and on which port."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from labs.clients import http3
from labs.gateway import CARRIERS, Gateway, MakeGateway, office_policy, refuses
from labs.netns import Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, LOOKALIKE, Origin
from labs.other_ports import REFUSED_BY_ALERT, curl, greeted, serving

SERVER = Lab.MORE[0]
"""The address of a service that has no name."""
ELSEWHERE = Lab.MORE[1]
TCP = (21, 22, 25, 110, 143, 389, 445, 993, 1194, 1723, 3389, 5060, 5222, 5900, 6667, 9001)
UDP = (53, 123, 137, 161, 500, 1194, 1900, 3478, 4500, 5060, 5353, 6881, 51820)
PROTOCOLS = {"icmp": 1, "icmpv6": 58, "gre": 47, "esp": 50, "sctp": 132, "udplite": 136}


@pytest.fixture(scope="module", params=["gates", "redirected"])
def gateway(request: pytest.FixtureRequest, lab: Lab, origin: Origin, any_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway with a ban on all but a name, a domain, and an address."""
    policy = office_policy(services="all", **{"except": ["library", "payroll", "server"]})
    policy["services"] = {
        "library": {"names": {"exact": [ALLOWED]}},
        "payroll": {"names": {"suffix": [LOOKALIKE.partition(".")[2]]}},
        "server": {"addresses": list(SERVER.values())},
    }
    with any_gateway(policy=policy, **CARRIERS[request.param]) as running:
        # Plain HTTP is opened, by a process that may still be starting.
        wait_until("an opener answers", lambda: curl(lab.client, origin, f"http://{ALLOWED}:80/", 4)[0] == 0)
        yield running


@pytest.mark.parametrize("name", [ALLOWED, LOOKALIKE])
@pytest.mark.parametrize("url", ["https://{}:443/", "https://{}:8443/", "http://{}:80/", "http://{}:8080/"])
def test_what_is_excepted_by_name(lab: Lab, origin: Origin, gateway: Gateway, family: int, name: str, url: str) -> None:
    """It is reached as if there were no ban, over TLS and HTTP, on any port."""
    code, said = curl(lab.client, origin, url.format(name), family)
    assert (code, said[-3:]) == (0, "200")


@pytest.mark.parametrize("port", [22, 5000])
def test_what_is_excepted_by_address(lab: Lab, gateway: Gateway, family: int, port: int) -> None:
    """Whatever it speaks, also first."""
    assert greeted(lab, lab.client, SERVER[family], port)


@pytest.mark.parametrize("port", [443, 853, 4433, 8443])
def test_tls(lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int) -> None:
    """Any other name gets an alert, and its record names the ban and no service."""
    with origin.watch() as seen:
        refused, _ = curl(lab.client, origin, f"https://{BANNED}:{port}/", family)
    assert refused == REFUSED_BY_ALERT
    assert not [each for each in seen if ADDRESSES[BANNED][family] in str(each)]
    record = gateway.wait_for_record("the refusal", refuses(BANNED, Lab.CLIENT[family]))
    assert (record["rule"]["id"], record["tokgate"]["service"]) == ("office-ban", "all")
    assert curl(lab.guest, origin, f"https://{BANNED}:{port}/", family)[1][-3:] == "200"


@pytest.mark.parametrize("port", [80, 3128, 8080])
def test_http(lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int) -> None:
    """Any other name gets the page."""
    assert curl(lab.client, origin, f"http://{BANNED}:{port}/", family)[1][-3:] == "451"


def test_quic(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """No other name is reached over HTTP/3."""
    assert http3(lab.client, origin, BANNED, family)[0] != 0


@pytest.mark.parametrize("port", TCP)
@pytest.mark.parametrize("said", [b"", b"HELO client.example\r\n"], ids=["silent", "speaks"])
def test_other_tcp(lab: Lab, gateway: Gateway, family: int, port: int, said: bytes) -> None:
    """Nothing reaches another address, on any port, whoever speaks first."""
    with serving(lab.origin, ELSEWHERE[family], port) as server:
        server.settimeout(0.1)
        with contextlib.suppress(OSError), lab.client.connect(ELSEWHERE[family], port, 20) as client:
            client.sendall(said)
            assert client.recv(64) == b""
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("port", UDP)
def test_udp(lab: Lab, gateway: Gateway, family: int, port: int) -> None:
    """It is refused at once; a guest's arrives."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET

    def bound() -> socket.socket:
        made = socket.socket(kind, socket.SOCK_DGRAM)
        made.bind((ELSEWHERE[family], port))
        return made

    with lab.origin.inside(bound) as server:
        server.settimeout(20)
        with lab.guest.datagrams(ELSEWHERE[family], port) as guest:
            guest.send(b"guest")
            assert server.recv(64) == b"guest"
        server.settimeout(0.1)
        with lab.client.datagrams(ELSEWHERE[family], port) as client:
            client.settimeout(20)
            client.send(b"client")
            with pytest.raises(ConnectionRefusedError):
                client.recv(64)
        with pytest.raises(TimeoutError):
            server.recv(64)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_other_protocols(lab: Lab, gateway: Gateway, family: int, protocol: int) -> None:
    """Echo requests, which may carry anything, tunnels, SCTP and UDP-Lite are refused; a guest's arrive."""
    if protocol == (1 if family == 6 else 58):
        return  # the other family's
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET

    def raw() -> socket.socket:
        return socket.socket(kind, socket.SOCK_RAW, protocol)

    with lab.origin.inside(raw) as server, lab.client.inside(raw) as client, lab.guest.inside(raw) as guest:
        server.settimeout(20)
        payload = {1: b"\x08", 58: b"\x80"}.get(protocol, b"\x00") + b"\x00\x00\x02\x00\x00\x00\x00from "
        with contextlib.suppress(OSError):
            client.sendto(payload + b"client", (ELSEWHERE[family], 0))
        guest.sendto(payload + b"guest", (ELSEWHERE[family], 0))
        while not (heard := server.recv(256)).endswith((b"guest", b"client")):  # the origin's neighbours speak too
            pass
        assert heard.endswith(b"guest")
