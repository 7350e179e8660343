"""Servers on a test's event loop, closed so that no connection of theirs outlives it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE = 60.0

type Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, host: str = "127.0.0.1", context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[int]:
    """A TCP server at a port, by default a free one, which this gives.

    In the end what is open is broken off, and waited for.
    """
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
            writers.discard(writer)

    server = await asyncio.start_server(serve, host, port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await all_taken_up()
        server.close()
        for writer in list(writers):
            writer.transport.abort()
        async with asyncio.timeout(DEADLINE):
            await server.wait_closed()
            while writers:
                await asyncio.sleep(0)


async def all_taken_up() -> None:
    """Let the loop take up what has connected.

    A connection that is accepted but not served yet when its server is closed is lost to asyncio, and an open socket is
    found in the middle of some later test.
    """
    for _ in range(6):  # the kernel tells of it, it is accepted, has a transport, is connected, served, and known to us
        await asyncio.sleep(0)
