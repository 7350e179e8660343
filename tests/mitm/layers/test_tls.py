"""The certificate with which a connection is opened: for the name that was asked for, and for nothing else."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from mitmproxy import certs
from mitmproxy.certs import Cert, CertStore
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.modes import TransparentProxy
from mitmproxy.test import tflow
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from labs.addon_context import addon_context
from labs.proxy_lab import ALLOWED, Lab, Reply, client
from tokgate.mitm.layers.tls import NarrowCertificates


@contextmanager
def shown_for(sni: str | None, folder: Path, **options: object) -> Iterator[Callable[[], Cert]]:
    """What shows a client the certificate for its connection."""
    certificates = NarrowCertificates()
    with addon_context(certificates) as made:
        made.configure(certificates, confdir=str(folder), **options)
        context = Context(tflow.tclient_conn(), made.options)
        context.client.sni, context.client.sockname = sni, ("192.0.2.1", 443)
        context.server = Server(address=("203.0.113.7", 443), state=ConnectionState.CLOSED)
        yield lambda: certificates.get_cert(context).cert


@pytest.mark.parametrize("sni", ["www.clips.example.org", "WWW.Clips.example.org."])
def test_a_page_names_nothing_but_what_was_asked_for(tmp_path: Path, sni: str) -> None:
    """The destination's address would be outside the authority's name constraints, and no browser show the page."""
    with shown_for(sni, tmp_path) as show:
        shown = show().to_cryptography()
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("www.clips.example.org")]


@pytest.mark.parametrize("sni", ["www.clips.example.org", None], ids=str)
@pytest.mark.parametrize("days", [30, -300], ids=["clock-was-ahead", "made-long-ago"])
def test_a_certificate_is_valid_when_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sni: str | None, days: int
) -> None:
    """One from before the clock was set right is made anew; browsers would show no page until tokgate is restarted."""
    with shown_for(sni, tmp_path) as show:
        with monkeypatch.context() as then:
            then.setattr(certs, "CERT_VALIDITY_OFFSET", timedelta(days=days))
            before = show()
        now = datetime.now(UTC)
        assert not before.notbefore <= now <= before.notafter
        shown = show()
        assert shown.notbefore <= now <= shown.notafter
        assert show() is shown, "one that is valid is kept"


def shake_hands(
    server: SSL.Connection, client: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    """Have two ends in memory do their handshake."""
    for _ in range(3):
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            if outgoing.pending:
                server.bio_write(outgoing.read())
                server.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            incoming.write(server.bio_read(65536))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
def test_contexts_keep_certificates_and_each_name_has_its_own(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Reading certificate and key each time is a tenth of a page's cost. A client may come again by ticket."""
    certificates, seen = NarrowCertificates(), list[tuple[SSL.Context, ssl.SSLObject]]()
    with addon_context(certificates) as made:
        made.configure(certificates, confdir=str(tmp_path))
        trusting = ssl.create_default_context(cafile=tmp_path / "mitmproxy-ca-cert.pem")
        trusting.maximum_version = version
        trusting.set_alpn_protocols(["h2", "http/1.1"])
        for name in ("a.example.org", "b.example.org", "a.example.org"):
            context = Context(tflow.tclient_conn(), made.options)
            context.client.sni, context.client.alpn, context.server = name, None, Server(address=None)
            context.layers.append(TransparentProxy(context))
            started = TlsData(context.client, context)
            certificates.tls_start_client(started)
            assert started.ssl_conn is not None
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            asking = trusting.wrap_bio(incoming, outgoing, server_hostname=name)
            if len(seen) == 2 and version is ssl.TLSVersion.TLSv1_2:
                asking.session = seen[0][1].session
            shake_hands(started.ssl_conn, asking, incoming, outgoing)
            assert asking.selected_alpn_protocol() == "h2"
            seen.append((started.ssl_conn.get_context(), asking))
    assert seen[0][0] is seen[2][0] is not seen[1][0]
    assert seen[2][1].session_reused is (version is ssl.TLSVersion.TLSv1_2)


