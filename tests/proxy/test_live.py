"""What mitmproxy carries ends when it becomes banned: tunnels, opened connections, long answers, WebSockets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from proxy_lab import (
    ALLOWED,
    BANNED,
    DEADLINE,
    Client,
    Lab,
    Origin,
    Proxy,
    ban,
    client,
    client_hello,
    eventually,
    policy,
)
from whenever import Instant

from tokgate.gate.live import Review
from tokgate.policy.snapshot import Snapshot
from tokgate.proxy.live import VisitedConnections

BEFORE, STARTS, AFTER = "2023-03-09T22:59:59Z", "2023-03-09T23:00:00Z", "2023-06-01T00:00:00Z"


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.at = Instant.parse_iso(BEFORE)

    def __call__(self) -> Instant:
        return self.at

    def set(self, text: str) -> None:
        self.at = Instant.parse_iso(text)


def look(proxy: Proxy) -> None:
    """Judge again all that is due."""
    assert proxy.traffic.enforcer
    review = Review(proxy.traffic.enforcer, VisitedConnections(proxy.traffic.visits, proxy.traffic.enforcer))
    while review.look() == 0.0:
        pass


async def cut_off(guest: Client) -> bool:
    """Whether the connection ends with a reset."""
    try:
        async with asyncio.timeout(DEADLINE):
            while await guest.reader.read(65536):
                pass
    except ConnectionResetError:
        return True
    return False


async def echoing(lab: Lab) -> Origin:
    """An origin that sends back what it gets, and notes how it ends."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    return await lab.raw_origin(handler)


@asynccontextmanager
async def passing(
    lab: Lab, how: str, name: str, snapshot: Snapshot, now: Clock
) -> AsyncIterator[tuple[Client, Proxy, Origin]]:
    """A connection to a name that is passed through undecrypted and open both ways."""
    origin = await echoing(lab)
    if how == "transparent":
        proxy = await lab.proxy(snapshot, destination=("127.0.0.1", origin.port), now=now)
    else:
        proxy = await lab.proxy(snapshot, now=now)
    async with client(proxy.port) as guest:
        if how == "connect":
            assert (await guest.connect(f"{name}:{origin.port}")).status == 200
        hello = client_hello(name)
        await guest.send(hello)
        assert await guest.exactly(len(hello)) == hello
        yield guest, proxy, origin


@pytest.mark.parametrize("how", ["transparent", "connect"])
async def test_the_start_of_a_ban_cuts_what_passes(lab: Lab, how: str) -> None:
    """The banned name's connection is reset towards both sides, with one record."""
    clock = Clock()
    async with passing(lab, how, BANNED, policy(), clock) as (guest, proxy, origin):
        look(proxy)
        await guest.send(b"still")
        assert await guest.exactly(5) == b"still"
        clock.set(STARTS)
        look(proxy)
        look(proxy)
        assert await cut_off(guest)
        await eventually("the origin is told", lambda: origin.ends == ["ConnectionResetError"])
    await eventually("nothing is left", lambda: proxy.connections == 0)
    (record,) = lab.records.all
    assert record["event"]["action"] == "connection-cut"
    assert record["destination"]["domain"] == BANNED
    assert record["tokgate"]["ban"] == "ban"
    assert record["tokgate"]["stage"] == "live"
    assert record["source"]["bytes"] > record["destination"]["bytes"] - 6 > 100


@pytest.mark.parametrize("how", ["transparent", "connect"])
async def test_what_no_ban_concerns_goes_on(lab: Lab, how: str) -> None:
    """Another name's connection doesn't notice."""
    clock = Clock()
    async with passing(lab, how, ALLOWED, policy(), clock) as (guest, proxy, _):
        clock.set(STARTS)
        look(proxy)
        await guest.send(b"on")
        assert await guest.exactly(2) == b"on"
    assert lab.records.all == []


@pytest.mark.parametrize("how", ["transparent", "connect"])
async def test_a_changed_policy_cuts(lab: Lab, how: str) -> None:
    """A ban that is added ends connections too, on the strength of the new policy."""
    clock = Clock()
    clock.set(AFTER)
    milder = policy(ban(action="monitor"))
    async with passing(lab, how, BANNED, milder, clock) as (guest, proxy, _):
        look(proxy)
        proxy.holder.snapshot = policy()
        look(proxy)
        assert await cut_off(guest)
    assert lab.records.actions[-1] == "connection-cut"


