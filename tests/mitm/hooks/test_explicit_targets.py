"""Where explicit clients may go: what is this machine's own is closed, and what breaks on the way lets nothing pass."""

from typing import Any

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from labs.hello_builder import openssl_hello
from labs.proxy_lab import ALLOWED, BANNED_ADDRESS, Lab, client, eventually
from tokgate.mitm.hooks.explicit_targets import ExplicitTargetHooks
from tokgate.mitm.hooks.traffic import Traffic


def broken(*_: Any) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("asked", [b"\x01\x7f\x00\x00\x01", b"\x03\x0fwww.example.org"], ids=["address", "name"])
async def test_a_socks_tunnel_that_can_not_be_looked_at(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    """A bug in looking opens no tunnel: nothing reaches a destination that nobody has looked at."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(mode="socks5")
    monkeypatch.setattr("tokgate.mitm.hooks.explicit_targets.is_closed", broken)
    monkeypatch.setattr("tokgate.mitm.hooks.explicit_targets.decide_targets", broken)

    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x00\x05\x01\x00" + asked + origin.port.to_bytes(2))
        await guest.exactly(12)
        await guest.send(openssl_hello(ALLOWED))
        assert await guest.to_end() == b""

    assert origin.connections == 0
    assert "internal-error" in lab.records.actions


@pytest.mark.parametrize("absolute", [False, True])
async def test_a_request_that_can_not_be_looked_at(lab: Lab, monkeypatch: pytest.MonkeyPatch, absolute: bool) -> None:
    """Neither does a CONNECT nor a request in absolute form get through where looking fails."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()
    monkeypatch.setattr("tokgate.mitm.hooks.explicit_targets.is_closed", broken)
    host = f"127.0.0.1:{origin.port}"

    async with client(proxy.port) as guest:
        line = f"GET http://{host}/ HTTP/1.1" if absolute else f"CONNECT {host} HTTP/1.1"
        await guest.send(f"{line}\r\nHost: {host}\r\n\r\n".encode())
        answer = await guest.to_end()

    assert b" 200 " not in answer
    assert origin.connections == 0


@pytest.mark.parametrize(
    ("mode", "host", "closed"),
    [("socks5", "127.0.0.1", True), ("socks5", "198.51.100.7", False), ("transparent", "127.0.0.1", False)],
)
def test_connections_to_the_gateways_own_services(mode: str, host: str, closed: bool) -> None:
    """Who may name any destination doesn't reach what listens on the gateway's loopback."""
    peer: Client = tflow.tclient_conn()
    peer.peername, peer.proxy_mode = ("192.0.2.9", 50000), ProxyMode.parse(mode)
    data = ServerConnectionHookData(server=Server(address=(host, 53)), client=peer)
    ExplicitTargetHooks(Traffic()).server_connect(data)
    assert bool(data.server.error) is closed


async def test_a_name_that_changes_its_mind(lab: Lab) -> None:
    """A name that leads elsewhere when it is dialled gets no byte through."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        lab.names[ALLOWED] = (BANNED_ADDRESS,)
        await guest.send(openssl_hello(ALLOWED))
        with pytest.raises(ConnectionResetError):
            await guest.to_end()

    await eventually("the origin has seen it end", lambda: proxy.connections == 0)
    assert (bytes(origin.received), proxy.counters.loops) == (b"", 1)
