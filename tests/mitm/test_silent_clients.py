"""Redirected clients of mitmproxy that wait for the server to speak first, as those of SSH and mail do."""

import asyncio

import pytest

from labs.hello_builder import hello_for
from labs.proxy_lab import BANNED, BANNED_ADDRESS, Client, Lab, Origin, Proxy, client, eventually, policy
from tokgate.mitm.silent_clients import close_silent, hear_servers
from tokgate.wire.tls_alert import Alert

BANNER = b"220 mail.example.net ESMTP\r\n"


async def speaks_first(lab: Lab) -> Origin:
    """A server that greets, and then sends back what it hears."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BANNER)
        while data := await reader.read(65536):
            origin.received += data
            writer.write(data)
        writer.close()

    origin = await lab.raw_origin(handler)
    return origin


async def waits(proxy: Proxy) -> None:
    """The proxy notices that its client says nothing."""
    await eventually("the client is there", lambda: proxy.connections == 1)
    await hear_servers(proxy.traffic, 0)


async def test_the_server_may_speak_first(lab: Lab) -> None:
    """Mail or SSH on a port of the web goes on, although its client waits for the server."""
    origin = await speaks_first(lab)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as somebody:
        await waits(proxy)
        assert await somebody.exactly(len(BANNER)) == BANNER
        await close_silent(proxy.traffic, 0)
        await somebody.send(b"EHLO client.example.net\r\n")
        somebody.writer.write_eof()
        assert await somebody.to_end() == b"EHLO client.example.net\r\n"
    assert lab.records.all == []


async def test_a_client_that_only_listens(lab: Lab) -> None:
    """A client that ends its side without a word still hears the server out."""
    origin = await speaks_first(lab)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as somebody:
        await waits(proxy)
        assert await somebody.exactly(len(BANNER)) == BANNER
        somebody.writer.write_eof()
        assert await somebody.to_end() == b""
    assert origin.received == b""


async def test_a_banned_address_is_refused_in_silence(lab: Lab) -> None:
    """A banned service's address is reached by no protocol, and the attempt is recorded."""
    proxy = await lab.proxy(destination=(BANNED_ADDRESS, 22))
    async with client(proxy.port) as somebody:
        await waits(proxy)
        assert await somebody.to_end() == b""
    assert lab.records.actions == ["connection-refused"]


@pytest.mark.parametrize("pieces", [1, 2])
async def test_a_late_hello_is_judged(lab: Lab, pieces: int) -> None:
    """Waiting is no way round: a banned name said after the server's first words is refused, and doesn't reach it."""
    origin = await speaks_first(lab)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    hello = hello_for(BANNED)
    async with client(proxy.port) as somebody:
        await waits(proxy)
        assert await somebody.exactly(len(BANNER)) == BANNER
        await _say(somebody, hello, pieces)
        assert await somebody.to_end() == Alert.UNRECOGNIZED_NAME.record
    assert origin.received == b""


async def _say(somebody: Client, data: bytes, pieces: int) -> None:
    for number in range(pieces):
        await somebody.send(data[number * len(data) // pieces : (number + 1) * len(data) // pieces])


async def test_a_late_hello_that_does_not_end(lab: Lab) -> None:
    """Who begins to speak has the time that all have to end it."""
    origin = await speaks_first(lab)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as somebody:
        await waits(proxy)
        assert await somebody.exactly(len(BANNER)) == BANNER
        await somebody.send(hello_for(BANNED)[:20])
        (connection,) = proxy.traffic.connections.all()
        await eventually("it has begun", lambda: connection.waiting_since is not None)
        await close_silent(proxy.traffic, 0)
        assert await somebody.to_end() == b""
    assert proxy.counters.timeouts == 1
    assert origin.received == b""


async def test_a_server_that_can_not_be_reached(lab: Lab) -> None:
    """The client is not kept waiting."""
    origin = await speaks_first(lab)
    proxy = await lab.proxy(policy(), destination=("127.0.0.1", 1))
    async with client(proxy.port) as somebody:
        await waits(proxy)
        assert await somebody.to_end() == b""
    assert origin.connections == 0
