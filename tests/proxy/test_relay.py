"""Allowed connections: ends, resets and pressure travel through as if there were no proxy."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from proxy_lab import ALLOWED, DEADLINE, Client, Lab, Origin, Proxy, client, client_hello, eventually

HELLO = client_hello(ALLOWED)
BULK = bytes(1 << 20)


@asynccontextmanager
async def connected(proxy: Proxy, origin: Origin, how: str) -> AsyncIterator[Client]:
    """A client whose hello has been relayed, directly or in a CONNECT tunnel."""
    async with client(proxy.port) as guest:
        if how == "tunnel":
            assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.send(HELLO)
        yield guest


async def a_proxy(lab: Lab, origin: Origin, how: str) -> Proxy:
    return await lab.proxy(destination=None if how == "tunnel" else ("127.0.0.1", origin.port))


both = pytest.mark.parametrize("how", ["redirected", "tunnel"])


@both
async def test_client_ends_first(lab: Lab, how: str) -> None:
    """The client's end reaches the origin, which can still answer at length."""
    origin = await lab.sink_origin(BULK)
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        await guest.send(b"question")
        guest.writer.write_eof()
        assert await guest.to_end() == BULK

    assert bytes(origin.received) == HELLO + b"question"
    await eventually("the connection is forgotten", lambda: proxy.connections == 0)


@both
async def test_origin_ends_first(lab: Lab, how: str) -> None:
    """The origin's end reaches the client, which can still send."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HELLO))
        writer.write(b"greeting")
        writer.write_eof()
        while data := await reader.read(65536):
            origin.received += data

    origin = await lab.raw_origin(handler)
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        assert await guest.to_end() == b"greeting"
        await guest.send(BULK)
        guest.writer.write_eof()
        await eventually("the origin has it all", lambda: len(origin.received) == len(BULK))


@both
async def test_client_resets(lab: Lab, how: str) -> None:
    """A client's reset reaches the origin as a reset, not as an orderly end."""
    origin = await lab.sink_origin()
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        await eventually("the origin has the hello", lambda: bytes(origin.received) == HELLO)
        reset(guest)
        await eventually("the origin sees a reset", lambda: origin.ends == ["ConnectionResetError"])

    await eventually("the connection is forgotten", lambda: proxy.connections == 0)


@both
async def test_origin_resets(lab: Lab, how: str) -> None:
    """An origin's reset reaches the client as a reset: a cut answer must not look whole."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(HELLO))
        linger(writer)
        writer.transport.abort()

    origin = await lab.raw_origin(handler)
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        with pytest.raises(ConnectionResetError):
            await guest.to_end()

    await eventually("the connection is forgotten", lambda: proxy.connections == 0)


@both
async def test_origin_out_of_reach(lab: Lab, how: str) -> None:
    """When the origin can't be reached the client's connection ends."""
    origin = Origin(port=1)
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        assert await guest.to_end() == b""


@both
async def test_back_pressure(lab: Lab, how: str) -> None:
    """Of what a client doesn't read, the proxy holds a bounded part and the origin keeps the rest."""
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(BULK)
            await writer.drain()
            sent += len(BULK)

    origin = await lab.raw_origin(handler)
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        guest.writer.transport.pause_reading()
        await settled(lambda: sent)
        assert sent < 64 * len(BULK)


@both
async def test_pressure_one_way_does_not_stop_the_other(lab: Lab, how: str) -> None:
    """A client that sends everything before it reads anything gets through, as it would without a proxy."""
    size = 16 * len(BULK)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def answer() -> None:
            for _ in range(16):
                writer.write(BULK)
                await writer.drain()

        async def listen() -> None:
            while data := await reader.read(65536):
                origin.received += data

        await asyncio.gather(answer(), listen())

    origin = await lab.raw_origin(handler)
    proxy = await a_proxy(lab, origin, how)

    async with connected(proxy, origin, how) as guest:
        guest.writer.transport.pause_reading()
        async with asyncio.timeout(DEADLINE):
            await guest.send(bytes(size))
        guest.writer.write_eof()
        await eventually("the origin has it all", lambda: len(origin.received) == len(HELLO) + size)
        guest.writer.transport.resume_reading()
        assert len(await guest.to_end()) == size


async def settled(value) -> None:  # type: ignore[no-untyped-def]
    """Wait until a value rests for a while."""
    async with asyncio.timeout(DEADLINE):
        last, same = value(), 0
        while same < 20:
            await asyncio.sleep(0.01)
            same = same + 1 if value() == last else 0
            last = value()


def linger(writer: asyncio.StreamWriter) -> None:
    """Have closing send a reset."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset(guest: Client) -> None:
    """Reset a client's connection."""
    linger(guest.writer)
    guest.writer.transport.abort()
