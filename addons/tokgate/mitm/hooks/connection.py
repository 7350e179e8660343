"""The hooks of a client's connection: its beginning, its first bytes, its end."""
# mypy: disallow-untyped-calls=False

from functools import partial
from typing import Final

from mitmproxy.connection import Client
from mitmproxy.dns import DNSFlow
from mitmproxy.flow import Error
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.mode_specs import DnsMode, RegularMode, TransparentMode
from mitmproxy.tcp import TCPFlow
from mitmproxy.tls import ClientHelloData, TlsData

from tokgate.gate.identification import Links
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.gate_mode import GateInstance
from tokgate.mitm.hooks.traffic import UNCONFIGURED, Hooks, Traffic, ends_in, nothing
from tokgate.mitm.layers.dns import DnsLayer
from tokgate.mitm.layers.name_servers import NameServers
from tokgate.mitm.layers.next_layer import layer_for
from tokgate.mitm.layers.passthrough import PassthroughLayer, RefusalLayer
from tokgate.mitm.layers.raw_sockets import ClientSockets
from tokgate.policy.membership import Identity
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
        if isinstance(client.proxy_mode, DnsMode):
            self._put_dns_layer(client, connection)

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
        next_layer.layer = layer_for(context, data, enforcer, connection, self._name_servers)

    @ends_in(nothing)
    def tls_clienthello(self, data: ClientHelloData) -> None:
        """mitmproxy takes an SNI that IDNA 2003 doesn't know for none."""
        raw = dict(data.client_hello.extensions).get(0)
        if data.context.client.sni is None and raw is not None and is_host_name(raw[5:]):
            data.context.client.sni = raw[5:].decode("ascii")

    @ends_in(nothing)
    def dns_request(self, flow: DNSFlow) -> None:
        """A question is about to be asked on: not if it is one of our own that came back."""
        if self._traffic.is_own(flow.client_conn.peername, flow.client_conn.sockname):
            flow.error = Error("a question of our own came back: the resolver that we ask is this one")

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
        if handed is None:
            connection.identity = self._link_of(connection)
        else:
            connection.take_over(handed)
        return connection

    def _link_of(self, connection: ClientConnection) -> Identity | None:
        """By which interface a client came, and its hardware address, where the policy has use for them."""
        identifies, sock = self._traffic.enforcer.snapshot.identifies, connection.sockets.client
        if sock is None or not identifies.links:
            return None
        return self._links.identify(sock, connection.client.ip, identifies)

    def _dialled_directly(self, client: Client, connection: ClientConnection) -> bool:
        """Whether the destination that the kernel remembers is the very socket that accepted the connection."""
        sock, wanted = connection.sockets.client, client.sockname
        local = None if sock is None else sock.getsockname()[:2]
        return local is not None and local == (wanted and wanted[:2]) and local[1] in self._traffic.context.listens_at()

    def _put_dns_layer(self, client: Client, connection: ClientConnection) -> None:
        """In this mode mitmproxy asks nobody which layer to use: ours takes the place of its own before the start."""
        handler = self._traffic.context.connections()[client.id]
        context = handler.layer.context
        context.layers.clear()
        handler.layer = DnsLayer(context, self._traffic.enforcer, connection, self._name_servers)
