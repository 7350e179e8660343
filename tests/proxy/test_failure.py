"""What raises ends in `on_error`: banned names are refused or pass as configured, all others pass, and it is logged."""

from typing import Any

import pytest
from proxy_lab import ALLOWED, BANNED, NOW, Lab, Proxy, ban, client, client_hello, eventually, policy

import builders
from tokgate.gate import admission, enforcer
from tokgate.policy import decide
from tokgate.proxy import page, requests, traffic

ALERT = bytes.fromhex("15030300020270")


def broken(*_: Any, **__: Any) -> Any:
    """Raises, whatever it was asked."""
    raise RuntimeError("broken on purpose")


@pytest.fixture
def broken_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deciding raises."""
    monkeypatch.setattr(decide, "decide", broken)


@pytest.mark.usefixtures("broken_decide")
@pytest.mark.parametrize(
    ("on_error", "name", "refused"),
    [
        ("block", BANNED, True),
        ("block", ALLOWED, False),
        ("allow", BANNED, False),
        ("allow", ALLOWED, False),
    ],
)
async def test_decide_raises_at_a_hello(lab: Lab, on_error: str, name: str, refused: bool) -> None:
    """With a failing `decide` a TLS connection gets what `on_error` says for its name."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(on_error=on_error), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(name))
        if not refused:
            guest.writer.write_eof()
        assert await guest.to_end() == (ALERT if refused else b"through")

    assert origin.connections == (0 if refused else 1)
    assert "internal-error" in lab.records.actions
    assert proxy.counters.errors["decide"] == 1


@pytest.mark.usefixtures("broken_decide")
@pytest.mark.parametrize(
    ("on_error", "host", "status"),
    [
        ("block", BANNED, 403),
        ("block", ALLOWED, 200),
        ("allow", BANNED, 200),
    ],
)
async def test_decide_raises_at_a_request(lab: Lab, on_error: str, host: str, status: int) -> None:
    """With a failing `decide` a plain request gets what `on_error` says for its host."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(policy(on_error=on_error), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        assert (await guest.get(host)).status == status


@pytest.mark.usefixtures("broken_decide")
@pytest.mark.parametrize(
    ("on_error", "host", "status"),
    [
        ("block", BANNED, 403),
        ("block", ALLOWED, 200),
        ("allow", BANNED, 200),
    ],
)
async def test_decide_raises_at_connect(lab: Lab, on_error: str, host: str, status: int) -> None:
    """With a failing `decide` a CONNECT gets what `on_error` says for its host."""
    proxy = await lab.proxy(policy(on_error=on_error))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{host}:443")).status == status


@pytest.mark.parametrize("module", [page, requests, traffic])
async def test_hook_raises(lab: Lab, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Whatever breaks in a request's hook, a banned host is cut off and an allowed one passes."""
    name = {page: "compose", requests: "sightings", traffic: "notice_of"}[module]
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(module, name, broken)

    async with client(proxy.port) as guest:
        await guest.send(f"GET / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode())
        assert await guest.to_end() == b""
    async with client(proxy.port) as guest:
        assert (await guest.get(ALLOWED)).status == 200

    assert proxy.counters.errors["requestheaders"] >= 1
    assert "internal-error" in lab.records.actions


async def test_next_layer_raises(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """When not even the guard can be put in place, nothing passes under `on_error: block`."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(traffic, "layer_for", broken)

    async with client(proxy.port) as guest:
        await guest.send(client_hello(ALLOWED))
        assert await guest.to_end() == b""

    assert origin.connections == 0
    assert proxy.counters.errors["next_layer"] == 1


async def test_next_layer_raises_and_errors_allow(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same under `on_error: allow`: the connection passes, undecrypted."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(on_error="allow"), destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(traffic, "layer_for", broken)

    async with client(proxy.port) as guest:
        await guest.send(client_hello(BANNED))
        guest.writer.write_eof()
        assert await guest.to_end() == b"through"


async def test_guard_raises(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks in the guard itself is refused under `on_error: block`, instead of hanging."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    monkeypatch.setattr(admission, "_visibility", broken)

    async with client(proxy.port) as guest:
        await guest.send(client_hello(BANNED))
        assert await guest.to_end() == ALERT
    async with client(proxy.port) as guest:
        await guest.send(client_hello(ALLOWED))
        guest.writer.write_eof()
        assert await guest.to_end() == b"through"

    assert proxy.counters.errors["guard"] == 2


async def test_record_raises(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that can't be made changes nothing for the traffic."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))
    monkeypatch.setattr(enforcer, "traffic_record", broken)

    async with client(proxy.port) as guest:
        await guest.send(client_hello(BANNED))
        assert await guest.to_end() == ALERT

    assert proxy.counters.errors["record"] == 1


async def test_no_policy_no_traffic(lab: Lab) -> None:
    """Without an enforcer every client is turned away."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    proxy.traffic.enforcer = None

    async with client(proxy.port) as guest:
        assert await guest.to_end() == b""


async def test_direct_dial_of_the_redirected_port(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that dials the redirected port itself is turned away; a redirected one is served."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))
    monkeypatch.setattr("mitmproxy.platform.original_addr", lambda sock: sock.getsockname())

    async with client(proxy.port) as guest:
        assert await guest.to_end() == b""

    assert proxy.counters.loops == 1


async def test_redirection_of_the_proxys_own_traffic(lab: Lab) -> None:
    """Should the firewall send the proxy's own connections back to it, they end instead of going round."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))
    lab.monkeypatch.setattr("mitmproxy.platform.original_addr", lambda _sock: ("127.0.0.1", proxy.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(ALLOWED))
        assert await guest.to_end() == b""

    await eventually("it came round once", lambda: proxy.counters.loops == 1)


async def test_counters_name_nobody(lab: Lab) -> None:
    """Allowed traffic is counted by network, visibility and verdict, and leaves no record."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    for name in (ALLOWED, ALLOWED, BANNED):
        async with client(proxy.port) as guest:
            await guest.send(client_hello(name))
            guest.writer.write_eof()
            await guest.to_end()

    counted = {(k.network, k.visibility, k.verdict): n for k, n in proxy.counters.decisions.items()}
    assert counted == {("office", "sni", "allow"): 2, ("office", "sni", "block"): 1}
    assert len(lab.records.all) == 1


async def test_bans_begin_without_restart(lab: Lab) -> None:
    """Decisions follow the wall clock: the same proxy refuses from the ban's instant on."""
    origin = await lab.sink_origin(b"through")
    clock = [NOW]
    starts = builders.at("2023-04-01T13:00:00Z")
    proxy = await lab.proxy(policy(ban(starts=starts)), destination=("127.0.0.1", origin.port), now=lambda: clock[0])

    async def answer(where: Proxy) -> bytes:
        async with client(where.port) as guest:
            await guest.send(client_hello(BANNED))
            guest.writer.write_eof()
            return await guest.to_end()

    clock[0] = starts.subtract(microseconds=1)
    assert await answer(proxy) == b"through"
    clock[0] = starts
    assert await answer(proxy) == ALERT
