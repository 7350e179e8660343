"""Which layer comes next, by what is there already. Nothing is decided about names here."""

from typing import Final

from mitmproxy.proxy import layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, modes
from mitmproxy.proxy.layers.http import HTTPMode, HttpStream

from tokgate.gate.enforcer import Enforcer
from tokgate.proxy.datagrams import Datagrams
from tokgate.proxy.dns_front import DnsFront
from tokgate.proxy.guard import Guard
from tokgate.proxy.http_front import HttpFront
from tokgate.proxy.visit import Visit

_DNS: Final = 53
_TLS: Final = b"\x16"


def layer_for(context: Context, data: bytes, enforcer: Enforcer, visit: Visit) -> layer.Layer | None:
    """The next layer for a connection whose client has sent `data`; None leaves it to mitmproxy."""
    address, top = context.server.address, context.layers[-1]
    tunnelled = isinstance(top, HttpStream | modes.HttpProxy)
    if address is not None and address[1] == _DNS and not tunnelled:
        return DnsFront(context, enforcer, visit)
    if context.client.transport_protocol == "udp":
        return Datagrams(context, enforcer, visit)
    if isinstance(top, modes.HttpProxy):
        # TLS between the client and the proxy itself, before any request.
        return ClientTLSLayer(context) if data[:1] == _TLS else HttpFront(context, HTTPMode.regular, visit)
    if isinstance(top, ClientTLSLayer):
        if isinstance(context.layers[0], modes.HttpProxy) and len(context.layers) == 2:
            return HttpFront(context, HTTPMode.regular, visit)
        # Opened to read requests: whatever else is spoken inside would reach the destination unread.
        return HttpFront(context, HTTPMode.transparent, visit)
    if isinstance(top, HttpStream):
        return Guard(context, enforcer, visit, tunnelled=True)
    if isinstance(top, modes.TransparentProxy | modes.Socks5Proxy):
        return Guard(context, enforcer, visit, tunnelled=False)
    return None
