"""mitmproxy behind a parent proxy: opened and plain connections are made by it, or not at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from labs.parent_proxy import FORBIDDEN, ParentProxy
from labs.proxy_lab import ALLOWED, Lab, ban, client, policy
from tokgate.mitm.layers.parent_proxy import Parents
from tokgate.policy.settings import Upstream, UpstreamKind
from tokgate.policy.snapshot import Snapshot

PASSWORD = "alice:open sesame"
KINDS = pytest.mark.parametrize("socks", [False, True], ids=["http", "socks5"])


@dataclass
class Place:
    """An origin of the laboratory, as a parent is told of it."""

    port: int

    @property
    def address(self) -> tuple[str, int]:
        """On loopback."""
        return "127.0.0.1", self.port


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ParentProxy]]:
    """Starts parents that lead everything to the origin at a port; other tests have none."""
    monkeypatch.setattr(Parents, "find", Parents.find)
    monkeypatch.setattr(Parents, "is_one", Parents.is_one)
    running: list[ParentProxy] = []

    def start(port: int, **options: Any) -> ParentProxy:
        running.append(ParentProxy(Place(port), **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def behind(proxy: ParentProxy, socks: bool = False, **stated: Any) -> Snapshot:
    """A policy whose destinations are reached by this parent."""
    kind = UpstreamKind.SOCKS5 if socks else UpstreamKind.HTTP
    upstream = Upstream(kind=kind, **({"host": "127.0.0.1", "port": proxy.port} | stated))
    return policy(ban(), upstream=(upstream,))


async def test_plain_requests_of_an_http_parent(lab: Lab, parent: Any, tmp_path: Path) -> None:
    """They are sent in absolute form with credentials, as proxies expect, and never with a CONNECT."""
    secret = tmp_path / "credentials"
    secret.write_text(PASSWORD)
    proxy = parent(1, password=PASSWORD)
    running = await lab.proxy(behind(proxy, credentials=str(secret)))
    async with client(running.port) as asking:
        reply = await asking.get("only.beyond.example", "http://only.beyond.example/path?q=1")
    assert (reply.status, reply.body) == (200, b"parent")
    assert proxy.asked == ["http://only.beyond.example/path?q=1"]
    assert b"\r\nHost: only.beyond.example\r\n" in proxy.heads[0]


async def test_redirected_plain_requests(lab: Lab, parent: Any) -> None:
    """A request that was redirected here names its host to the parent, too."""
    proxy = parent(1)
    running = await lab.proxy(behind(proxy), destination=("192.0.2.80", 80))
    async with client(running.port) as asking:
        reply = await asking.get(ALLOWED, "/path")
    assert (reply.status, reply.body) == (200, b"parent")
    assert proxy.asked == [f"http://{ALLOWED}/path"]


async def test_plain_requests_by_socks(lab: Lab, parent: Any) -> None:
    """SOCKS carries them as it carries everything."""
    origin = await lab.web_origin(tls=False)
    proxy = parent(origin.port, socks=True)
    running = await lab.proxy(behind(proxy, True))
    async with client(running.port) as asking:
        reply = await asking.get("only.beyond.example", "http://only.beyond.example/path")
    assert (reply.status, reply.body) == (200, b"origin")
    assert proxy.asked == ["only.beyond.example:80"]


@KINDS
async def test_tunnels(lab: Lab, parent: Any, socks: bool) -> None:
    """TLS in a tunnel goes by the parent, which gets the name, and shows the origin's own certificate."""
    origin = await lab.web_origin()
    proxy = parent(origin.port, socks=socks)
    running = await lab.proxy(behind(proxy, socks))
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


async def test_exclusions_go_directly(lab: Lab, parent: Any) -> None:
    """What is excluded is reached without the parent."""
    origin = await lab.web_origin()
    proxy = parent(origin.port)
    running = await lab.proxy(behind(proxy, exclusions=("example.org",)))
    async with client(running.port) as asking:
        assert (await asking.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await asking.tls(lab.authority.client(), ALLOWED)
        assert (await asking.get(ALLOWED)).body == b"origin"
    assert proxy.asked == []


@KINDS
async def test_certificates_are_asked_for_by_the_parent(lab: Lab, parent: Any, socks: bool) -> None:
    """Where a destination's certificate decides, it is fetched the same way."""
    origin = await lab.web_origin("www.example.net")
    proxy = parent(origin.port, socks=socks)
    running = await lab.proxy(behind(proxy, socks))
    names = await running.traffic.certificates.names("192.0.2.80", 443, client="192.0.2.1")
    assert (names, proxy.asked) == (("www.example.net",), ["192.0.2.80:443"])
