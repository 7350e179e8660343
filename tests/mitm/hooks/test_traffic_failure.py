"""What raises ends in `on_error`: banned names are refused or pass as configured, all others pass, and it is logged."""

from typing import Any

import pytest

from labs.hello_builder import openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, Lab, ban, client, eventually, policy
from tokgate.block_page import render
from tokgate.mitm import http_request
from tokgate.mitm.hooks import connection, http


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("module", [render, http_request, http])
async def test_hook_raises(lab: Lab, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Whatever breaks in a request's hook, a banned host is cut off and an allowed one passes."""
    name = {render: "compose", http_request: "sightings", http: "notice_of"}[module]
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(module, name, broken)

    async with client(proxy.port) as guest:
        await guest.send(f"GET / HTTP/1.1\r\nHost: not-yet-rendered.{BANNED}\r\n\r\n".encode())
        assert await guest.to_end() == b""
    async with client(proxy.port) as guest:
        assert (await guest.get(ALLOWED)).status == 200

    assert proxy.counters.errors["requestheaders"] >= 1
    assert "internal-error" in lab.records.actions


async def test_hook_raises_behind_a_banned_sni(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was opened for a banned name is cut off, whatever its request says."""
    origin = await lab.web_origin(ALLOWED, BANNED)
    proxy = await lab.proxy(policy(ban(response="page")), destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(http_request, "sightings", broken)

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), BANNED)
        await guest.send(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode())
        assert await guest.to_end() == b""

    assert proxy.counters.errors["requestheaders"] == 1
    assert origin.connections == 0


@pytest.mark.parametrize(("on_error", "heard"), [("block", b""), ("allow", b"through")])
async def test_next_layer_raises(lab: Lab, monkeypatch: pytest.MonkeyPatch, on_error: str, heard: bytes) -> None:
    """When not even the guard can be put in place, `on_error` decides for all; what passes is not decrypted."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(on_error=on_error), destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(connection, "layer_for", broken)

    async with client(proxy.port) as guest:
        await guest.send(openssl_hello(BANNED if heard else ALLOWED))
        guest.writer.write_eof()
        assert await guest.to_end() == heard

    assert origin.connections == bool(heard)
    assert proxy.counters.errors["next_layer"] == 1


async def test_no_policy_no_traffic(lab: Lab) -> None:
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    proxy.traffic.enforcer = None

    async with client(proxy.port) as guest:
        assert await guest.to_end() == b""


@pytest.mark.parametrize("dialled", [True, False])
async def test_a_circle(lab: Lab, monkeypatch: pytest.MonkeyPatch, dialled: bool) -> None:
    """A client that dials the redirected port itself is turned away, as are our own connections that come back here."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))
    place = ("127.0.0.1", proxy.port)
    monkeypatch.setattr("mitmproxy.platform.original_addr", lambda sock: sock.getsockname() if dialled else place)

    async with client(proxy.port) as guest:
        if not dialled:
            await guest.send(openssl_hello(ALLOWED))
        assert await guest.to_end() == b""

    await eventually("it came round once", lambda: proxy.counters.loops == 1)