def test_a_certificate_that_was_given_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no concern of ours what dates it has: there is no other to show."""
    CertStore.from_store(tmp_path, "mitmproxy", 2048)
    monkeypatch.setattr(certs, "CERT_VALIDITY_OFFSET", timedelta(days=30))
    given = CertStore.from_store(tmp_path, "mitmproxy", 2048).get_cert("www.clips.example.org", [])
    key = (tmp_path / "mitmproxy-ca.pem").read_bytes()
    (tmp_path / "given.pem").write_bytes(key[: key.index(b"-----BEGIN CERTIFICATE")] + given.cert.to_pem())
    with shown_for("www.clips.example.org", tmp_path, certs=[f"*={tmp_path / 'given.pem'}"]) as show:
        assert show() == given.cert


async def asked_of(listener: socket.socket, serve: Callable[[socket.socket], None], port: int) -> Reply:
    """The answer to a request for a website that `serve` serves, by the proxy on a port."""
    asked = asyncio.create_task(asyncio.to_thread(serve, listener))
    host = f"{ALLOWED}:{listener.getsockname()[1]}"
    async with client(port) as guest:
        await guest.send(f"GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\nAccept: text/plain\r\n\r\n".encode())
        reply = await guest.response()
    await asked
    return reply


def asks_for_a_certificate(
    lab: Lab, newest: int, *, issuer: trustme.CA, names_authorities: bool, demanded: bool
) -> Callable[[socket.socket], None]:
    """Serves one connection by OpenSSL's functions, of which Python's `ssl` has not all."""

    def serve(listener: socket.socket) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(newest)
        issuer.issue_cert(ALLOWED).configure_cert(context)
        lab.authority.ca.configure_trust(context)
        if names_authorities:
            context.load_client_ca(str(lab.authority.trust).encode())
        asking = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if demanded else 0)
        context.set_verify(asking, lambda *_: True)
        with listener.accept()[0] as sock, contextlib.suppress(OSError):
            tls = SSL.Connection(context, sock)
            tls.set_accept_state()
            with contextlib.suppress(SSL.Error):
                tls.recv(1 << 16)
                tls.sendall(b"HTTP/1.1 403 No certificate\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            while sock.recv(1 << 16):  # to close before would reset, and the alert might be lost
                pass

    return serve


@pytest.mark.parametrize("names_authorities", [True, False])
@pytest.mark.parametrize(
    ("newest", "demanded"), [(SSL.TLS1_2_VERSION, True), (SSL.TLS1_2_VERSION, False), (SSL.TLS1_3_VERSION, True)]
)
async def test_a_certificate_of_the_client_s_own(
    lab: Lab, caplog: pytest.LogCaptureFixture, newest: int, demanded: bool, names_authorities: bool
) -> None:
    """A website that asks for one gets none through an opened connection: the page says so, and a warning whose.

    Or, where it doesn't insist, it answers as it does without.
    """
    proxy, issuer = await lab.proxy(), lab.authority.ca
    serve = asks_for_a_certificate(lab, newest, issuer=issuer, names_authorities=names_authorities, demanded=demanded)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reply = await asked_of(listener, serve, proxy.port)
    assert reply.status == (502 if demanded else 403)
    assert (b"asks for a certificate of the client" in reply.body) == demanded
    assert f"[host {ALLOWED}]" in caplog.text
    if newest == SSL.TLS1_2_VERSION:  # else the website's alert may come first, and is told as well
        assert "asks for a certificate of the client" in caplog.text
        assert caplog.text.count(f"[host {ALLOWED}]") == caplog.text.count("WARNING") == 1


@pytest.mark.parametrize("newest", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
async def test_who_asks_for_a_certificate_and_shows_one_that_is_not_believed(lab: Lab, newest: int) -> None:
    """The page says what is wrong: the website's own."""
    proxy, issuer = await lab.proxy(), trustme.CA()
    serve = asks_for_a_certificate(lab, newest, issuer=issuer, names_authorities=True, demanded=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reply = await asked_of(listener, serve, proxy.port)
    assert (reply.status, b"unable to get local issuer certificate" in reply.body) == (502, True)
