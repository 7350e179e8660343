"""The layer for UDP: a flow of datagrams, decided by its address, and the QUIC connections in it, each by its name."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace
from typing import Final

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from tokgate.mitm.client_connection import ClientConnection, Passing
from tokgate.policy.observation import Transport
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.datagrams.quic_flow import QuicFlow
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import FirstBytes, OtherBytes, Shown

IDLE: Final = 180.0
"""Seconds that QUIC may be silent: longer than its usual 30, since what comes later could not be told apart."""


class ClientFlow(QuicFlow):
    """The flow of a client of mitmproxy's. All that isn't QUIC is decided by its address, once."""

    def __init__(self, context: Context, connection: ClientConnection) -> None:
        super().__init__()
        self._context: Final = context
        self._connection: Final = connection

    def arrival(self) -> Arrival:
        return replace(self._connection.arrival(self._context.server.address), transport=Transport.UDP)

    def let_pass(self, arrival: Arrival, shown: Shown) -> None:
        self._connection.let_pass(Passing(arrival, shown))

    def stray(self) -> FirstBytes | None:
        return None if self._connection.was_cut(self.arrival()) else OtherBytes()  # it goes on where it was cut off


class UdpLayer(layer.Layer):
    """Carries one flow, once it is decided."""

    def __init__(self, context: Context, enforcer: Enforcer, connection: ClientConnection) -> None:
        super().__init__(context)
        self._enforcer: Final = enforcer
        self._connection: Final = connection
        self._flow: Final = ClientFlow(context, connection)
        self._done = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and not self._done:
            if event.connection == self.context.client:
                self._connection.spoken()
                yield from self._take(event.data)
            else:
                yield commands.SendData(self.context.client, event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield from self._close()

    def _take(self, data: bytes) -> layer.CommandGenerator[None]:
        carried = self._flow.take(self._enforcer, data)
        if self._flow.began:
            self._connection.sockets.stay(IDLE)
        for datagram in carried.forward:
            yield from self._forward(datagram)
        if carried.answer:
            yield commands.SendData(self.context.client, carried.answer)

    def _forward(self, data: bytes) -> layer.CommandGenerator[None]:
        server = self.context.server
        if not server.connected and (self._done or (yield commands.OpenConnection(server)) is not None):
            yield from self._close()
            return
        yield commands.SendData(server, data)

    def _close(self) -> layer.CommandGenerator[None]:
        self._done = True
        for end in (self.context.server, self.context.client):
            if end.connected:
                yield commands.CloseConnection(end)
