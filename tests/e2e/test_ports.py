"""The web on other ports than 80 and 443, addresses of a banned service, and what else is spoken there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from labs.gateway import CARRIERS, Gateway, MakeGateway, Record, office_policy, refuses
from labs.netns import Lab, run, wait_until
from labs.origin import ALLOWED, BANNED, OTHER_HTTP, OTHER_QUIC, OTHER_TLS, Origin, to_banned
from labs.other_ports import REFUSED_BY_ALERT, curl, greeted, serving
from labs.quic_packets import QuicClient

SERVICE = {4: "203.0.113.30", 6: "2001:db8:f::30"}
"""Addresses of a banned service that has no names."""


@pytest.fixture(scope="module")
def service(lab: Lab) -> Iterator[None]:
    """Give the origin the service's addresses; what it says itself it says from the others."""
    changes = (("-4", f"{SERVICE[4]}/24"), ("-6", f"{SERVICE[6]}/64"))
    for family, prefix in changes:
        lifetime = ("preferred_lft", "0") if family == "-6" else ()
        run("ip", family, "-n", lab.origin.name, "addr", "add", prefix, "dev", "eth0", *lifetime)
    yield
    for family, prefix in changes:
        run("ip", family, "-n", lab.origin.name, "addr", "del", prefix, "dev", "eth0")


@pytest.fixture(scope="module", params=CARRIERS)
def gateway(
    request: pytest.FixtureRequest, lab: Lab, origin: Origin, service: None, any_gateway: MakeGateway
) -> Iterator[Gateway]:
    """A gateway with a ban of names, and of a service by its addresses."""
    policy = office_policy()
    policy["services"]["push"] = {"title": "Push", "addresses": list(SERVICE.values())}
    policy["bans"]["office-ban"]["services"] = ["tiktok", "push"]
    with any_gateway(policy=policy, **CARRIERS[request.param]) as running:
        # Plain HTTP is opened, by a process that may still be starting.
        wait_until("an opener answers", lambda: curl(lab.client, origin, f"http://{ALLOWED}:80/", 4)[0] == 0)
        yield running


@pytest.mark.parametrize("port", OTHER_TLS)
def test_tls(lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int) -> None:
    """A banned site is no better served on another port; an allowed one is, and so are others' clients."""
    with origin.watch() as seen:
        refused, _ = curl(lab.client, origin, f"https://{BANNED}:{port}/", family)
    allowed = curl(lab.client, origin, f"https://{ALLOWED}:{port}/", family)
    guest = curl(lab.guest, origin, f"https://{BANNED}:{port}/", family)

    assert refused == REFUSED_BY_ALERT
    assert to_banned(seen) == 0
    assert allowed == (0, f"origin of {ALLOWED} over HTTP/2.0\n200")
    assert guest == (0, f"origin of {BANNED} over HTTP/2.0\n200")
    gateway.wait_for_record("the refusal", refuses(BANNED, Lab.CLIENT[family]))


@pytest.mark.parametrize("port", OTHER_HTTP)
def test_http(lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int) -> None:
    """Plain HTTP on another port gets the page, with its reason."""
    with origin.watch() as seen:
        code, page = curl(lab.client, origin, f"http://{BANNED}:{port}/", family)
    allowed = curl(lab.client, origin, f"http://{ALLOWED}:{port}/", family)
    guest = curl(lab.guest, origin, f"http://{BANNED}:{port}/", family)

    assert (code, page[-3:]) == (0, "451")
    assert to_banned(seen) == 0
    assert allowed == (0, f"origin of {ALLOWED} over HTTP/1.1\n200")
    assert guest == (0, f"origin of {BANNED} over HTTP/1.1\n200")
    of_it = refuses(BANNED, Lab.CLIENT[family], "http-request-blocked")
    gateway.wait_for_record("the refusal", lambda record: of_it(record) and record["event"]["id"] in page)


def test_a_proxy_somewhere_else(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A request to a proxy behind the gateway is decided by the name that it asks for, not by the proxy's address."""
    proxy = f"http://{f'[{Lab.ALLOWED[6]}]' if family == 6 else Lab.ALLOWED[4]}:3128"
    code, page = curl(lab.client, origin, f"http://{BANNED}:80/", family, "-x", proxy)
    allowed = curl(lab.client, origin, f"http://{ALLOWED}:80/", family, "-x", proxy)
    guest = curl(lab.guest, origin, f"http://{BANNED}:80/", family, "-x", proxy)

    assert (code, page[-3:]) == (0, "451")
    assert allowed == (0, f"origin of {ALLOWED} over HTTP/1.1\n200")
    assert guest == (0, f"origin of {BANNED} over HTTP/1.1\n200")


def test_quic_of_a_version_that_nobody_speaks(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A first packet that the firewall doesn't know gets a list of versions, and the next one is refused."""
    flight = QuicClient(BANNED).flight
    with origin.watch() as seen, lab.client.datagrams(Lab.BANNED[family], OTHER_QUIC[0]) as sock:
        sock.settimeout(20)
        sock.send(flight[0][:1] + b"\x12\x34\x56\x78" + flight[0][5:])
        assert sock.recv(65536)[1:5] == bytes(4)  # version negotiation (RFC 9000 §17.2.1)
        for datagram in flight:
            sock.send(datagram)
        with pytest.raises(ConnectionRefusedError):
            sock.recv(65536)
        sock.send(flight[0][:1] + b"\x1a\x2a\x3a\x4a" + flight[0][5:])
        assert sock.recv(65536)[1:5] == bytes(4)
    assert to_banned(seen) == 2


def test_a_client_of_http3_falls_back(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Who would like HTTP/3 gets an allowed site over TCP, without waiting."""
    allowed = curl(lab.client, origin, f"https://{ALLOWED}:8443/", family, "--http3")
    assert allowed == (0, f"origin of {ALLOWED} over HTTP/2.0\n200")


@pytest.mark.parametrize("port", [8081, 8888])
def test_a_server_that_speaks_first(lab: Lab, gateway: Gateway, family: int, port: int) -> None:
    """Mail or SSH on a port of the web goes on for clients under a ban, and for others."""
    assert greeted(lab, lab.client, Lab.ALLOWED[family], port)
    assert greeted(lab, lab.guest, Lab.ALLOWED[family], port)


@pytest.mark.parametrize("port", [22, 5228])
@pytest.mark.parametrize("said", [b"", b"\x10\x0d\x00\x04MQTT"], ids=["silent", "not TLS"])
def test_an_address_on_any_port(
    lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int, said: bytes
) -> None:
    """A banned service's address is closed on every port, whatever is spoken, and the attempt is in the log."""
    with serving(lab.origin, SERVICE[family], port) as server:
        server.settimeout(0.1)
        with lab.client.connect(SERVICE[family], port, 20) as client:
            client.sendall(said)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(64) == b""
        with pytest.raises(TimeoutError):
            server.accept()
    assert greeted(lab, lab.guest, SERVICE[family], port)
    gateway.wait_for_record("the refusal", _of_service(Lab.CLIENT[family]))


def _of_service(client: str) -> Callable[[Record], bool]:
    """Matches a record of a refused address, or of several."""
    return lambda record: (
        "denied" in record["event"]["type"]
        and record["source"]["ip"] == client
        and record.get("rule", {}).get("category") == "push"
    )
