"""The sockets under mitmproxy's layers, where layers alone can't reach: resets, and pressure one way only.

Layers see the end of a connection, but not whether it was orderly; and mitmproxy reads on from one side only when
everything sent to *both* sides is on its way, so that a client that sends all before it reads anything gets stuck.
"""

import asyncio
import contextlib
import os
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Set
from functools import partial
from typing import Final
from weakref import WeakSet

from mitmproxy.connection import Connection
from mitmproxy.proxy.server import ConnectionHandler, ConnectionIO

from tokgate.gate.sockets import octets, reset_on_close
from tokgate.policy.observation import Carried


class ClientSockets:
    """The sockets of one client connection; without a handler (in mitmproxy's own tests, say) it does nothing."""

    def __init__(self, handler: ConnectionHandler | None) -> None:
        self._handler: Final = handler
        self.paused: frozenset[Connection] = frozenset()
        """Sides that are not read on from: what they have sent waits for the other side already."""
        self._resumed = asyncio.Event()
        self._broken_off: Final[WeakSet[Connection]] = WeakSet()

    def hear_out(self, end: Connection) -> None:
        """Read what a side sends before it breaks off, also where that is noticed by what can't be sent to it.

        A server may answer before the end of a request, and close: its reset comes right behind the answer. asyncio
        then drops what has come and was not read yet, mitmproxy ends the task that would read it.
        """
        io = self._io(end)
        if io is None or not isinstance(io.writer, StreamWriter) or not isinstance(io.reader, StreamReader):
            return
        reader, writer = io.reader, io.writer
        sock, protocol, drain = writer.get_extra_info("socket"), writer.transport.get_protocol(), writer.drain
        lose = protocol.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            if exc is not None:
                self._broken_off.add(end)
                with contextlib.suppress(OSError):
                    while piece := os.read(sock.fileno(), 1 << 16):
                        reader.feed_data(piece)
            lose(None)

        async def drain_if_open() -> None:
            with contextlib.suppress(OSError):
                await drain()

        protocol.connection_lost, writer.drain = connection_lost, drain_if_open  # type: ignore[method-assign]

    def separate(self) -> None:
        """From now on each direction waits for its own receiver only."""
        if self._handler is not None:
            self._handler.drain_writers = self._drain_opposite  # type: ignore[method-assign]

    def pause(self, ends: Set[Connection]) -> None:
        """Read on from all sides but these, once what comes now has been dealt with; until it is said otherwise."""
        if self._handler is None or ends == self.paused:
            return
        self._handler.drain_writers = partial(self._drain_and_wait, self._handler)  # type: ignore[method-assign]
        self.paused, resumed, self._resumed = frozenset(ends), self._resumed, asyncio.Event()
        resumed.set()

    def end_when_quiet(self, seconds: float) -> None:
        """End the connection once nothing has moved for that long; mitmproxy looks again when its own time is over."""
        if self._handler is not None:
            self._handler.timeout_watchdog.timeout = int(seconds)
            watch = self._handler.timeout_watchdog.watch()
            self._handler.wakeup_timer.add(asyncio.get_running_loop().create_task(watch))  # cancelled with the rest

    def was_reset(self, end: Connection) -> bool:
        """Whether a connection that has ended was broken off."""
        io = self._io(end)
        failed = io is not None and isinstance(io.reader, StreamReader) and io.reader.exception() is not None
        return failed or end in self._broken_off

    def reset(self, end: Connection) -> bool:
        """Break a connection off, so that its peer can't take what it got for the whole; False if there is none."""
        io = self._io(end)
        if io is None or not isinstance(io.writer, StreamWriter):
            return False
        reset_on_close(io.writer.get_extra_info("socket"))
        io.writer.transport.abort()
        return True

    def break_off(self) -> None:
        """Break off towards both sides, at once, whatever layers have in hand."""
        if self._handler is None:
            return
        for end in list(self._handler.transports):
            self.reset(end)
        client = self._handler.transports.get(self._handler.client)
        if client is not None and client.handler is not None:
            client.handler.cancel("cut")  # and with it all that is still being connected to

    def octets(self) -> Carried | None:
        """The bytes received from and sent to the client, if the kernel counts them."""
        sock = self.client
        return None if sock is None else octets(sock)

    @property
    def client(self) -> socket.socket | None:
        """The client's socket; None unless it is TCP and connected."""
        io = None if self._handler is None else self._io(self._handler.client)
        if io is None or not isinstance(io.writer, StreamWriter):
            return None
        sock: socket.socket | None = io.writer.get_extra_info("socket")
        return sock

    def _io(self, end: Connection) -> ConnectionIO | None:
        return None if self._handler is None else self._handler.transports.get(end)

    async def _drain_and_wait(self, handler: ConnectionHandler) -> None:
        """Called in the place of mitmproxy's by the task that has read from one side, before it reads on."""
        await type(handler).drain_writers(handler)
        reading = asyncio.current_task()
        while any(io.handler is reading for io in map(self._io, self.paused) if io is not None):
            await self._resumed.wait()

    async def _drain_opposite(self) -> None:
        """Called by the task that has read from one side, before it reads on."""
        reading = asyncio.current_task()
        for io in list(self._handler.transports.values()) if self._handler is not None else ():
            if io.writer is None or io.handler is reading:
                continue
            try:
                await io.writer.drain()
            except OSError as error:
                if io.handler is not None:
                    io.handler.cancel(f"Error sending data: {error}")
