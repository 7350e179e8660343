"""Where names lead behind mitmproxy: banned addresses, and the gateway's own; each beside one that passes."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest
from proxy_lab import ALLOWED, BANNED_ADDRESS, NOW, Lab, ban, client, client_hello, eventually, policy

from tokgate.blocklog.observation import Endpoint
from tokgate.policy.decision import Signal
from tokgate.policy.snapshot import compile_policy
from tokgate.proxy.live import VisitedConnections

ALERT = bytes.fromhex("15030300020270")
FORBIDDEN = b"what only the proxy's own machine can reach"


def resolving(lab: Lab, *answers: tuple[str, ...]) -> None:
    """Every name has the addresses of the first answer when it is asked for first, and so on; the last one stays."""
    loop = asyncio.get_running_loop()
    real, left = loop.getaddrinfo, list(answers)

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        if host not in (ALLOWED, "own.example.net"):
            return await real(host, port, **options)
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in addresses]

    lab.monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)


@pytest.fixture
def from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the tests' clients, which are on loopback, for other machines."""
    monkeypatch.setattr("tokgate.gate.egress._is_elsewhere", lambda client: True)


async def test_a_name_for_a_banned_address(lab: Lab) -> None:
    """CONNECT for one's own name of a banned address is answered as for a banned name."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy()
    resolving(lab, (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        reply = await guest.connect(f"{ALLOWED}:{origin.port}")

    assert (reply.status, reply.headers["tokgate-ban"], origin.connections) == (451, "ban", 0)
    (record,) = lab.records.all
    assert (record["event"]["action"], record["tokgate"]["signal"]) == ("connect-refused", "address")
    assert record["tokgate"]["names"] == {"http-host": [ALLOWED], "address": [BANNED_ADDRESS]}


async def test_a_page_for_a_banned_address(lab: Lab) -> None:
    """Under a ban with a page the tunnel is opened and the page shown, as to redirected clients."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy(policy(ban(response="page")))
    resolving(lab, (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.tls(lab.authority.client(proxy.ca), ALLOWED)
        reply = await guest.get(ALLOWED)

    assert (reply.status, origin.connections) == (451, 0)
    assert lab.records.actions == ["tls-opened", "http-request-blocked"]


async def test_a_request_for_a_banned_address(lab: Lab) -> None:
    """A request in absolute form gets the page; the next name on the same connection is judged by its own address."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()
    resolving(lab, (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        refused = await guest.get(f"{ALLOWED}:{origin.port}", f"http://{ALLOWED}:{origin.port}/")
        passed = await guest.get(f"www.example.com:{origin.port}", f"http://www.example.com:{origin.port}/")

    assert (refused.status, passed.status, origin.connections) == (451, 200, 1)
    assert lab.records.all[0]["destination"]["ip"] == BANNED_ADDRESS


@pytest.mark.parametrize("tunnel", [False, True])
async def test_the_allowed_one_of_several_addresses(lab: Lab, tunnel: bool) -> None:
    """Of a name's addresses the banned ones are passed over; the request keeps its name."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()
    resolving(lab, (BANNED_ADDRESS, "127.0.0.1"))

    async with client(proxy.port) as guest:
        if tunnel:
            assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
            reply = await guest.get(ALLOWED)
        else:
            reply = await guest.get(ALLOWED, f"http://{ALLOWED}:{origin.port}/")

    assert (reply.status, reply.body, lab.records.all) == (200, b"origin", [])
    assert f"Host: {ALLOWED}".encode() in origin.received


async def test_a_watched_address_is_recorded(lab: Lab) -> None:
    """A ban that monitors lets the tunnel pass, and records it once, with the address."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy(policy(ban(action="monitor")))
    resolving(lab, (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.tls(lab.authority.client(), ALLOWED)
        assert (await guest.get(ALLOWED)).body == b"origin"

    (record,) = lab.records.all
    assert (record["event"]["action"], record["destination"]["ip"]) == ("would-block", BANNED_ADDRESS)


@pytest.mark.parametrize(("address", "answer"), [(BANNED_ADDRESS, ALERT), ("127.0.0.1", b"through")])
async def test_socks(lab: Lab, address: str, answer: bytes) -> None:
    """A SOCKS client's tunnel by name is judged by name and address."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(mode="socks5")
    resolving(lab, (address,))

    async with client(proxy.port) as guest:
        name = ALLOWED.encode()
        await guest.send(b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(name)]) + name + origin.port.to_bytes(2))
        await guest.exactly(12)
        await guest.send(client_hello(ALLOWED))
        guest.writer.write_eof()
        assert await guest.to_end() == answer

    refused = answer == ALERT
    assert origin.connections == (0 if refused else 1)
    assert lab.records.actions == (["tls-handshake-refused"] if refused else [])


