"""Certificates for connections that are opened: for the name that the client asked for, and for nothing else."""

from cryptography import x509
from mitmproxy import certs
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.proxy.context import Context


class NarrowCertificates(TlsConfig):
    """mitmproxy's, without the names that it adds: the destination's address, and all on the origin's certificate.

    One of them outside the authority's name constraints (certs/README.md), and clients reject the whole certificate.
    """

    name = "tlsconfig"

    def get_cert(self, conn_context: Context) -> certs.CertStoreEntry:
        """A certificate for the SNI; without one, as mitmproxy does."""
        sni = conn_context.client.sni
        if sni is None:
            return super().get_cert(conn_context)
        name = sni.encode("idna").decode("ascii").lower().removesuffix(".")
        return self.certstore.get_cert(name, [x509.DNSName(name)])
