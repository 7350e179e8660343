"""HTTP/3 through gates: first packets by TPROXY, the rest by the kernel, refusals in QUIC's own words."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from whenever import Instant

from labs.clients import Download, http3
from labs.devtools import forced_to_quic, tab
from labs.gateway import Gateway, MakeGateway, office_policy, refused_over_http3
from labs.netns import Lab, run, wait_until
from labs.origin import ALLOWED, BANNED, LARGE, Origin, fingerprint
from labs.quic_packets import QuicClient

ELSEWHERE = "elsewhere.tiktok.com"
"""A banned name, asked for at an allowed one's address: for a minute the next attempts on it are only counted."""


@pytest.fixture(scope="module")
def gateway(any_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway with two gates, and what `tokgate ruleset` prints."""
    with any_gateway(policy=office_policy(), mode="gate:tproxy", options=("--workers", "2")) as running:
        yield running


@contextlib.contextmanager
def narrow(lab: Lab) -> Iterator[None]:
    """The gateway's link towards the origin takes less than the client's."""
    link = ("ip", "-n", lab.gateway.name, "link", "set", "origin0", "mtu")
    run(*link, "1400")
    try:
        yield
    finally:
        run(*link, "1500")


def at_gates(lab: Lab) -> int:
    """Packets that came to gates so far."""
    listed = lab.gateway.run("nft", "list", "chain", "inet", "tokgate", "quic_to_gate").stdout
    return sum(map(int, re.findall(r"packets (\d+) bytes \d+ notrack", listed)))


def test_allowed(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A page over HTTP/3 comes with the origin's own certificate, and the origin sees the client's own address."""
    code, output = http3(lab.client, origin, ALLOWED, family, "--write-out", "%{certs}", path="/who")

    assert code == 0, gateway.narrated()
    assert output.startswith(f"{Lab.CLIENT[family]}\n")
    assert fingerprint(output.encode()) == origin.fingerprints[ALLOWED]


def test_the_kernel_forwards_the_rest(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Of a download of thousands of packets the gates see the handshake alone."""
    before = at_gates(lab)
    code, size = http3(
        *(lab.client, origin, ALLOWED, family, "--output", "/dev/null", "--write-out", "%{size_download}"),
        path="/large",
    )

    assert (code, int(size)) == (0, LARGE)
    assert 0 < at_gates(lab) - before < 40


def test_banned(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The client is told no in QUIC's own words before anything reaches the origin, and that is logged."""
    record = refused_over_http3(lab, origin, gateway, family)
    assert record["destination"]["ip"] == Lab.BANNED[family]
    assert record["tokgate"]["ja4"].startswith("q13d")


def test_second_connection_in_a_flow(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """Between the same ports an allowed connection opens no way for a banned one, and goes on itself."""
    allowed, banned = QuicClient(ALLOWED), QuicClient(ELSEWHERE)
    with lab.client.datagrams(Lab.ALLOWED[4], 443) as sock:
        for datagram in allowed.flight:
            sock.send(datagram)
        wait_until("the server greets", lambda: allowed.greeted(sock.recv(65536)))
        for datagram in banned.flight:
            sock.send(datagram)

        def refusal() -> object:
            end = banned.told(sock.recv(65536))
            return end is not None and end.error_code == 0x0170 and end

        wait_until("the banned one is refused", refusal)


def test_a_packet_too_large_for_the_way(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A client that finds out how large packets may be loses those that are too large, and its connection goes on."""
    allowed, banned = QuicClient(ALLOWED), QuicClient(ELSEWHERE)
    with lab.client.datagrams(Lab.ALLOWED[family], 443) as sock:
        for datagram in allowed.flight:
            sock.send(datagram)
        wait_until("the server greets", lambda: allowed.greeted(sock.recv(65536)))
        with narrow(lab):
            sock.send(b"\x40" + bytes(1400))
            for datagram in banned.flight:
                sock.send(datagram)
            wait_until("what comes after it is answered", lambda: banned.told(sock.recv(65536)))  # or raises


def test_retry(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A server that makes clients prove their address is asked again, with other keys and its token."""
    address, alpn = "203.0.113.30", ["hello"]
    servers = QuicConfiguration(is_client=False, alpn_protocols=alpn)
    servers.load_cert_chain(origin.folder / f"{ALLOWED}.pem", origin.folder / f"{ALLOWED}.key")
    clients = QuicConfiguration(is_client=True, server_name=ALLOWED, alpn_protocols=alpn)
    clients.load_verify_locations(str(origin.authority))

    @contextlib.asynccontextmanager
    async def retrying() -> AsyncIterator[None]:
        server = await serve(address, 443, configuration=servers, retry=True)
        yield
        server.close()  # type: ignore[no-untyped-call]

    async def talk() -> bool:
        async with asyncio.timeout(20), connect(address, 443, configuration=clients) as client:
            await client.ping()
        return True

    lab.origin.address("eth0", f"{address}/24")
    with lab.origin.serving(retrying):
        assert lab.client.inside(lambda: asyncio.run(talk()))
    lab.origin.run("ip", "addr", "del", f"{address}/24", "dev", "eth0")


def test_what_is_not_understood(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """Datagrams that begin nothing readable, and those of connections that began elsewhere, are refused at once."""
    for strange in (b"\x40" + bytes(40), b"\xc0\xff\x00\x00\x1d" + bytes(1195), b"\x01"):
        with origin.watch() as seen, lab.client.datagrams(Lab.ALLOWED[family], 443) as sock:
            sock.send(strange)
            with pytest.raises(ConnectionRefusedError):
                sock.recv(1)
        assert seen["allowed-udp443"] == 0
    gateway.wait_for_record(
        "it is logged", lambda r: r["source"]["ip"] == Lab.CLIENT[family] and r["tokgate"].get("reason") == "unreadable"
    )


def test_another_network(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """Clients under no ban reach the same name, and no gate sees their packets."""
    before = at_gates(lab)
    assert http3(lab.guest, origin, BANNED, 4)[0] == 0
    assert at_gates(lab) == before


def test_browser(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """Chromium, whose hello fills two datagrams, speaks HTTP/3 with an allowed name, and is refused a banned one."""
    flags = forced_to_quic(origin, ALLOWED, BANNED)
    with tab(*flags, namespace=lab.client, authorities=(origin.authority,)) as page:
        page.open(f"https://{ALLOWED}/")
        assert page.text.strip() == f"origin of {ALLOWED} over HTTP/3.0"
        assert page.error(f"https://{BANNED}/").startswith("ERR_QUIC_")


def flows(lab: Lab) -> str:
    """The flows that the kernel forwards."""
    return lab.gateway.run("nft", "list", "set", "inet", "tokgate", "quic4").stdout


def test_a_download_outlives_a_reload(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A policy that still allows a flow does not disturb it, though gates change and the table is loaded anew."""
    download = Download(lab.client, origin, ALLOWED)
    wait_until("it passes", lambda: Lab.ALLOWED[4] in flows(lab))
    gateway.enforces(office_policy(title="Another title"))
    gateway.load_ruleset()
    download.join()

    assert (download.code, download.octets) == (0, LARGE)


def test_a_ban_starts(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A download under way is taken from the kernel when its ban starts; one of another name goes on."""
    gateway.write_policy(office_policy(action="monitor"))
    wait_until("the name is reachable", lambda: http3(lab.client, origin, BANNED, 4)[0] == 0)
    starts = gateway.soon(3)
    gateway.enforces(office_policy(starts=str(starts)))
    wait_until("the ban is near", lambda: Instant.now() >= starts.subtract(seconds=3))
    banned, allowed = Download(lab.client, origin, BANNED), Download(lab.client, origin, ALLOWED)
    wait_until("they pass", lambda: Lab.BANNED[4] in flows(lab) and Lab.ALLOWED[4] in flows(lab))
    wait_until("it is taken out", lambda: Lab.BANNED[4] not in flows(lab))
    banned.join()
    allowed.join()

    assert banned.code in (28, 55, 56), "neither finished nor refused: nothing came any more"
    assert 0 < banned.octets < LARGE
    assert (allowed.code, allowed.octets) == (0, LARGE)
    cut = gateway.wait_for_record("the cut is logged", lambda r: r["event"]["action"] == "connection-cut")
    assert (cut["network"]["transport"], cut["destination"]["domain"]) == ("udp", BANNED)


def test_a_browser_meets_the_page(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """Chromium that was on HTTP/3 with a name comes over TCP when a ban of it starts, and shows the page."""
    gateway.write_policy(office_policy(action="monitor"))
    wait_until("the name is reachable", lambda: http3(lab.client, origin, BANNED, 4)[0] == 0)
    url = f"https://{BANNED}/advertised"
    flags = (
        f"--ignore-certificate-errors-spki-list={origin.pins[BANNED]}",
        f"--origin-to-force-quic-on={BANNED}:8443",  # on that port alone; but its authority then does for QUIC at all
        "--no-proxy-server",
    )
    authorities = (origin.authority, gateway.home / ".tokgate" / "mitmproxy-ca-cert.pem")
    with tab(*flags, namespace=lab.client, authorities=authorities) as chromium:

        def shows(text: str) -> bool:
            with contextlib.suppress(AssertionError):  # refused without a page, while not all processes have the policy
                chromium.open(url)
                return text in chromium.text
            return False

        wait_until("it is on HTTP/3", lambda: shows("HTTP/3"))
        gateway.write_policy(office_policy(response="page"))
        wait_until("the page is there", lambda: shows("Circular 1 of 1 March 2023"))

    gateway.wait_for_record("QUIC was refused", lambda r: r["event"]["action"] == "quic-refused")
