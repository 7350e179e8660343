"""Looks through the layers of live connections for classes of mitmproxy's in whose place there should be ours."""

from collections.abc import Iterator, Mapping
from typing import Any

from mitmproxy.connection import Client
from mitmproxy.flow import Flow
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers import http, tls
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server
from mitmproxy.proxy.server import ConnectionHandler

REPLACED = {
    *(http.HttpLayer, http.HttpStream, http.HttpClient, Http1Client, Http1Server, Http2Client, Http2Server),
    *(tls.ClientTLSLayer, tls.ServerTLSLayer),
}


def layers_in(holder: Any) -> Iterator[layer.Layer]:
    """A layer, and all that it holds in whatever attribute."""
    waiting, seen = [holder], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, layer.Layer):
            yield one
            waiting += [*vars(one).values(), *one.context.layers]
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, layer.NextLayer):
            waiting.append(one.layer)


class OwnLayers:
    """An addon that looks whenever something has been built: in `found` are the classes that should not be there."""

    def __init__(self, connections: Mapping[Any, ConnectionHandler]) -> None:
        self.connections = connections
        self.found: set[type] = set()

    def client_disconnected(self, client: Client) -> None:
        handler = self.connections.get(client.id)
        if handler is not None:
            self.found |= {type(each) for each in layers_in(handler.layer)} & REPLACED

    def response(self, flow: Flow) -> None:
        self.client_disconnected(flow.client_conn)

    responseheaders = websocket_start = tcp_start = response
