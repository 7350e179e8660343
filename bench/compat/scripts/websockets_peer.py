# mypy: ignore-errors
# Debian's Python runs it, with its packages.
"""WebSocket: websockets_peer.py serve PORT CERTIFICATE KEY, or call URL PROXY|direct AUTHORITY."""

import asyncio
import hashlib
import ssl
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

PLAIN = 20_499


async def echo(socket):
    """Say all back; pieces joined; close as asked."""
    async for message in socket:
        if message == "close":
            await socket.close(4001, "as asked")
        elif message == "pieces":
            await socket.send(["one", "two", "three"])
        elif message == "ping":
            await (await socket.ping(b"ping"))
            await socket.send("ponged")
        else:
            await socket.send(message)


async def serving(port, certificate, key):
    """Serve until killed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    sizes = {"max_size": 1 << 24, "subprotocols": ["a", "b"]}
    async with serve(echo, "0.0.0.0", int(port), ssl=context, **sizes), serve(echo, "0.0.0.0", PLAIN, **sizes):
        await asyncio.Future()


async def calling(url, proxy, authority):
    """Messages of all kinds and sizes, and ends."""
    secure = url.startswith("https")
    options = {"proxy": None if proxy == "direct" else proxy, "max_size": 1 << 24, "open_timeout": 20}
    if secure:
        options["ssl"] = ssl.create_default_context(cafile=authority)
    for compression in (None, "deflate"):
        async with connect(
            url.replace("http", "ws", 1), compression=compression, subprotocols=["b"], **options
        ) as socket:
            print(socket.subprotocol, [str(each.name) for each in socket.protocol.extensions])
            for size in (0, 1, 125, 126, 65_535, 65_536, 3_000_000):
                await socket.send(bytes(range(256)) * (size // 256) + bytes(size % 256))
                print(size, hashlib.sha256(await socket.recv()).hexdigest()[:12])
            for word in ("größer", "pieces", "ping"):
                await socket.send(word)
                print(await socket.recv())
            await socket.send(["p", "q", "r"])
            print(await socket.recv())
            await (await socket.ping(b"x" * 125))
            await socket.send("close")
            try:
                await socket.recv()
            except websockets.ConnectionClosed as closed:
                print(closed.rcvd.code, closed.rcvd.reason)


asyncio.run((serving if sys.argv[1] == "serve" else calling)(*sys.argv[2:]))
