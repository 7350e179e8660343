"""A transparent gateway, seen by real clients: what is allowed passes untouched, what is banned never gets out.

Over TLS, plain HTTP and QUIC, and what must not reach the proxy's port; by the ruleset that is printed.
"""

from __future__ import annotations

import contextlib

import pytest

from labs.clients import UNRECOGNIZED_NAME, Client, curl, http3
from labs.devtools import forced_to_quic, tab
from labs.gateway import Gateway, got_round, refuses
from labs.netns import Lab, Namespace
from labs.origin import ADDRESSES, ALLOWED, BANNED, LOOKALIKE, Origin, to_banned


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
        control = curl(lab.client, ALLOWED, family, True, origin.authority)

    assert answer.error == UNRECOGNIZED_NAME
    assert control.certificate == origin.fingerprints[ALLOWED]
    assert to_banned(seen) == 0
    # Within a minute of another attempt on this name this one is only counted: the record may be that one's.
    record = gateway.wait_for_record("a record of the refusal", refuses(BANNED, Lab.CLIENT[family]))
    assert record["tls"]["client"]["server_name"] == BANNED
    assert record["rule"]["id"] == "office-ban"


def test_lookalike_is_another_name(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A name that only ends in the same letters is not the banned one."""
    answer = curl(lab.client, LOOKALIKE, family, True, origin.authority)

    assert answer.certificate == origin.fingerprints[LOOKALIKE]


def get(namespace: Namespace, name: str, family: int, *headers: str) -> tuple[str, str]:
    """Head and body of a plain HTTP request."""
    address = (Lab.BANNED if name == BANNED else Lab.ALLOWED)[family]
    lines = [f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close", *headers]
    with namespace.connect(address, 80) as socket, socket.makefile("rb") as stream:
        socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head, _, body = stream.read().decode().partition("\r\n\r\n")
        return head, body


def test_plain_http_gets_the_page(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Port 80 of a banned name answers 451 with its reason, whom it is due to, and no permission to cache it."""
    with origin.watch() as seen:
        head, body = get(lab.client, BANNED, family, "Accept-Language: en")
        control, text = get(lab.client, ALLOWED, family)

    assert head.startswith("HTTP/1.1 451 ")
    assert 'rel="blocked-by"' in head
    assert "cache-control: no-store" in head.lower()
    assert "Example Authority" in body
    assert to_banned(seen) == 0
    assert control.startswith("HTTP/1.1 200 ")
    assert text.strip() == f"origin of {ALLOWED} over HTTP/1.1"
    of_it = refuses(BANNED, Lab.CLIENT[family], "http-request-blocked")
    record = gateway.wait_for_record("a record of the page", lambda r: of_it(r) and r["event"]["id"] in body)
    assert record["http"]["response"]["status_code"] == 451


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
    assert get(lab.client, ALLOWED, family)[0].startswith("HTTP/1.1 200 ")


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


def test_other_network_reaches_the_banned_name(
    lab: Lab, origin: Origin, gateway: Gateway, fetch: Client, family: int
) -> None:
    """A client of a network that is in no ban reads the same name from the origin itself."""
    with origin.watch() as seen:
        answer = fetch(lab.guest, BANNED, family, True, origin.authority)

    assert answer.error == ""
    assert answer.certificate == origin.fingerprints[BANNED]
    assert seen["banned-tcp443"] > 0


def test_plain_http_of_another_network_passes(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The control: the visitors get the origin's own answer for the same name."""
    head, body = get(lab.guest, BANNED, family)

    assert head.startswith("HTTP/1.1 200 ")
    assert body.strip() == f"origin of {BANNED} over HTTP/1.1"


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
