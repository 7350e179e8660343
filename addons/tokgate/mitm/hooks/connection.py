"""The hooks of connections: a client's beginning, turns, first bytes and end; and those to destinations."""
# mypy: disallow-untyped-calls=False

import re
import time
from collections.abc import Iterator
from functools import partial
from typing import Final

from mitmproxy.connection import Client
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import HTTP_ALPNS
from mitmproxy.proxy.mode_specs import DnsMode, RegularMode, TransparentMode
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tcp import TCPFlow
from mitmproxy.tls import ClientHelloData, TlsData

from tokgate.gate.identification import Links
from tokgate.mitm import http_request
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.gate_mode import GateInstance
from tokgate.mitm.hooks.traffic import UNCONFIGURED, Hooks, Traffic, ends, ends_in, nothing
from tokgate.mitm.layers.dns import DnsLayer, NameServers
from tokgate.mitm.layers.fair_turns import take_turns
from tokgate.mitm.layers.first_bytes import FirstBytesLayer, OriginCertificate
from tokgate.mitm.layers.http import GONE, HttpConnectionLayer, HttpStream
from tokgate.mitm.layers.relay import PassthroughLayer, RefusalLayer
from tokgate.mitm.layers.tls import ClientTLSLayer
from tokgate.mitm.options import DNS_PORT
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.traffic.counters import CONNECT_ERROR, connect_error
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import client_key
from tokgate.wire.host_names import is_host_name


def _close_or_pass(traffic: Traffic, next_layer: NextLayer) -> None:
    """No name could be read: the connection is closed, unless errors let everything pass."""
    context = next_layer.context
    next_layer.layer = (
        RefusalLayer(context, b"") if traffic.is_strict else PassthroughLayer(context, ClientSockets(None))
    )


def _turn_away(traffic: Traffic, client: Client) -> None:
    """mitmproxy's own layer for DNS would answer everything: not if errors block."""
    if traffic.is_strict and isinstance(client.proxy_mode, DnsMode):
        client.error = "questions can't be decided"


class ConnectionHooks(Hooks):
    """The addon for clients' connections, TLS and DNS."""

    name = "tokgate-connections"

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(traffic)
        self._links: Final = Links(partial(traffic.failed, "links"))
        self._name_servers: Final = NameServers()

    @ends_in(_turn_away)
    def client_connected(self, client: Client) -> None:
        """A client connects: not to the redirected port itself, which would lead in a circle."""
        if not self._traffic.is_configured:
            client.error = UNCONFIGURED
            return
        connection = self._begin(client)
        if isinstance(client.proxy_mode, TransparentMode) and self._dialled_directly(client, connection):
            self._traffic.enforcer.counters.loops += 1
            client.error = "nothing was redirected here: this port is for redirected connections only"
        if isinstance(client.proxy_mode, DnsMode):  # mitmproxy asks nobody which layer to use: ours takes its place
            handler = self._traffic.context.connections()[client.id]
            context = handler.layer.context
            context.layers.clear()
            handler.layer = self._dns_layer(context, connection)

    @ends_in(nothing)
    def client_disconnected(self, client: Client) -> None:
        """A client has gone, perhaps without a request on a connection that was opened for it."""
        connection = self._traffic.connections.end(client)
        if connection is not None and self._traffic.is_configured:
            self._traffic.warnings.left(self._traffic.enforcer, connection)
        # mitmproxy leaves the socket open where its task was cancelled between the client's FIN and the layers.
        handler = self._traffic.context.connections().get(client.id)
        for transport in () if handler is None else handler.transports.values():
            if transport.writer is not None:
                transport.writer.close()

    @ends_in(nothing)
    def tls_failed_client(self, data: TlsData) -> None:
        """A client doesn't accept our certificate, or has gone."""
        connection = self._traffic.connections.of(data.context.client)
        self._traffic.warnings.rejected(self._traffic.enforcer, connection, data.conn.error)

    @ends_in(_close_or_pass)
    def next_layer(self, next_layer: NextLayer) -> None:
        """The first bytes have come: put the layer in charge that waits until they say enough."""
        context = next_layer.context
        if next_layer.layer is not None or not self._traffic.is_configured:
            return
        if self._traffic.is_own(context.client.peername, context.client.sockname):
            next_layer.layer = RefusalLayer(context, b"")
            return
        connection = self._traffic.connections.of(context.client)
        data, enforcer = next_layer.data_client(), self._traffic.enforcer
        address, tunnelled = context.server.address, isinstance(context.layers[-1], HttpStream | modes.HttpProxy)
        if address is not None and address[1] == DNS_PORT and not tunnelled:  # redirected, or asked for by SOCKS
            next_layer.layer = self._dns_layer(context, connection)
        else:
            next_layer.layer = layer_for(context, data, enforcer, connection)

    @ends_in(nothing)
    def tls_clienthello(self, data: ClientHelloData) -> None:
        """mitmproxy takes an SNI that IDNA 2003 doesn't know for none."""
        raw = dict(data.client_hello.extensions).get(0)
        if data.context.client.sni is None and raw is not None and is_host_name(raw[5:]):
            data.context.client.sni = raw[5:].decode("ascii")

    @ends_in(nothing)
    def tcp_message(self, flow: TCPFlow) -> None:
        """Keep only the last message; mitmproxy would keep all while the connection lasts."""
        del flow.messages[:-1]

    def _begin(self, client: Client) -> ClientConnection:
        """The state of a new connection: from the gate that hands it over, or with what its link tells."""
        handler = self._traffic.context.connections().get(client.id)
        if handler is not None:
            self._traffic.egress.serve(handler)
        sockets = ClientSockets(handler)
        connection = self._traffic.connections.begin(client, sockets)
        connection.explicit = isinstance(client.proxy_mode, RegularMode)
        handed = GateInstance.handed.get(client.id)
        identifies, sock = self._traffic.enforcer.snapshot.identifies, sockets.client
        if handed is not None:
            connection.take_over(handed)
        elif sock is not None and identifies.links:
            connection.identity = self._links.identify(sock, connection.client.ip, identifies)
        return connection

    def _dialled_directly(self, client: Client, connection: ClientConnection) -> bool:
        """Whether the destination that the kernel remembers is the very socket that accepted the connection."""
        sock, wanted = connection.sockets.client, client.sockname
        local = None if sock is None else sock.getsockname()[:2]
        return local is not None and local == (wanted and wanted[:2]) and local[1] in self._traffic.context.listens_at()

    def _dns_layer(self, context: Context, connection: ClientConnection) -> DnsLayer:
        loops = partial(self._traffic.is_own, context.client.peername, context.client.sockname)
        return DnsLayer(context, self._traffic.enforcer, connection, self._name_servers, loops)


