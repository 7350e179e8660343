"""A mitmproxy mode whose connections come from a gate: accepted, and read from, before mitmproxy sees them."""
# mypy: disallow-untyped-calls=False

import asyncio
import logging
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, ClassVar, Final, Literal

from mitmproxy import ctx
from mitmproxy.addonmanager import AddonManager, traverse
from mitmproxy.connection import Address, Connection
from mitmproxy.hooks import Hook
from mitmproxy.proxy import commands, events, layer, mode_servers, mode_specs
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.utils.asyncio_utils import create_task

from tokgate.gate.handoff import Handover, receive
from tokgate.gate.sockets import reset_on_close
from tokgate.mitm.layers.fair_turns import Turns
from tokgate.traffic.counters import Counters
from tokgate.traffic.limits import OpenerLimits, client_key

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Connections taken before others on the event loop have their turn."""
MOST_READ: Final = 64 * 1024
"""Octets taken from a client's socket at once; asyncio's own 256 KiB would wait in memory for the client's turn."""


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

    handovers: ClassVar[socket.socket]
    """The channel's reading end."""
    limits: ClassVar[OpenerLimits] = OpenerLimits()
    turns: ClassVar[Turns] = Turns()
    """Those of the proxy, in which clients are adopted as well."""
    counters: ClassVar[Counters | None] = None
    """Where it is counted who is turned away."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.clients: Final[Counter[str]] = Counter()
        """Connections that were handed over and have not ended, by client as limits know it."""
        self._serving: Final[set[asyncio.Task[None]]] = set()
        self._takes = False

    @property
    def is_running(self) -> bool:
        """True while this instance accepts connections from gates."""
        return self._takes

    @property
    def listen_addrs(self) -> tuple[Address, ...]:
        """No addresses: the gates listen in its place."""
        return ()

    @property
    def waiting(self) -> int:
        """The number of connections that were handed over and are not served yet: their turn has not come."""
        return self.clients.total() - len(self.handed)

    async def _start(self) -> None:
        self._takes = True
        self.handovers.setblocking(False)
        asyncio.get_running_loop().add_reader(self.handovers, self._take)

    async def _stop(self) -> None:
        self._takes = False
        asyncio.get_running_loop().remove_reader(self.handovers)

    def _take(self) -> None:
        """Take what gates have sent."""
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
        """Serve a connection when its client has its turn; a client with too many loses it."""
        who = client_key(handover.arrival.client.ip)
        if self.clients[who] >= self.limits.per_client or self.clients.total() >= self.limits.connections:
            reset_on_close(client)
            client.close()
            if self.counters is not None:
                self.counters.at_limit += 1
            return
        self.clients[who] += 1
        task = asyncio.get_running_loop().create_task(self._serve(handover, client, who))
        self._serving.add(task)
        task.add_done_callback(partial(self._served, who))

    def _served(self, who: str, task: "asyncio.Task[None]") -> None:
        self._serving.discard(task)
        self.clients[who] -= 1
        if not self.clients[who]:
            del self.clients[who]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("a client was gone before it was adopted: %s", error)

    async def _serve(self, handover: Handover, client: socket.socket, who: str) -> None:
        """Serve a connection as if mitmproxy had accepted it; what the gate has read is read again here."""
        await self.turns.turn(who)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        reader.feed_data(handover.received)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        client.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client)
        transport.max_size = MOST_READ  # type: ignore[attr-defined]
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        if writer.get_extra_info("peername") is None:  # gone already
            writer.close()
            return
        handler = Handler(ctx.master, reader, writer, ctx.options, self.mode)
        context = handler.layer.context
        if writer.get_extra_info("peername")[0] != handover.arrival.client.ip:  # a load balancer's
            handler.client.peername = handover.arrival.client.ip, handover.arrival.client.port or 0
        destination = handover.arrival.destination
        if destination is not None:
            context.server.address = (destination.ip, destination.port or 443)
        handler.begin_with(modes.HttpProxy(context) if handover.explicit else modes.TransparentProxy(context))
        self.handed[context.client.id] = replace(handover, received=handover.received[:1])  # that something came
        try:
            with self.manager.register_connection(context.client.id, handler):
                await handler.handle_client()
        finally:
            self.handed.pop(context.client.id, None)

    handed: ClassVar[dict[str, Handover]] = {}
    """What gates know of the clients that they handed over, by mitmproxy's id of the client."""

    def make_top_layer(self, context: Context) -> layer.Layer:
        """For the contract of ServerInstance; `_serve` knows more."""
        return modes.TransparentProxy(context)


@lru_cache
def _calls(addons: AddonManager, hook: str) -> tuple[Callable[[Any], Any], ...]:
    return tuple(filter(None, (getattr(each, hook, None) for each in traverse(addons.chain))))


class Handler(mode_servers.ProxyConnectionHandler):
    """mitmproxy's, whose layers go on as soon as a hook is done.

    mitmproxy asks all addons for each hook, twice for those of flows, and comes back to its layers in another iteration
    of the loop. An opener's addons stay the same.
    """

    def begin_with(self, top: layer.Layer) -> None:
        """Set the layer that gets all events."""
        self.layer = top
        top.handle_event = partial(self._commands, top.handle_event)  # type: ignore[method-assign]

    def _commands(
        self, handle: Callable[[events.Event], layer.CommandGenerator[None]], event: events.Event
    ) -> layer.CommandGenerator[None]:
        coming = deque([event])
        while coming:
            for command in handle(coming.popleft()):
                if not isinstance(command, commands.StartHook):
                    yield command
                    continue
                task = asyncio.get_running_loop().create_task(self.handle_hook(command))  # mitmproxy's loop begins it
                if not task.done():
                    create_task(self._complete(command, task), name=command.name, keep_ref=True)
                elif command.blocking:
                    coming.append(events.HookCompleted(command))

    async def handle_connection(self, connection: Connection) -> None:
        """As mitmproxy's, which begins it before it has kept the task, by which layers may end it at once."""
        if self.transports[connection].handler is None:
            await asyncio.sleep(0)
        await super().handle_connection(connection)

    async def _complete(self, hook: commands.StartHook, done: Awaitable[None]) -> None:
        await done
        if hook.blocking:
            await self.server_event(events.HookCompleted(hook))

    async def handle_hook(self, hook: Hook) -> None:
        """Call what an opener's addons have for a hook: none stops the others, and none holds a flow back."""
        with self.timeout_watchdog.disarm():
            (data,) = hook.args()
            for call in _calls(self.master.addons, hook.name):
                try:
                    if (waits := call(data)) is not None:
                        await waits
                except Exception:
                    logger.exception("an addon failed in %s", hook.name)
