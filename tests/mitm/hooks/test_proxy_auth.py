"""Users of an explicit proxy in mitmproxy's own modes: who they are is asked, checked, and decides what they may."""

import base64

import pytest
from mitmproxy.addons.proxyauth import ProxyAuth as StockProxyAuth
from mitmproxy.test import tflow

from labs.proxy_lab import ALLOWED, BANNED, Lab, client
from tokgate.accounts.htpasswd import FileAccounts
from tokgate.gate.handoff import Handover
from tokgate.mitm.hooks.proxy_auth import ProxyAuthHooks, ask_in_socks
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.seen import Arrival


def basic(user: str, password: str = "secret") -> dict[str, str]:
    said = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Proxy_Authorization": f"Basic {said}"}


async def test_what_fails_lets_nobody_in(lab: Lab, asking: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in signing in is not a way past it."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(asking)
    monkeypatch.setattr("tokgate.mitm.hooks.proxy_auth.read_basic", lambda said: 1 / 0)
    async with client(proxy.port) as guest:
        await guest.send(f"CONNECT {ALLOWED}:{origin.port} HTTP/1.1\r\n\r\n".encode())
        assert b"200" not in await guest.to_end()
    assert origin.connections == 0
    assert lab.records.actions == ["internal-error"]


async def test_both_ask(lab: Lab, asking: Snapshot) -> None:
    """Stock mitmproxy that takes any password, as it must for SOCKS, has not the last word."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(asking, before=(StockProxyAuth(),), proxyauth="any")
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("bob", "wrong"))).status == 407
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("alice"))).status == 451
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("bob"))).status == 200


async def test_nobody_is_asked_inside_a_tunnel(lab: Lab, asking: Snapshot) -> None:
    """What is in the tunnel is meant for the destination: its requests carry no password for the proxy."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(asking)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}", **basic("alice"))).status == 200
        assert (await guest.get(ALLOWED)).status == 200


async def test_a_check_that_fails_lets_nobody_in_by_socks(
    lab: Lab, asking: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in checking a password isn't a right password, even where stock mitmproxy takes any."""
    proxy = await lab.proxy(asking, mode="socks5", before=(StockProxyAuth(),), proxyauth="any")
    ask_in_socks(proxy.master.options, wanted=True)
    monkeypatch.setattr(FileAccounts, "identify", lambda accounts, credentials: 1 / 0)
    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x02\x01\x05alice\x06secret")
        assert (await guest.to_end()).startswith(b"\x05\x02\x01\x01")
    assert lab.records.actions == ["internal-error"]


async def test_whom_a_gate_has_checked_is_not_checked_again(
    lab: Lab, asking: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that a gate hands over comes with who it is: no second check, whose failure would be a 407."""
    proxy = await lab.proxy(asking)
    monkeypatch.setattr(FileAccounts, "identify", lambda accounts, credentials: None)
    flow = tflow.tflow()
    arrival = Arrival(client=Endpoint("127.0.0.1", 50000), identity=Identity("alice"))
    proxy.traffic.connections.begin(flow.client_conn, ClientSockets(None)).take_over(
        Handover(arrival, False, True, b"")
    )
    flow.request.headers["Proxy-Authorization"] = basic("alice")["Proxy_Authorization"]
    await ProxyAuthHooks(proxy.traffic).http_connect(flow)
    assert flow.response is None
    assert "Proxy-Authorization" not in flow.request.headers
    assert proxy.traffic.connections.of(flow.client_conn).identity == Identity("alice")
