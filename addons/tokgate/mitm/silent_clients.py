"""Clients that have said nothing yet: their servers may speak first, and in the end they are closed."""

import time
from collections.abc import Iterator

from mitmproxy.proxy import events
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.server import ConnectionHandler

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.hooks.traffic import Traffic


async def hear_servers(traffic: Traffic, patience: float) -> None:
    """Let the servers speak first to redirected clients that have said nothing in `patience` seconds."""
    for connection, handler in _overdue(traffic, patience):
        layer = None if handler is None else handler.layer
        if handler is None or not isinstance(layer, modes.TransparentProxy):
            continue
        if isinstance(layer.child_layer, NextLayer) and layer.child_layer.layer is None:
            connection.listen()
            await handler.server_event(events.DataReceived(handler.client, b""))


async def close_silent(traffic: Traffic, patience: float) -> None:
    """Close the connections whose client has not said in `patience` seconds what it wants."""
    for connection, handler in _overdue(traffic, patience):
        connection.spoken()
        if handler is not None:
            traffic.enforcer.counters.timeouts += 1
            await handler.on_timeout()


def _overdue(traffic: Traffic, patience: float) -> Iterator[tuple[ClientConnection, ConnectionHandler | None]]:
    handlers = traffic.context.connections()
    for connection in list(traffic.connections.overdue(time.monotonic() - patience)):
        yield connection, handlers.get(connection.id)
