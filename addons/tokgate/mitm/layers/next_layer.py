"""Which layer comes next, by what is there already. Nothing is decided about names here."""

from typing import Final

from mitmproxy.proxy import layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.http import HTTPMode

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.closing import ClientTLSLayer
from tokgate.mitm.layers.dns import DnsLayer
from tokgate.mitm.layers.first_bytes import FirstBytesLayer
from tokgate.mitm.layers.http import HttpConnectionLayer, HttpStream
from tokgate.mitm.layers.name_servers import NameServers
from tokgate.traffic.enforcer import Enforcer

_DNS: Final = 53
_TLS: Final = b"\x16"


def layer_for(
    context: Context, data: bytes, enforcer: Enforcer, connection: ClientConnection, known: NameServers
) -> layer.Layer | None:
    """The next layer for a connection whose client has sent `data`; None leaves it to mitmproxy."""
    address, top = context.server.address, context.layers[-1]
    tunnelled = isinstance(top, HttpStream | modes.HttpProxy)
    if address is not None and address[1] == _DNS and not tunnelled:
        return DnsLayer(context, enforcer, connection, known)
    if isinstance(top, modes.HttpProxy):
        # TLS between the client and the proxy itself, before any request.
        return (
            ClientTLSLayer(context) if data[:1] == _TLS else HttpConnectionLayer(context, HTTPMode.regular, connection)
        )
    if isinstance(top, ClientTLSLayer):
        if isinstance(context.layers[0], modes.HttpProxy) and len(context.layers) == 2:
            return HttpConnectionLayer(context, HTTPMode.regular, connection)
        # Opened to read requests: whatever else is spoken inside would reach the destination unread.
        return HttpConnectionLayer(context, HTTPMode.transparent, connection)
    if isinstance(top, HttpStream):
        return FirstBytesLayer(context, enforcer, connection, tunnelled=True)
    if isinstance(top, modes.TransparentProxy | modes.Socks5Proxy):
        return FirstBytesLayer(context, enforcer, connection, tunnelled=False)
    return None
