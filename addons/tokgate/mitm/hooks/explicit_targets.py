"""The hooks that resolve the names of explicit clients, before the decision and before any connection."""
# mypy: disallow-untyped-calls=False

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.mode_specs import Socks5Mode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from tokgate.gate.sockets import is_here
from tokgate.mitm import http_request
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.hooks.http import answer
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.mitm.layers.relay import RefusalLayer
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint
from tokgate.policy.settings import Settings
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.admission import TargetAddresses, decide_targets, is_closed, matters
from tokgate.traffic.refusal_texts import INSIDE_WORDS

_PLAIN_TEXT: Final = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
PATIENCE: Final = 10.0
"""Seconds that a name may take to resolve."""


class ExplicitTargetHooks:
    """An addon before the hooks that decide.

    Where policy knows an address behind a name, or some of them are closed, one is settled on, and the other hooks
    see it as they see a redirected connection's destination. All other names are left to mitmproxy, which tries every
    address; should it then find another one than was looked at, the connection ends before a byte has passed.
    """

    name = "tokgate-explicit-targets"

    def __init__(self, traffic: Traffic) -> None:
        self._traffic: Final = traffic
        traffic.egress.others = self._others

    async def _others(self, client: Client, host: str, port: int) -> tuple[str, ...]:
        """The addresses to which a client may be connected for a name that passes, where one can't be reached."""
        if not http_request.can_be_dialled(host):
            return ()
        connection, closed = self._traffic.connections.of(client), partial(self._is_own, client, port=port)
        return self._decided(connection, host, await _resolved(host), closed).open

    async def http_connect(self, flow: HTTPFlow) -> None:
        """A client asks for a tunnel: to where?"""
        await self._look(flow, self._traffic.connections.of(flow.client_conn))

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """A client that knows the proxy asks for a URL; in tunnels and for redirected clients it is settled already."""
        connection = self._traffic.connections.of(flow.client_conn)
        if connection.explicit and connection.connect is None and http_request.ambiguity(flow.request) is None:
            await self._look(flow, connection)
            if connection.lead is not None:
                flow.request.data.host = connection.lead

    async def next_layer(self, next_layer: NextLayer) -> None:
        """The first bytes of a tunnel, or of any other connection: none leads to what is this machine's own."""
        context, address = next_layer.context, next_layer.context.server.address
        if next_layer.layer is not None or address is None or context.client.transport_protocol != "tcp":
            return
        try:
            if await self._may_begin(context, address):
                return
            self._count()
        except Exception as error:
            self._traffic.failed("next_layer", error)
        next_layer.layer = RefusalLayer(context, b"")

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection of ours is about to be made."""
        address = data.server.address
        if address is None or self._traffic.egress.is_parent(address):
            return
        if self._is_closed(data.client, *address[:2]):
            self._count()
            data.server.error = INSIDE_WORDS

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """It is made, by a name: to an address that may be another one than was looked at."""
        address, peer, connection = data.server.address, data.server.peername, self._traffic.connections.of(data.client)
        if not self._traffic.is_configured or address is None or peer is None or parse_address(address[0]) is not None:
            return
        egress = self._traffic.egress
        if egress.is_parent(address) or egress.parent(address[0], data.server.sni) is not None:
            return  # where it leads is the parent's affair
        try:
            closed = partial(self._is_closed, data.client, port=address[1])
            reached = self._decided(connection, address[0], (peer[0],), closed).open
        except Exception as error:
            self._traffic.failed("server_connected", error)
            reached = ()
        if reached:
            connection.reached(address[0], peer[0])
        else:
            self._count()
            connection.cut()

    async def _may_begin(self, context: Context, address: tuple[str, int]) -> bool:
        """Settle on an address for a tunnel's host, if that matters; whether it doesn't lead to this machine."""
        connection, top = self._traffic.connections.of(context.client), context.layers[-1]
        if isinstance(top, modes.Socks5Proxy) and parse_address(address[0]) is None:
            connection.connect = address[0]
            closed = await self._settle(context.client, connection, address)
        else:
            closed = self._is_closed(context.client, *address[:2])
        if not closed and connection.lead is not None and isinstance(top, modes.Socks5Proxy | HttpStream):
            context.server.address = (connection.lead, address[1])
        return not closed

    async def _look(self, flow: HTTPFlow, connection: ClientConnection) -> None:
        """Settle on an address for a request's host, if that matters; answer what leads to this machine."""
        connection.lead = None
        if flow.response is not None or flow.error is not None:
            return
        address = flow.request.data.host, flow.request.data.port
        try:
            if await self._settle(flow.client_conn, connection, address):
                self._count()
                answer(flow, connection, Response.make(403, f"tokgate: {INSIDE_WORDS}\n", _PLAIN_TEXT))
        except Exception as error:
            self._traffic.failed("egress", error)
            flow.kill()

    async def _settle(self, client: Client, connection: ClientConnection, address: tuple[str, int]) -> bool:
        """Settle on an address for a host, unless that changes nothing; whether it leads to this machine alone.

        Of the addresses of a name it is an open one, else a banned one, which the other hooks are to refuse.
        """
        host, ip = address[0], connection.client.ip
        if parse_address(host) is not None:
            return self._is_closed(client, host, address[1])
        if not self._traffic.is_configured or not http_request.can_be_dialled(host):
            return False
        enforcer = self._traffic.enforcer
        if not matters(enforcer, ip) or self._traffic.egress.parent(host) is not None:  # which resolves it
            return False
        if enforcer.judge(ip, (Sighting(Signal.HTTP_HOST, host),), connection.identity).blocks:
            return False
        closed = partial(self._is_closed, client, port=address[1])
        found = self._decided(connection, host, await _resolved(host), closed)
        if not found.plain:
            connection.lead = next(iter(found.open + found.banned), None)
        return found.closed

    def _decided(
        self, connection: ClientConnection, host: str, addresses: tuple[str, ...], closed: Callable[[str], bool]
    ) -> TargetAddresses:
        enforcer, ip = self._traffic.enforcer, connection.client.ip
        return decide_targets(enforcer, ip, host, addresses, connection.identity, is_closed=closed)

    def _is_closed(self, client: Client, destination: str, port: int) -> bool:
        """Whether a destination is this machine's own, and the client from elsewhere and free to ask for anything.

        What was redirected may be from this machine's programs, whatever its address; its destination was routed here.
        """
        asks = isinstance(client.proxy_mode, Socks5Mode) or self._traffic.connections.of(client).explicit
        return asks and self._is_own(client, destination, port)

    def _is_own(self, client: Client, destination: str, port: int) -> bool:
        settings = self._traffic.enforcer.snapshot.settings if self._traffic.is_configured else Settings()
        return is_closed(client.peername[0], Endpoint(destination, port), settings, is_here)

    def _count(self) -> None:
        if self._traffic.is_configured:
            self._traffic.enforcer.counters.loops += 1


async def _resolved(host: str) -> tuple[str, ...]:
    """The addresses of a name, in the system's order of preference; none where that fails: mitmproxy tells of it."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