_ERROR_NUMBER: Final = re.compile(r"\[Errno ([0-9]+)\]")


def _dial_nothing(_: Traffic, data: ServerConnectionHookData) -> None:
    """Refuse a connection of which a failed hook can't tell where it would lead."""
    data.server.error = "it can't be decided"


class ServerHooks(Hooks):
    """The addon for connections to destinations."""

    name = "tokgate-servers"

    @ends_in(_dial_nothing)
    def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection of ours is about to be made: not to what only a resolver would take for an address."""
        address = data.server.address
        if address is not None and not http_request.can_be_dialled(address[0]):
            data.server.error = "this is no name, and no address as policy knows them"
        if data.client.alpn == b"h2" and not data.client.tls:  # prior knowledge, of the destination too
            data.server.alpn = b"h2"
        # Another one, such as gRPC's grpc-exp, is not for us to speak, and the server might choose it.
        data.server.alpn_offers = tuple(offer for offer in data.client.alpn_offers if offer in HTTP_ALPNS)

    @ends_in(nothing)
    def server_connected(self, data: ServerConnectionHookData) -> None:
        """Remember a connection of ours, to know it should it come back as a client's; hear it to its end."""
        self._traffic.connections.of(data.client).sockets.hear_out(data.server)
        self._traffic.own.add(ends(data.server.sockname, data.server.peername))

    @ends_in(nothing)
    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """A connection of ours could not be made; mitmproxy has the error's number in its text."""
        number, enforcer = _ERROR_NUMBER.search(data.server.error or ""), self._traffic.enforcer
        if enforcer is not None:
            enforcer.counters.add(CONNECT_ERROR, connect_error(int(number[1]) if number else None))

    @ends_in(nothing)
    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        """Forget a connection of ours: its addresses may be a client's next."""
        self._traffic.own.discard(ends(data.server.sockname, data.server.peername))

    async def origin_certificate(self, asked: OriginCertificate) -> None:
        """Find the names in a destination's certificate; after a failure its address decides."""
        try:
            asked.names = await self._traffic.certificates.names(asked.host, asked.port, client=asked.client)
        except Exception as error:
            self._traffic.failed("origin_certificate", error)


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
            take_turns(handler, partial(self._read, client), has_turn=has_turn)

    async def frames_turn(self, client: Client) -> None:
        """More frames of HTTP/2 have come than are read in a turn. They may reset streams that wait for theirs."""
        await self._traffic.turns.turn(client_key(client.peername[0]), first=True)

    async def requestheaders(self, flow: HTTPFlow) -> None:
        """The head of a request has come: one of many, perhaps, of which its client has left some over HTTP/2."""
        connection = self._traffic.connections.of(flow.client_conn)
        if flow.request.is_http2 or not connection.has_turn:
            await self._traffic.turns.turn(client_key(flow.client_conn.peername[0]))
        connection.has_turn = False
        if GONE in flow.metadata and flow.killable:
            self._traffic.enforcer.counters.streams_dropped += 1
            flow.kill()

    async def _read(self, client: Client) -> None:
        """Wait for the client's turn with what has come from it, or from a destination of its."""
        await self._traffic.turns.turn(client_key(client.peername[0]))
        self._traffic.connections.of(client).has_turn = True


_TLS: Final = b"\x16"


def layer_for(context: Context, data: bytes, enforcer: Enforcer, connection: ClientConnection) -> layer.Layer | None:
    """The next layer for a connection whose client has sent `data`; None leaves it to mitmproxy."""
    top = context.layers[-1]
    if isinstance(top, modes.HttpProxy) and data[:1] == _TLS:  # between the client and the proxy itself
        return ClientTLSLayer(context)
    if isinstance(top, modes.HttpProxy | ClientTLSLayer):
        # Opened to read requests: whatever else is spoken inside would reach the destination unread.
        to_proxy = isinstance(context.layers[0], modes.HttpProxy) and context.layers[1:] in ([], [top])
        return HttpConnectionLayer(context, HTTPMode.regular if to_proxy else HTTPMode.transparent, connection)
    if isinstance(top, HttpStream | modes.TransparentProxy | modes.Socks5Proxy):
        return FirstBytesLayer(context, enforcer, connection, tunnelled=isinstance(top, HttpStream))
    return None


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
