"""Shares one event loop among clients: a piece of work at a time, and clients in turn, however much one of them sends.

A connection costs mitmproxy milliseconds. Served as they come, a client's thousand would all go before another's one.
mitmproxy runs each hook as a task, so a response takes some ten iterations of the loop. If a turn were one iteration,
pieces of work of ten connections would be under way at any time, and each would take as long as all of them. asyncio
does not tell whether a loop has work, so that a turn can't end with its own.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from mitmproxy.connection import Connection
from mitmproxy.proxy.server import ConnectionHandler

LENGTH: Final = 16
"""Iterations of the loop that a turn lasts."""


class Turns:
    """The work that waits, by client. While a turn lasts the loop looks at its sockets: there may be new clients."""

    def __init__(self) -> None:
        self._waiting: Final[dict[str, deque[asyncio.Event]]] = {}
        """The client whose turn is next comes first; one that has just come is at the end."""
        self._serving: asyncio.Task[None] | None = None

    async def turn(self, client: str, *, first: bool = False) -> None:
        """Wait for the client's turn, in which the caller then is; `first`, before what the client waits for already.

        A client's work is done in the order in which it came.
        """
        come, works = asyncio.Event(), self._waiting.setdefault(client, deque())
        works.appendleft(come) if first else works.append(come)
        if self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve())
        await come.wait()

    async def _serve(self) -> None:
        while self._waiting:
            client = next(iter(self._waiting))
            works = self._waiting.pop(client)
            works.popleft().set()
            if works:
                self._waiting[client] = works
            for _ in range(LENGTH):
                await asyncio.sleep(0)
        self._serving = None


def take_turns(handler: ConnectionHandler, turn: Callable[[], Awaitable[None]], *, has_turn: bool) -> None:
    """Have a handler of mitmproxy's take in what either side sends in its client's turn.

    While it waits for that, no more is read from its socket: octets that come one by one on many connections would
    each cost the loop a read between two turns, and the turns of others would be that much longer.
    `has_turn`: something has been received, and what is read first belongs to the turn that there is.
    """
    carry = handler.handle_connection

    async def read_in_turn(
        read: Callable[[int], Awaitable[bytes]], transport: asyncio.Transport, size: int = -1
    ) -> bytes:
        nonlocal has_turn
        data = await read(size)
        if not has_turn:
            paused = transport.is_reading()  # else asyncio has paused it, since much waits in memory
            if paused:
                transport.pause_reading()
            await turn()
            if paused:
                transport.resume_reading()
        has_turn = False
        return data

    async def handle_connection(connection: Connection) -> None:
        stream = handler.transports[connection].reader
        transport = getattr(handler.transports[connection].writer, "transport", None)
        if isinstance(stream, asyncio.StreamReader) and isinstance(transport, asyncio.Transport):
            stream.read = partial(read_in_turn, stream.read, transport)  # type: ignore[method-assign]
        await carry(connection)

    handler.handle_connection = handle_connection  # type: ignore[method-assign]
