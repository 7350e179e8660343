"""A mitmproxy mode whose connections come from a gate: accepted, and read from, before mitmproxy sees them."""
# mypy: disallow-untyped-calls=False

import asyncio
import logging
import socket
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from mitmproxy import ctx
from mitmproxy.connection import Address
from mitmproxy.proxy import layer, mode_servers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes

from tokgate.gate.handover import Handover, receive

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Connections taken before others on the event loop have their turn."""


@dataclass(frozen=True)
class GateMode(mode_specs.ProxyMode):
    """`gate`: connections handed over by gates."""

    type_name: ClassVar[str] = "gate"
    description: ClassVar[str] = "connections from a gate"
    transport_protocol: ClassVar[Literal["tcp", "udp", "both"]] = "tcp"

    def __post_init__(self) -> None:
        """Only one gate channel is possible, so there is nothing to say."""
        if self.data:
            raise ValueError("the mode takes no arguments")


class GateInstance(mode_servers.ServerInstance[GateMode]):
    """Adopts connections from a channel's reading end, which has to be set before the proxy starts."""

    handovers: ClassVar[socket.socket | None] = None
    """The channel's reading end; None where a gate in this process calls `adopt`."""
    running: ClassVar["GateInstance | None"] = None
    """The instance that is started: a gate in this process finds it here."""

    @property
    def is_running(self) -> bool:
        """Whether connections are taken."""
        return GateInstance.running is self

    @property
    def listen_addrs(self) -> tuple[Address, ...]:
        """The gates listen."""
        return ()

    async def _start(self) -> None:
        GateInstance.running = self
        if self.handovers is not None:
            self.handovers.setblocking(False)
            asyncio.get_running_loop().add_reader(self.handovers, self._take)

    async def _stop(self) -> None:
        GateInstance.running = None
        if self.handovers is not None:
            asyncio.get_running_loop().remove_reader(self.handovers)

    def _take(self) -> None:
        """Take what gates have sent."""
        assert self.handovers is not None
        for _ in range(AT_ONCE):
            try:
                taken = receive(self.handovers)
            except BlockingIOError:  # another opener was quicker, or this was all
                return
            except ValueError as error:
                logger.error("a gate sent what is no connection: %s", error)
                continue
            if taken is None:  # all gates and their supervisor are gone
                asyncio.get_running_loop().remove_reader(self.handovers)
                return
            self.adopt(*taken)

    def adopt(self, handover: Handover, client: socket.socket) -> None:
        """Serve a connection as if mitmproxy had accepted it; what the gate has read is read again here."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        reader.feed_data(handover.received)

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> "asyncio.Task[None]":
            return loop.create_task(self._serve(handover, reader, writer))

        def protocol() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(reader, connected, loop=loop)

        client.setblocking(False)
        task = loop.create_task(loop.connect_accepted_socket(protocol, client))
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    handed: ClassVar[dict[str, Handover]] = {}
    """What gates know of the clients that they handed over, by mitmproxy's id of the client."""
    _connecting: ClassVar[set["asyncio.Task[tuple[asyncio.Transport, asyncio.StreamReaderProtocol]]"]] = set()

    def _connected(self, task: "asyncio.Task[tuple[asyncio.Transport, asyncio.StreamReaderProtocol]]") -> None:
        self._connecting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("a client was gone before it was adopted: %s", error)

    async def _serve(self, handover: Handover, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("peername") is None:  # gone already
            writer.close()
            return
        handler = mode_servers.ProxyConnectionHandler(ctx.master, reader, writer, ctx.options, self.mode)
        context = handler.layer.context
        destination = handover.arrival.destination
        if destination is not None:
            context.server.address = (destination.ip, destination.port or 443)
        handler.layer = _top_layer(handover, context)
        self.handed[context.client.id] = replace(handover, received=b"")
        try:
            with self.manager.register_connection(context.client.id, handler):
                await handler.handle_client()
        finally:
            self.handed.pop(context.client.id, None)

    def make_top_layer(self, context: Context) -> layer.Layer:
        """For the contract of ServerInstance; `_serve` knows more."""
        return modes.TransparentProxy(context)


def _top_layer(handover: Handover, context: Context) -> layer.Layer:
    """An explicit client's request, or the bytes of a connection whose destination is known."""
    return modes.HttpProxy(context) if handover.explicit else modes.TransparentProxy(context)
