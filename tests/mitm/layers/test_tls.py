"""The certificate with which a connection is opened: for the name that was asked for, and for nothing else."""
# mypy: disallow-untyped-calls=False

from pathlib import Path

import pytest
from cryptography import x509
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy.context import Context
from mitmproxy.test import tflow

from labs.addon_context import addon_context
from tokgate.mitm.layers.tls import NarrowCertificates


@pytest.mark.parametrize("sni", ["www.clips.example.org", "WWW.Clips.example.org."])
def test_a_page_names_nothing_but_what_was_asked_for(tmp_path: Path, sni: str) -> None:
    """The destination's address would be outside the authority's name constraints, and no browser show the page."""
    certificates = NarrowCertificates()
    with addon_context(certificates) as made:
        made.configure(certificates, confdir=str(tmp_path))
        context = Context(tflow.tclient_conn(), made.options)
        context.client.sni = sni
        context.server = Server(address=("203.0.113.7", 443), state=ConnectionState.CLOSED)
        shown = certificates.get_cert(context).cert.to_cryptography()
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("www.clips.example.org")]
