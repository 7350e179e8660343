"""A transparent gateway, seen by real clients: what is allowed passes untouched, what is banned never gets out.

Over TLS, plain HTTP and QUIC, on usual ports and others; by the ruleset that is printed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from labs.clients import UNRECOGNIZED_NAME, Client, http3
from labs.clients import curl as fetch_by_curl
from labs.devtools import forced_to_quic, tab
from labs.gateway import CARRIERS, Gateway, MakeGateway, Record, got_round, office_policy, refuses
from labs.netns import Lab, Namespace, run, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, LOOKALIKE, OTHER_HTTP, OTHER_QUIC, OTHER_TLS, Origin, to_banned
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
    """A gateway with a ban of names, and of a service by its addresses, for the office network."""
    policy = office_policy()
    policy["services"]["push"] = {"title": "Push", "addresses": list(SERVICE.values())}
    policy["bans"]["office-ban"]["services"] = ["tiktok", "push"]
    with any_gateway(policy=policy, **CARRIERS[request.param]) as running:
        # Plain HTTP is opened, by a process that may still be starting.
        wait_until("an opener answers", lambda: curl(lab.client, origin, f"http://{ALLOWED}:80/", 4)[0] == 0)
        yield running


def test_ruleset_is_accepted_and_loads_twice(gateway: Gateway) -> None:
    """nft accepts what is printed, and loading it over itself leaves the same rules."""
    gateway.namespace.run("nft", "-c", "-f", "-", given=gateway.ruleset())
    before = gateway.namespace.run("nft", "-s", "-t", "list", "table", "inet", "tokgate").stdout
    gateway.load_ruleset()

    assert "jump to_gate" in before
    assert gateway.namespace.run("nft", "-s", "-t", "list", "table", "inet", "tokgate").stdout == before


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_allowed_name_gets_the_origins_own_certificate(
    lab: Lab, origin: Origin, gateway: Gateway, fetch: Client, family: int, http2: bool
) -> None:
    """Every client reads the origin's page over TLS that ends at the origin, whatever the family and the protocol."""
    with origin.watch() as seen:
        answer = fetch(lab.client, ALLOWED, family, http2, origin.authority)

    assert answer.error == ""
    assert answer.certificate == origin.fingerprints[ALLOWED]
    assert answer.protocol == ("h2" if http2 else "http/1.1")
    if answer.body:
        assert answer.body.strip() == f"origin of {ALLOWED} over {'HTTP/2.0' if http2 else 'HTTP/1.1'}"
    assert seen["allowed-tcp443"] > 0


def test_banned_name_is_refused_before_anything_is_sent(
    lab: Lab, origin: Origin, gateway: Gateway, fetch: Client, family: int
) -> None:
    """Every client gets alert 112 for the banned name, the origin gets no packet, and the log gets a line."""
    with origin.watch() as seen:
        answer = fetch(lab.client, BANNED, family, True, origin.authority)
        # The control is also a barrier: what the gateway might have sent before this answer would have arrived.
        control = fetch_by_curl(lab.client, ALLOWED, family, True, origin.authority)

    assert answer.error == UNRECOGNIZED_NAME
    assert control.certificate == origin.fingerprints[ALLOWED]
    assert to_banned(seen) == 0
    # Within a minute of another attempt on this name this one is only counted: the record may be that one's.
    record = gateway.wait_for_record("a record of the refusal", refuses(BANNED, Lab.CLIENT[family]))
    assert record["tls"]["client"]["server_name"] == BANNED
    assert record["rule"]["id"] == "office-ban"


@pytest.mark.parametrize("port", [443, *OTHER_TLS])
def test_tls(lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int) -> None:
    """A banned site is served on no port; an allowed one is, what only ends alike, and others' clients are as well."""
    with origin.watch() as seen:
        refused, _ = curl(lab.client, origin, f"https://{BANNED}:{port}/", family)
    allowed = curl(lab.client, origin, f"https://{ALLOWED}:{port}/", family)
    lookalike = curl(lab.client, origin, f"https://{LOOKALIKE}:{port}/", family)
    guest = curl(lab.guest, origin, f"https://{BANNED}:{port}/", family)

    assert refused == REFUSED_BY_ALERT
    assert to_banned(seen) == 0
    for answer, name in ((allowed, ALLOWED), (lookalike, LOOKALIKE), (guest, BANNED)):
        assert answer == (0, f"origin of {name} over HTTP/2.0\n200")
    gateway.wait_for_record("the refusal", refuses(BANNED, Lab.CLIENT[family]))


