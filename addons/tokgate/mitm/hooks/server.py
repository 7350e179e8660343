"""The hooks of connections to destinations."""

import re
from typing import Final

from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from tokgate.mitm import http_request
from tokgate.mitm.hooks.traffic import Hooks, Traffic, ends_in, nothing
from tokgate.mitm.layers.first_bytes import OriginCertificate
from tokgate.traffic.counters import CONNECT_ERROR, connect_error

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
        elif not self._traffic.egress.may_open(self._traffic.context.connections().get(data.client.id), data.server):
            data.server.error = "it would not go the way that the policy wants"
        if data.client.alpn == b"h2" and not data.client.tls:  # prior knowledge, of the destination too
            data.server.alpn = b"h2"

    @ends_in(nothing)
    def server_connected(self, data: ServerConnectionHookData) -> None:
        """Remember a connection of ours, to know it should it come back as a client's."""
        self._traffic.remember_own(data.server.sockname, data.server.peername)

    @ends_in(nothing)
    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        """A connection of ours could not be made; mitmproxy has the error's number in its text."""
        number, enforcer = _ERROR_NUMBER.search(data.server.error or ""), self._traffic.enforcer
        if enforcer is not None:
            enforcer.counters.add(CONNECT_ERROR, connect_error(int(number[1]) if number else None))

    @ends_in(nothing)
    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        """Forget a connection of ours: its addresses may be a client's next."""
        self._traffic.forget_own(data.server.sockname, data.server.peername)

    async def origin_certificate(self, asked: OriginCertificate) -> None:
        """Find the names in a destination's certificate; after a failure its address decides."""
        try:
            asked.names = await self._traffic.certificates.names(asked.host, asked.port, client=asked.client)
        except Exception as error:
            self._traffic.failed("origin_certificate", error)