async def test_a_tunnel_without_words_is_cut(lab: Lab) -> None:
    """CONNECT has named the host: nothing need have come through the tunnel."""
    clock = Clock()
    origin, proxy = await echoing(lab), await lab.proxy(policy(), now=clock)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == 200
        clock.set(STARTS)
        look(proxy)
        assert await cut_off(guest)
    assert lab.records.actions == ["connection-cut"]


async def test_the_destination_is_not_reached_after_the_cut(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose destination is still being connected to never becomes one."""
    clock, gates = Clock(), asyncio.Event()
    origin = await lab.sink_origin()
    proxy = await lab.proxy(policy(), destination=("127.0.0.1", origin.port), now=clock)
    real = asyncio.open_connection

    async def slow(*args: Any, **kwargs: Any) -> Any:
        await gates.wait()
        return await real(*args, **kwargs)

    async with client(proxy.port) as guest:
        monkeypatch.setattr(asyncio, "open_connection", slow)
        await guest.send(client_hello(BANNED))
        await eventually("it is let through", lambda: any(v.passing for v in proxy.traffic.visits.all()))
        clock.set(STARTS)
        look(proxy)
        assert await cut_off(guest)
        gates.set()
        await eventually("nothing is left", lambda: proxy.connections == 0)
    assert origin.connections == 0


def endless(start: asyncio.Event) -> Callable[..., Any]:
    """An origin whose answers begin, and go on for ever."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        start.set()
        await reader.read()

    return handler


@pytest.mark.parametrize("tls", [False, True])
async def test_a_long_answer_is_cut(lab: Lab, tls: bool) -> None:
    """Plain, and inside a connection that was opened: a request that lasts is under the ban."""
    clock, started = Clock(), asyncio.Event()
    context = lab.authority.server("play.google.com", "www.clips.example.org") if tls else None
    origin = await lab.raw_origin(endless(started), context=context)
    proxy = await lab.proxy(policy(), destination=("127.0.0.1", origin.port), now=clock)
    async with client(proxy.port) as guest:
        if tls:  # opened to show the page, by a ban that is over when the request comes
            lifted = policy(ban(response="page", starts=Instant.parse_iso("2023-01-01T00:00:00Z")))
            proxy.holder.snapshot = lifted
            await guest.tls(lab.authority.client(proxy.ca), BANNED)
            proxy.holder.snapshot = policy()
        await guest.send(f"GET /video?v=1 HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode())
        await guest.head()
        await started.wait()
        look(proxy)
        clock.set(STARTS)
        look(proxy)
        assert await cut_off(guest)
    record = lab.records.all[-1]
    assert record["event"]["action"] == "connection-cut"
    assert record["url"]["path"] == "/video"


async def test_a_connection_that_shows_the_page_goes_on(lab: Lab) -> None:
    """What was opened to answer with the page is blocked already: nothing passes, and the page may be read."""
    clock = Clock()
    clock.set(AFTER)
    origin = await lab.web_origin()
    proxy = await lab.proxy(policy(ban(response="page")), destination=("127.0.0.1", origin.port), now=clock)
    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), BANNED)
        assert (await guest.get(BANNED)).status == 451
        look(proxy)
        assert (await guest.get(BANNED)).status == 451
    assert "connection-cut" not in lab.records.actions


async def test_a_finished_request_is_not_remembered(lab: Lab) -> None:
    """An idle connection after an answer is left: its next request is decided as it comes."""
    clock = Clock()
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(policy(), destination=("127.0.0.1", origin.port), now=clock)
    async with client(proxy.port) as guest:
        assert (await guest.get(BANNED)).status == 200
        await eventually("it is over", lambda: not any(v.requests for v in proxy.traffic.visits.all()))
        clock.set(STARTS)
        look(proxy)
        assert (await guest.get(BANNED)).status == 451
    assert "connection-cut" not in lab.records.actions


async def test_a_websocket_is_cut(lab: Lab) -> None:
    """A request that was answered with an upgrade lasts as long as what it was upgraded to."""
    clock = Clock()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x04pong"
        )
        await reader.read()

    origin = await lab.raw_origin(handler)
    proxy = await lab.proxy(policy(), destination=("127.0.0.1", origin.port), now=clock)
    async with client(proxy.port) as guest:
        await guest.send(
            f"GET / HTTP/1.1\r\nHost: {BANNED}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert b" 101 " in await guest.head()
        assert await guest.exactly(6) == b"\x81\x04pong"
        look(proxy)
        clock.set(STARTS)
        look(proxy)
        assert await cut_off(guest)
    assert lab.records.actions == ["connection-cut"]
