"""TLS with clients and servers: its ends as they were meant, and certificates for connections that are opened.

mitmproxy ends TLS without close_notify, which clients report as a truncated stream (RFC 8446 §6.1), and tells its HTTP
layers of every end alike.
"""
# mypy: disallow-untyped-calls=False

from collections.abc import Iterable
from datetime import UTC, datetime
from logging import WARNING
from typing import Final

from cryptography import x509
from mitmproxy import certs
from mitmproxy.addons import tlsconfig
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.net.tls import DEFAULT_MAX_VERSION, DEFAULT_MIN_VERSION, Method, create_client_proxy_context
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers.modes import HttpProxy
from mitmproxy.proxy.layers.tls import TLSLayer
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from tokgate.mitm.layers.failures import CLIENT_CERTIFICATE, WANT_CERTIFICATES
from tokgate.mitm.raw_sockets import ClientSockets

_HANDSHAKE: Final = b"\x16"
_TYPE: Final = slice(5, 6)
"""Of a record's first handshake message."""
_CERTIFICATE: Final = b"\x0b"
MOST_TOLD: Final = 250
"""Characters of a warning: some have a hello in hex."""


class EndOfData(commands.CloseTcpConnection):
    """All has been said that is to be said: over TLS close_notify says so, as FIN does over TCP."""


class _Notifies(TLSLayer):
    """Says that all has been said."""

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        """As mitmproxy's, with close_notify at an `EndOfData`."""
        if isinstance(command, EndOfData):
            try:
                self.tls.shutdown()
            except SSL.Error:  # there is no session to end
                pass
            else:
                yield from self.tls_interact()
        yield command

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """As mitmproxy's; what it warns of names the host. Whoever logs it names the client."""
        for command in super().handle_event(event):
            if isinstance(command, commands.Log) and command.level >= WARNING and "[host " not in command.message:
                address = self.context.server.address
                host = self.conn.sni or self.context.client.sni or (address[0] if address else "-")
                command.message = f"{command.message[:MOST_TOLD]} [host {host}]"
            yield command


class ClientTLSLayer(_Notifies, tls.ClientTLSLayer):
    """mitmproxy's, with close_notify."""


class ServerTLSLayer(_Notifies, tls.ServerTLSLayer):
    """mitmproxy's, with close_notify; a fatal alert ends what is inside, which mitmproxy would have wait for ever.

    Servers that ask for a certificate of the client are warned of; over TLS 1.3 if they say whose they believe.
    """

    _showed_none = False
    """Over TLS 1.2 this side sent an empty list of certificates, which it does to who asks (RFC 5246 §7.4.6)."""

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        """As mitmproxy's; an error behind a request for a certificate is about that."""
        done, error = yield from super().receive_handshake_data(data)
        if done and (self._showed_none or self.tls.get_client_ca_list()):
            yield commands.Log(CLIENT_CERTIFICATE, WARNING)
        return done, CLIENT_CERTIFICATE if error and self._showed_none else error

    def tls_interact(self) -> layer.CommandGenerator[None]:
        """As mitmproxy's, which sends each flight at once."""
        for command in super().tls_interact():
            record = command.data if isinstance(command, commands.SendData) else b""
            self._showed_none |= record[:1] == _HANDSHAKE and record[_TYPE] == _CERTIFICATE
            yield command

    def receive_data(self, data: bytes) -> layer.CommandGenerator[None]:
        """As mitmproxy's, and the end of the connection where the server has refused it."""
        alert = False
        for command in super().receive_data(data):
            if isinstance(command, commands.Log) and command.message.startswith("TLS Error"):
                alert = True
                if "certificate required" in command.message:
                    WANT_CERTIFICATES.add(self.conn)
            yield command
        if alert and self.conn.state & ConnectionState.CAN_READ:
            self.conn.state &= ~ConnectionState.CAN_READ
            yield from self.event_to_child(events.ConnectionClosed(self.conn))


def is_orderly(end: Connection, layers: Iterable[layer.Layer], sockets: ClientSockets) -> bool:
    """Whether a side that has ended said that this is all; `layers` are those between it and its HTTP."""
    sessions = [each.tls for each in layers if isinstance(each, TLSLayer) and each.conn == end and each.tls]
    return not sockets.was_reset(end) and all(tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN for tls in sessions[-1:])


class NarrowCertificates(TlsConfig):
    """mitmproxy's, without the names that it adds: the destination's address, and all on the origin's certificate.

    One of them outside the authority's name constraints (certs/README.md), and clients reject the whole certificate.
    """

    name = "tlsconfig"

    def tls_start_client(self, tls_start: TlsData) -> None:
        """As mitmproxy's, which reads certificate and key again for each connection; here a context keeps them."""
        client, layers = tls_start.context.client, tls_start.context.layers
        to_proxy = isinstance(layers[0], HttpProxy) and layers[1:] == layers[-1:]
        alpn = b"http/1.1" if to_proxy else client.alpn  # no CONNECT over HTTP/2
        session = SSL.Connection(self._context(self.get_cert(tls_start.context)))
        session.set_app_data({"client_alpn": alpn, "server_alpn": tls_start.context.server.alpn, "http2": True})
        session.set_accept_state()
        tls_start.ssl_conn = session

    def _context(self, entry: certs.CertStoreEntry) -> SSL.Context:
        kept: SSL.Context | None = vars(entry).get("context")
        if kept is not None:
            return kept
        context = create_client_proxy_context.__wrapped__(
            method=Method.TLS_SERVER_METHOD,
            min_version=DEFAULT_MIN_VERSION,
            max_version=DEFAULT_MAX_VERSION,
            cipher_list=tlsconfig._default_ciphers(DEFAULT_MIN_VERSION),  # noqa: SLF001 - mitmproxy's own choice
            ecdh_curve=None,
            chain_file=entry.chain_file,
            request_client_cert=False,
            alpn_select_callback=tlsconfig.alpn_select_callback,
            extra_chain_certs=(),
            dhparams=self.certstore.dhparams,
        )
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # each context would keep 20,000; clients have tickets
        context.use_certificate(entry.cert.to_cryptography())
        context.use_privatekey(entry.privatekey)
        vars(entry)["context"] = context  # it lasts as long as its certificate
        return context

    def get_cert(self, conn_context: Context) -> certs.CertStoreEntry:
        """A certificate for the SNI, without one as mitmproxy does, that is valid now.

        mitmproxy keeps what it has made, also while the clock was ahead, or longer ago than a certificate lasts.
        """
        entry = self._entry(conn_context)
        valid, store = entry.cert.notbefore <= datetime.now(UTC) <= entry.cert.notafter, self.certstore
        if not valid and entry in store.expire_queue:  # else somebody gave it to mitmproxy
            store.expire_queue.remove(entry)
            store.certs = {key: kept for key, kept in store.certs.items() if kept != entry}
            entry = self._entry(conn_context)
        return entry

    def _entry(self, conn_context: Context) -> certs.CertStoreEntry:
        sni = conn_context.client.sni
        if sni is None:
            return super().get_cert(conn_context)
        name = sni.encode("idna").decode("ascii").lower().removesuffix(".")
        return self.certstore.get_cert(name, [x509.DNSName(name)])
