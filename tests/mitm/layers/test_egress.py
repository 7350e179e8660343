"""mitmproxy's connections go from the policy's addresses and by parent proxies, as those of gates do, or not at all."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from labs.parent_proxy import FORBIDDEN, ParentProxy
from labs.proxy_lab import ALLOWED, Lab, ban, client, eventually, policy
from tokgate.gate.egress.dialler import Sources
from tokgate.gate.sockets import IP_BIND_ADDRESS_NO_PORT, Address, Socket
from tokgate.gate.sockets import connect as begin
from tokgate.mitm.layers.egress import Egress
from tokgate.mitm.origin_certificate import OriginCertificates
from tokgate.policy.settings import EgressSettings, Upstream
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.counters import CONNECT_ERROR, ConnectError
from tokgate.traffic.limits import ProbeLimits

POOL = ("127.0.0.7", "127.0.0.8")
MARK = 0x7
PASSWORD = "alice:open sesame"


def egress(*addresses: str) -> EgressSettings:
    return EgressSettings(addresses=tuple(map(ip_address, addresses)))


def pooled(*addresses: str, **settings: Any) -> Snapshot:
    return policy(ban(), egress=egress(*addresses), **settings)


class Peers(list[str]):
    """A web server that notes from which addresses it is reached."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.append(writer.get_extra_info("peername")[0])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\norigin")
        await writer.drain()


@pytest.fixture
def peers() -> Peers:
    return Peers()


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Address, int | None, str | None]]:
    """Destination, mark and source of each connection that is begun, by gates' code; the marks are left out."""
    seen: list[tuple[Address, int | None, str | None]] = []

    def note(destination: Address, mark: int | None = None, source: str | None = None) -> Socket:
        seen.append((destination, mark, source))
        sock = begin(destination, None, source)  # a mark takes a capability
        assert source is None or sock.getsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT)
        return sock

    monkeypatch.setattr("tokgate.gate.egress.dialler.connect", note)
    return seen


async def _get(port: int, url: str) -> tuple[int, bytes]:
    async with client(port) as asking:
        reply = await asking.get(ALLOWED, url)
        return reply.status, reply.body


@pytest.mark.parametrize("host", ["127.0.0.1", ALLOWED], ids=["address", "name"])
async def test_in_turn(lab: Lab, peers: Peers, host: str) -> None:
    """Each address of the pool has its turn; another policy has others, or the route's."""
    origin = await lab.raw_origin(peers.serve)
    running = await lab.proxy(pooled(*POOL))
    for _ in range(4):
        assert await _get(running.port, f"http://{host}:{origin.port}/") == (200, b"origin")
    assert peers == [*POOL, *POOL]
    for snapshot, expected in ((pooled("127.0.0.9"), "127.0.0.9"), (pooled(), "127.0.0.1")):
        running.holder.snapshot = snapshot
        assert await _get(running.port, f"http://{host}:{origin.port}/") == (200, b"origin")
        assert peers[-1] == expected


async def test_a_name_of_both_families(lab: Lab, peers: Peers) -> None:
    """Each of its addresses is tried, from an address of its own family."""
    origin = await lab.raw_origin(peers.serve)
    running = await lab.proxy(pooled(*POOL))
    lab.names[ALLOWED] = ("::1", "127.0.0.1")
    assert await _get(running.port, f"http://{ALLOWED}:{origin.port}/") == (200, b"origin")  # at ::1 nobody listens
    assert peers == ["127.0.0.7"]