async def test_a_name_that_changes_its_mind(lab: Lab) -> None:
    """A name that leads elsewhere when it is dialled gets no byte through."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy()
    resolving(lab, ("127.0.0.1",), (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.send(client_hello(ALLOWED))
        with pytest.raises(ConnectionResetError):
            await guest.to_end()

    await eventually("the origin has seen it end", lambda: proxy.connections == 0)
    assert (bytes(origin.received), proxy.counters.loops) == (b"", 1)


async def test_an_address_that_becomes_banned(lab: Lab) -> None:
    """What was let through by name is judged by the address that it has reached when the policy changes."""
    origin = await lab.sink_origin()
    banning = policy()
    clips = replace(banning.policy.services["clips"], addresses=())
    proxy = await lab.proxy(compile_policy(replace(banning.policy, services={"clips": clips})))
    resolving(lab, (BANNED_ADDRESS,))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.send(client_hello(ALLOWED))
        await eventually("it has arrived", lambda: origin.received)
        (visit,) = proxy.traffic.visits.all()
        assert proxy.traffic.enforcer is not None
        review = VisitedConnections(proxy.traffic.visits, proxy.traffic.enforcer)
        assert review.judge(visit, proxy.holder.snapshot, NOW) is None
        proxy.holder.snapshot = banning
        found = review.judge(visit, banning, NOW)

    assert found is not None
    ruling, seen = found
    assert ruling.decision.signal is Signal.ADDRESS
    assert seen.destination == Endpoint(BANNED_ADDRESS, origin.port)


@pytest.mark.usefixtures("from_elsewhere")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0.0.0.0", "169.254.169.254", ALLOWED])
async def test_the_gateway_itself(lab: Lab, host: str) -> None:
    """Clients from elsewhere reach nothing on the gateway's loopback, with CONNECT or in absolute form."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        tunnel = await guest.connect(f"{host}:{origin.port}")
    async with client(proxy.port) as guest:
        request = await guest.get(f"{host}:{origin.port}", f"http://{host}:{origin.port}/")

    assert (tunnel.status, request.status) == (403, 403)
    assert FORBIDDEN in tunnel.body
    assert FORBIDDEN in request.body
    assert (origin.connections, proxy.counters.loops, lab.records.all) == (0, 2, [])


@pytest.mark.usefixtures("from_elsewhere")
@pytest.mark.parametrize("asked", [b"\x01\x7f\x00\x00\x01", b"\x03\x0fwww.example.org"])
@pytest.mark.parametrize("missing_sni", ["check-address", "check-certificate"])
async def test_the_gateway_itself_in_socks(lab: Lab, asked: bytes, missing_sni: str) -> None:
    """A SOCKS client's tunnel there ends with its first byte; not even a certificate is asked for."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(missing_sni=missing_sni), mode="socks5")

    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x00\x05\x01\x00" + asked + origin.port.to_bytes(2))
        await guest.exactly(12)
        await guest.send(client_hello(None))
        assert await guest.to_end() == b""

    assert (origin.connections, proxy.counters.loops) == (0, 1)
