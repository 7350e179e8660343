"""The hooks that look where an explicit client's names lead, before it is decided and before anything is dialled."""
# mypy: disallow-untyped-calls=False

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.mode_specs import Socks5Mode, WireGuardMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from tokgate.gate.answers import INSIDE_WORDS
from tokgate.gate.egress import Ways, is_closed, matters, ways
from tokgate.gate.enforcer import Enforcer
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.names import parse_address
from tokgate.proxy import requests
from tokgate.proxy.relay import Refusal
from tokgate.proxy.visit import Visit

if TYPE_CHECKING:
    from tokgate.proxy.traffic import Traffic

PATIENCE: Final = 10.0
"""Seconds that a name may take to resolve."""


class Egress:
    """An addon that stands before the traffic hooks.

    Where policy knows an address behind a name, or some of them are closed, one is settled on, and the traffic hooks
    see it as they see a redirected connection's destination. All other names are left to mitmproxy, which tries every
    address; should it then find another one than was looked at, the connection ends before a byte has passed.
    """

    name = "tokgate-egress"

    def __init__(self, traffic: "Traffic") -> None:
        """`traffic` knows the policy and the visits."""
        self._traffic: Final = traffic

    async def http_connect(self, flow: HTTPFlow) -> None:
        """A client asks for a tunnel: to where?"""
        await self._look(flow, self._traffic.visits.of(flow.client_conn))

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """A client that knows the proxy asks for a URL; in tunnels and for redirected clients it is settled already."""
        visit = self._traffic.visits.of(flow.client_conn)
        if visit.explicit and visit.connect is None and not requests.is_ambiguous(flow.request):
            await self._look(flow, visit)
            if visit.lead is not None:
                flow.request.data.host = visit.lead

    async def next_layer(self, next_layer: NextLayer) -> None:
        """The first bytes of a tunnel, or of any other connection: none leads to what is this machine's own."""
        context, top = next_layer.context, next_layer.context.layers[-1]
        address, visit = context.server.address, self._traffic.visits.of(context.client)
        if next_layer.layer is not None or address is None or context.client.transport_protocol != "tcp":
            return
        try:
            if isinstance(top, modes.Socks5Proxy) and parse_address(address[0]) is None:
                visit.connect = address[0]
                found = await self._ways(visit, address[0])
                visit.lead = _lead(found)
                closed = found is not None and found.closed
            else:
                closed = self._is_closed(context.client, address[0])
            if closed:
                self._count()
                next_layer.layer = Refusal(context, b"")
            elif visit.lead is not None and isinstance(top, modes.Socks5Proxy | HttpStream):
                context.server.address = (visit.lead, address[1])
        except Exception as error:
            self._traffic.failed("next_layer", error)
            next_layer.layer = Refusal(context, b"")

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection of ours is about to be made, over UDP maybe."""
        if data.server.address is not None and self._is_closed(data.client, data.server.address[0]):
            self._count()
            data.server.error = INSIDE_WORDS

    def server_connected(self, data: ServerConnectionHookData) -> None:
        """It is made, by a name: to an address that may be another one than was looked at."""
        address, peer = data.server.address, data.server.peername
        enforcer, visit = self._traffic.enforcer, self._traffic.visits.of(data.client)
        if enforcer is None or address is None or peer is None or parse_address(address[0]) is not None:
            return
        try:
            reached = ways(enforcer, visit.client.ip, address[0], (peer[0],), visit.identity).open
        except Exception as error:
            self._traffic.failed("server_connected", error)
            reached = ()
        if reached:
            visit.reached(address[0], peer[0])
        else:
            self._count()
            visit.cut()

    async def _look(self, flow: HTTPFlow, visit: Visit) -> None:
        """Settle on an address for a request's host, if that matters; answer what leads to this machine."""
        visit.lead = None
        if flow.response is not None or flow.error is not None:
            return
        host = flow.request.data.host
        try:
            if parse_address(host) is not None:
                closed = self._is_closed(flow.client_conn, host)
            else:
                found = await self._ways(visit, host)
                visit.lead, closed = _lead(found), found is not None and found.closed
            if closed:
                self._count()
                self._traffic.answer(flow, _closed())
        except Exception as error:
            self._traffic.failed("egress", error)
            flow.kill()

    async def _ways(self, visit: Visit, host: str) -> Ways | None:
        """Where a name leads; None where that changes nothing, or the name isn't for this client anyway."""
        enforcer = self._traffic.enforcer
        if enforcer is None or not matters(enforcer, visit.client.ip) or not requests.can_be_dialled(host):
            return None
        if self._is_refused(enforcer, visit, host):
            return None
        return ways(enforcer, visit.client.ip, host, await _resolved(host), visit.identity)

    @staticmethod
    def _is_refused(enforcer: Enforcer, visit: Visit, host: str) -> bool:
        return enforcer.judge(visit.client.ip, (Sighting(Signal.HTTP_HOST, host),), visit.identity).blocks

    def _is_closed(self, client: Client, destination: str) -> bool:
        """Whether a destination is this machine's own, and the client from elsewhere and free to ask for anything.

        What was redirected may be from this machine's programs, whatever its address; its destination was routed here.
        """
        asks = isinstance(client.proxy_mode, Socks5Mode | WireGuardMode) or self._traffic.visits.of(client).explicit
        return asks and is_closed(client.peername[0], destination)

    def _count(self) -> None:
        if self._traffic.enforcer is not None:
            self._traffic.enforcer.counters.loops += 1


def _lead(found: Ways | None) -> str | None:
    """The address to settle on: an open one, else the banned one that the traffic hooks are to refuse."""
    return None if found is None or found.plain else next(iter(found.open + found.banned), None)


async def _resolved(host: str) -> tuple[str, ...]:
    """The addresses of a name, in the system's order of preference; none where that fails: mitmproxy tells of it."""
    try:
        async with asyncio.timeout(PATIENCE):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def _closed() -> Response:
    fields = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    return Response.make(403, f"tokgate: {INSIDE_WORDS}\n", fields)