async def test_failures(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destination that refuses, and a pool that has no port left, are told and counted as gates count them."""
    running = await lab.proxy(pooled(*POOL))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        assert (await _get(running.port, url))[0] == 502

        def without_ports(*_: object) -> tuple[Socket, int]:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

        monkeypatch.setattr("tokgate.gate.egress.dialler.connect", without_ports)
        assert (await _get(running.port, url))[0] == 502
    counts = running.counters.shared.read()
    assert counts[CONNECT_ERROR, ConnectError.REFUSED] == counts[CONNECT_ERROR, ConnectError.NO_PORT] == 1


async def test_parents_and_certificates(lab: Lab, peers: Peers) -> None:
    """A parent proxy is reached from the pool as well, and so is a destination whose certificate decides."""
    parent = await lab.raw_origin(peers.serve)
    upstream = Upstream(host="127.0.0.1", port=parent.port)
    running = await lab.proxy(pooled(*POOL, upstream=(upstream,)))
    assert await _get(running.port, "http://only.beyond.example/") == (200, b"origin")
    assert peers == ["127.0.0.7"]
    origin = await lab.raw_origin(peers.serve, lab.authority.server(ALLOWED))
    running.holder.snapshot = pooled("127.0.0.9")
    certificates = OriginCertificates(ProbeLimits(deadline=60.0), connect=running.traffic.egress.connect)
    assert await certificates.names("127.0.0.1", origin.port, client="192.0.2.1") == (ALLOWED,)
    assert peers[-1] == "127.0.0.9"


async def test_a_mark(lab: Lab, peers: Peers, chosen: Any) -> None:
    """The proxy's own connections bear it: a firewall that redirects all others would lead them back."""
    plain, secure = await lab.raw_origin(peers.serve), await lab.raw_origin(peers.serve, lab.authority.server(ALLOWED))
    running = await lab.proxy(pooled())
    running.traffic.egress.sources = Sources(MARK)
    assert await _get(running.port, f"http://127.0.0.1:{plain.port}/") == (200, b"origin")
    assert await running.traffic.certificates.names("127.0.0.1", secure.port, client="192.0.2.1") == (ALLOWED,)
    assert chosen == [(("127.0.0.1", origin.port), MARK, None) for origin in (plain, secure)]


class Hooks:
    """Notes what mitmproxy tells addons of connections that can't be made."""

    def __init__(self) -> None:
        self.told: list[str | None] = []

    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        self.told.append(data.server.error)


async def test_a_client_that_goes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks learn of a connection that was given up, as they do where mitmproxy makes it."""
    begun, hooks = asyncio.Event(), Hooks()

    async def never(*_: object, **__: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    monkeypatch.setattr("tokgate.mitm.layers.http.HALF_CLOSED", 0)
    running = await lab.proxy(pooled(*POOL), before=(hooks,))
    async with client(running.port) as asking:
        await asking.send(b"GET http://slow.example/ HTTP/1.1\r\nHost: slow.example\r\n\r\n")
        await begun.wait()
    await eventually("it is told", lambda: hooks.told)
    await eventually("it ends", lambda: not running.connections)
    assert len(hooks.told) == 1


async def test_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection whose client has gone nothing is left."""
    made: list[socket.socket] = []

    def never(*_: object) -> Socket:
        made.append(socket.socket())
        made[0].listen()  # so that it can't be written to at any time
        return made[0]

    snapshot = policy()
    made_by = Egress(lambda: snapshot)
    monkeypatch.setattr(made_by.sources, "connect", never)
    task = asyncio.get_running_loop().create_task(made_by.connect("127.0.0.1", 9))
    while not made:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made[0].fileno() == -1


async def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error like any other."""

    async def none(*_: object, **__: object) -> list[Any]:
        return []

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", none)
    with pytest.raises(OSError, match="no address"):
        await Egress(lambda: None).connect("nowhere.example", 443)


@pytest.fixture
def parent() -> Iterator[Callable[..., ParentProxy]]:
    """Starts parents that lead everything to the origin at a port."""
    running: list[ParentProxy] = []

    def start(port: int, **options: Any) -> ParentProxy:
        running.append(ParentProxy(SimpleNamespace(address=("127.0.0.1", port)), **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def behind(proxy: ParentProxy, **stated: Any) -> Snapshot:
    upstream = Upstream(host="127.0.0.1", port=proxy.port, **stated)
    return policy(ban(), upstream=(upstream,))


@pytest.mark.parametrize("destination", [None, ("192.0.2.80", 80)], ids=["explicit", "redirected"])
async def test_plain_requests_of_an_http_parent(lab: Lab, parent: Any, tmp_path: Path, destination: Any) -> None:
    """They are sent in absolute form with credentials, as proxies expect, and never with a CONNECT."""
    secret = tmp_path / "credentials"
    secret.write_text(PASSWORD)
    proxy = parent(1, password=PASSWORD)
    running = await lab.proxy(behind(proxy, credentials=str(secret)), destination=destination)
    async with client(running.port) as asking:
        to_proxy = "" if destination else "http://only.beyond.example"
        reply = await asking.get("only.beyond.example", f"{to_proxy}/path?q=1")
    assert (reply.status, reply.body) == (200, b"parent")
    assert proxy.asked == ["http://only.beyond.example/path?q=1"]
    assert b"\r\nHost: only.beyond.example\r\n" in proxy.heads[0]


async def test_tunnels(lab: Lab, parent: Any) -> None:
    """TLS in a tunnel goes by the parent, which gets the name, and shows the origin's own certificate."""
    origin = await lab.web_origin()
    proxy = parent(origin.port)
    running = await lab.proxy(behind(proxy))
    async with client(running.port) as asking:
        assert (await asking.connect(f"{ALLOWED}:443")).status == 200
        await asking.tls(lab.authority.client(), ALLOWED)
        assert (await asking.get(ALLOWED)).body == b"origin"
    assert proxy.asked == [f"{ALLOWED}:443"]


@pytest.mark.parametrize("how", ["down", "forbidden", "password"])
async def test_it_fails_closed(lab: Lab, parent: Any, how: str) -> None:
    """Without a way by the parent there is none: the origin hears nothing, and the client gets an error."""
    origin = await lab.web_origin()
    proxy = parent(origin.port, password=PASSWORD if how == "password" else None)
    if how == "down":
        proxy.close()
    running = await lab.proxy(behind(proxy))
    host = FORBIDDEN if how == "forbidden" else ALLOWED
    async with client(running.port) as asking:
        assert (await asking.connect(f"{host}:{origin.port}")).status in (200, 502)
        with pytest.raises((OSError, EOFError)):
            await asking.tls(lab.authority.client(), host)
    assert origin.connections == 0


async def test_certificates_are_asked_for_by_the_parent(lab: Lab, parent: Any) -> None:
    """Where a destination's certificate decides, it is fetched the same way."""
    origin = await lab.web_origin("www.example.net")
    proxy = parent(origin.port)
    running = await lab.proxy(behind(proxy))
    names = await running.traffic.certificates.names("192.0.2.80", 443, client="192.0.2.1")
    assert (names, proxy.asked) == (("www.example.net",), ["192.0.2.80:443"])
