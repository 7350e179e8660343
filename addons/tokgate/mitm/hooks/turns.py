"""The hooks in which work waits for its client's turn, before all others are asked."""

from typing import Final

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow

from tokgate.mitm.gate_mode import GateInstance
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.mitm.layers.fair_turns import take_turns
from tokgate.mitm.layers.http import GONE
from tokgate.traffic.limits import client_key


class TurnHooks:
    """The first addon: what a client sends, and each stream of HTTP/2, is dealt with in its client's turn."""

    name = "tokgate-turns"

    def __init__(self, traffic: Traffic) -> None:
        self._traffic: Final = traffic

    def client_connected(self, client: Client) -> None:
        """A client has connected, to this proxy or to a gate that hands it over in its turn."""
        handler = self._traffic.context.connections().get(client.id)
        if handler is not None:
            handed = GateInstance.handed.get(client.id)
            has_turn = handed is not None and bool(handed.received)
            take_turns(handler, lambda: self._turn(client), has_turn=has_turn)

    async def frames_turn(self, client: Client) -> None:
        """More frames of HTTP/2 have come than are read in a turn. They may reset streams that wait for theirs."""
        await self._traffic.turns.turn(client_key(client.peername[0]), first=True)

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """The head of a request has come: over HTTP/2 one of many, perhaps, of which its client has left some."""
        if flow.request.is_http2:
            await self._turn(flow.client_conn)
        if GONE in flow.metadata and flow.killable:
            self._traffic.connections.of(flow.client_conn).resets.dropped(1)
            flow.kill()

    async def _turn(self, client: Client) -> None:
        await self._traffic.turns.turn(client_key(client.peername[0]))