@pytest.mark.parametrize("port", [80, *OTHER_HTTP])
def test_http(lab: Lab, origin: Origin, gateway: Gateway, family: int, port: int) -> None:
    """Plain HTTP gets the page, with its reason, on any port."""
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


@pytest.mark.parametrize("role", ["client", "guest", "origin"])
def test_proxy_port_is_closed_to_direct_dialling(lab: Lab, gateway: Gateway, role: str, family: int) -> None:
    """Nobody reaches the proxy's own port by its number: it would connect to itself."""
    namespace: Namespace = getattr(lab, role)

    with pytest.raises(ConnectionRefusedError):
        namespace.connect(Lab.GATEWAY[family], gateway.ports[0])


def test_direct_dialling_ends_without_the_firewall_too(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Where the rules let a direct connection in, tokgate ends it, connects to nobody, and goes on serving."""
    gateway.namespace.run("nft", "flush", "chain", "inet", "tokgate", "input")
    try:
        with origin.watch(*ADDRESSES) as seen, lab.client.connect(Lab.GATEWAY[family], gateway.ports[0]) as socket:
            socket.sendall(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionResetError):
                assert socket.recv(65536) == b""
    finally:
        gateway.load_ruleset()

    assert not seen
    assert curl(lab.client, origin, f"http://{ALLOWED}:80/", family)[1][-3:] == "200"


def test_chromium(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """It reads an allowed page, is refused the banned one, reads that as a visitor; the control trusts nobody."""
    authorities = (origin.authority,)
    with origin.watch() as seen, tab(namespace=lab.client, authorities=authorities, family=6) as page:
        assert page.error(f"https://{BANNED}/") == "ERR_SSL_UNRECOGNIZED_NAME_ALERT"
    assert to_banned(seen) == 0
    with tab(namespace=lab.client, authorities=authorities) as page:
        page.open(f"https://{ALLOWED}/")
        assert (page.certificate, page.document["protocol"]) == (origin.fingerprints[ALLOWED], "h2")
        assert page.text.strip() == f"origin of {ALLOWED} over HTTP/2.0"
    with tab(namespace=lab.guest, authorities=authorities) as page:
        page.open(f"https://{BANNED}/")
        assert page.certificate == origin.fingerprints[BANNED]
    with tab(namespace=lab.client) as page:
        assert page.error(f"https://{ALLOWED}/") == "ERR_CERT_AUTHORITY_INVALID"


def test_quic(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A browser bound to HTTP/3 gets an allowed page by TPROXY, else gives up; unbound it uses TCP; visitors get it."""
    flags, authorities = forced_to_quic(origin, ALLOWED), (origin.authority,)
    with origin.watch() as seen, tab(*flags, namespace=lab.client, authorities=authorities) as page:
        if gateway.mode == "gate:tproxy":
            page.open(f"https://{ALLOWED}/")
            assert page.text.strip() == f"origin of {ALLOWED} over HTTP/3.0"
        else:
            assert page.error(f"https://{ALLOWED}/").startswith("ERR_QUIC_")
    assert gateway.mode == "gate:tproxy" or seen["allowed-udp443"] == 0
    with tab(namespace=lab.client, authorities=authorities) as page:
        page.open(f"https://{ALLOWED}/")
        assert page.text.strip() == f"origin of {ALLOWED} over HTTP/2.0"
    for family in (4, 6):
        assert http3(lab.guest, origin, BANNED, family) == (0, f"origin of {BANNED} over HTTP/3.0\n")


def test_nobody_gets_round_it(lab: Lab, gateway: Gateway) -> None:
    """Of all attempts of `tokgate evasion` none reaches the banned service's own server, whatever carries them."""
    assert got_round(lab, gateway) == []
