"""The printed ruleset on a real gateway: QUIC, plain HTTP, and what must not reach the proxy's port."""

from __future__ import annotations

import contextlib

import pytest

from labs.clients import browser, forced_to_quic
from labs.gateway import Gateway, refuses
from labs.netns import Lab, Namespace
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin, to_banned


def test_ruleset_is_accepted_and_loads_twice(gateway: Gateway) -> None:
    """nft accepts what is printed, and loading it over itself leaves the same rules."""
    gateway.namespace.run("nft", "-c", "-f", "-", given=gateway.ruleset())
    before = gateway.namespace.run("nft", "-s", "-t", "list", "table", "inet", "tokgate").stdout
    gateway.load_ruleset()

    assert "jump to_gate" in before
    assert gateway.namespace.run("nft", "-s", "-t", "list", "table", "inet", "tokgate").stdout == before


def test_quic_of_another_network_passes(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The control: Chromium in the visitors' network speaks HTTP/3 with the same name."""
    with origin.watch() as seen, browser(lab.guest, origin.authority) as browse:
        page = browse(f"https://{BANNED}/", family, *forced_to_quic(BANNED, origin))

    assert page.text.strip() == f"origin of {BANNED} over HTTP/3.0"
    assert seen["banned-udp443"] > 0


def test_a_browser_comes_over_quic_where_gates_read_it(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A browser bound to HTTP/3 gets an allowed page by TPROXY, else gives up; unbound it uses TCP."""
    with origin.watch() as seen, browser(lab.client, origin.authority) as browse:
        bound = browse(f"https://{ALLOWED}/", family, *forced_to_quic(ALLOWED, origin))
        free = browse(f"https://{ALLOWED}/", family)

    if gateway.mode == "gate:tproxy":
        assert bound.text.strip() == f"origin of {ALLOWED} over HTTP/3.0"
    else:
        assert bound.error.startswith("ERR_QUIC_")
        assert seen["allowed-udp443"] == 0
    assert free.text.strip() == f"origin of {ALLOWED} over HTTP/2.0"


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
    record = gateway.wait_for_record("a record of the page", refuses(BANNED, Lab.CLIENT[family]))
    assert record["event"]["action"] == "http-request-blocked"
    assert record["http"]["response"]["status_code"] == 451
    assert record["event"]["id"] in body


def test_plain_http_of_another_network_passes(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The control: the visitors get the origin's own answer for the same name."""
    head, body = get(lab.guest, BANNED, family)

    assert head.startswith("HTTP/1.1 200 ")
    assert body.strip() == f"origin of {BANNED} over HTTP/1.1"


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
