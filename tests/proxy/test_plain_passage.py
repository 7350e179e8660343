"""What passes as readable HTTP passes as it comes, and other ways in are guarded like the first."""

import asyncio
import socket

import pytest
from proxy_lab import ALLOWED, BANNED, DEADLINE, NOW, Client, Lab, ban, client, client_hello, eventually, policy

import builders

ALERT = bytes.fromhex("15030300020270")


async def test_answer_passes_as_it_comes(lab: Lab) -> None:
    """The first event of an endless answer arrives before the second is sent."""
    go_on = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
        await go_on.wait()
        writer.write(b"7\r\nsecond\n\r\n0\r\n\r\n")
        await writer.drain()

    origin = await lab.raw_origin(handler)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode())
        await guest.head()
        assert await guest.exactly(len(b"6\r\nfirst\n\r\n")) == b"6\r\nfirst\n\r\n"
        go_on.set()
        assert await guest.exactly(len(b"7\r\nsecond\n\r\n")) == b"7\r\nsecond\n\r\n"


async def test_upload_passes_as_it_comes(lab: Lab) -> None:
    """The origin gets the beginning of an upload before its end is sent."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 10\r\n\r\nhello".encode())
        await eventually("the beginning arrives", lambda: origin.received.endswith(b"hello"))
        await guest.send(b"world")
        await eventually("the end arrives", lambda: origin.received.endswith(b"helloworld"))


@pytest.mark.parametrize("before", ["", "GET / HTTP/1.1\r\nHost: {allowed}\r\n\r\n"])
async def test_endless_head(lab: Lab, before: str) -> None:
    """A head, or requests sent ahead, are not buffered without limit."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    origin = await lab.raw_origin(silent)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(before.format(allowed=ALLOWED).encode() + b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):  # noqa: PT011 - a reset, or a broken pipe
            await flood(guest)
        await eventually("the connection is forgotten", lambda: proxy.connections == 0)


async def flood(guest: Client) -> None:
    """Send header fields for ever."""
    async with asyncio.timeout(DEADLINE):
        while True:
            await guest.send(b"X-Filler: " + b"x" * 4000 + b"\r\n")


async def test_websocket_passes(lab: Lab) -> None:
    """A WebSocket to an allowed host is upgraded and carries frames both ways."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        await reader.readexactly(2 + 4 + 4)
        writer.write(b"\x81\x04pong")
        await writer.drain()
        await reader.read()

    origin = await lab.raw_origin(handler)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(
            f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert b" 101 " in await guest.head()
        await guest.send(b"\x81\x84\0\0\0\0ping")
        assert await guest.exactly(6) == b"\x81\x04pong"


async def test_http2_without_tls(lab: Lab) -> None:
    """HTTP/2 with prior knowledge can't be read, so it reaches nobody."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await guest.to_end()

    assert origin.connections == 0


async def test_exemption_is_logged(lab: Lab) -> None:
    """A client with an exemption passes, and the use is in the log."""
    origin = await lab.sink_origin(b"through")
    hole = builders.exemption(clients=(builders.ip_network("127.0.0.1/32"),), until=NOW.add(hours=1))
    proxy = await lab.proxy(policy(ban(), exemptions=(hole,)), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(client_hello(BANNED))
        guest.writer.write_eof()
        assert await guest.to_end() == b"through"

    assert lab.records.actions == ["exemption-used"]
    assert lab.records.all[0]["tokgate"]["exemption"] == "press"


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("name", [BANNED, ALLOWED])
async def test_ipv6(lab: Lab, name: str) -> None:
    """Clients and origins on IPv6 are treated alike."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(b"through")

    origin = await lab.raw_origin(handler, host="::1")
    proxy = await lab.proxy(destination=("::1", origin.port), listen_host="::1")

    async with client(proxy.port, "::1") as guest:
        await guest.send(client_hello(name))
        guest.writer.write_eof()
        assert await guest.to_end() == (ALERT if name == BANNED else b"through")

    assert origin.connections == (0 if name == BANNED else 1)


@pytest.mark.parametrize("name", [BANNED, ALLOWED])
async def test_socks5(lab: Lab, name: str) -> None:
    """In SOCKS 5 mode the SNI inside is decided like anywhere else."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(mode="socks5")

    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x00")
        assert await guest.exactly(2) == b"\x05\x00"
        await guest.send(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.port.to_bytes(2))
        await guest.exactly(10)
        await guest.send(client_hello(name))
        guest.writer.write_eof()
        assert await guest.to_end() == (ALERT if name == BANNED else b"through")

    assert origin.connections == (0 if name == BANNED else 1)


async def test_socks5_by_name(lab: Lab) -> None:
    """A banned name in the SOCKS request is refused, whatever is said inside."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(mode="socks5")

    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x00")
        await guest.exactly(2)
        await guest.send(b"\x05\x01\x00\x03" + bytes([len(BANNED)]) + BANNED.encode() + origin.port.to_bytes(2))
        await guest.exactly(10)
        await guest.send(client_hello(ALLOWED))
        assert await guest.to_end() == ALERT

    assert origin.connections == 0


@pytest.mark.parametrize("name", [b"2130706433", b"localhost\0.example.org"])
async def test_socks5_by_what_is_no_name(lab: Lab, name: bytes) -> None:
    """What the resolver would read in another way than policy is not dialled."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(mode="socks5")

    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x00")
        await guest.exactly(2)
        await guest.send(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + origin.port.to_bytes(2))
        await guest.exactly(10)
        await guest.send(client_hello(ALLOWED))
        assert await guest.to_end() == b""

    assert origin.connections == 0
