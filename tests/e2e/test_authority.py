"""certs/README.md makes an authority that is believed for the banned names and can forge nothing else."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from labs.devtools import tab
from labs.netns import Lab, run
from labs.origin import ALLOWED, BANNED, Origin

PORT = 9443


class Thief:
    """Someone who has the gateway's key file and signs whatever a client might believe."""

    def __init__(self, stolen: Path, folder: Path) -> None:
        loaded = serialization.load_pem_private_key(stolen.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self.key = loaded
        self.chain = x509.load_pem_x509_certificates(stolen.read_bytes())
        self.folder = folder

    def forge(self, name: str) -> Path:
        """A server certificate for a name or an address, with its key and its chain in one file."""
        return self._write(name, self._sign(name, self.chain[0], self.key, authority=False), self.key, self.chain)

    def forge_below(self, name: str) -> Path:
        """The same by way of a further authority, which has no constraint of its own."""
        between = self._sign("between", self.chain[0], self.key, authority=True)
        return self._write(name, self._sign(name, between, self.key, authority=False), self.key, [between, *self.chain])

    def _sign(
        self, name: str, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if authority:
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _write(
        self, name: str, leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey, chain: list[x509.Certificate]
    ) -> Path:
        path = self.folder / f"{name}.pem"
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificates = [part.public_bytes(serialization.Encoding.PEM) for part in (leaf, *chain)]
        path.write_bytes(b"".join([pem, *certificates]))
        return path


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def thief(constrained_authority: Path, tmp_path: Path) -> Thief:
    """The gateway's key in the wrong hands."""
    return Thief(constrained_authority / "mitmproxy-ca.pem", tmp_path)


def verify(authority: Path, forged: Path) -> str:
    """What OpenSSL says to the first certificate of a file, given the rest of it."""
    done = run(
        *("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", authority / "root.pem"),
        *("-untrusted", forged, forged),
        check=False,
    )
    return done.stdout + done.stderr


@contextlib.contextmanager
def serving(lab: Lab, forged: Path) -> Iterator[None]:
    """A TLS server with this certificate on every address of the origin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(forged)
    listener = lab.origin.inside(_listener)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                plain, _ = listener.accept()
                plain.settimeout(5)
                with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(65536)
                    secure.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nforged")

    thread = threading.Thread(target=serve, name="forged")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        listener.close()


def _listener() -> socket.socket:
    made = socket.create_server(("", PORT))
    made.settimeout(0.1)
    return made


def test_the_key_file_is_what_the_gateway_expects(constrained_authority: Path) -> None:
    """Key, issuing certificate and root are in one file that nobody else can read, and the key fits."""
    path = constrained_authority / "mitmproxy-ca.pem"
    issuing, root = x509.load_pem_x509_certificates(path.read_bytes())
    key = serialization.load_pem_private_key(path.read_bytes(), None)

    assert path.stat().st_mode & 0o077 == 0
    assert key.public_key() == issuing.public_key()
    assert issuing.issuer == root.subject
    for certificate in (issuing, root):
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        assert constraints.value.permitted_subtrees == [x509.DNSName("tiktok.com"), x509.DNSName("tiktokv.com")]


def test_openssl_believes_it_for_banned_names_only(constrained_authority: Path, thief: Thief) -> None:
    """A name below a banned suffix verifies; another name, an address and a further authority do not."""
    assert ": OK" in verify(constrained_authority, thief.forge(BANNED))
    assert "permitted subtree violation" in verify(constrained_authority, thief.forge(ALLOWED))
    assert "permitted subtree violation" in verify(constrained_authority, thief.forge("www.nottiktok.com"))
    assert "excluded subtree violation" in verify(constrained_authority, thief.forge("203.0.113.10"))
    assert "excluded subtree violation" in verify(constrained_authority, thief.forge("2001:db8:f::10"))
    assert ": OK" not in verify(constrained_authority, thief.forge_below(BANNED))


def test_chromium_believes_it_for_banned_names_only(
    lab: Lab, origin: Origin, constrained_authority: Path, thief: Thief
) -> None:
    """Chromium, with the root in its store, shows the forged page of a banned name and an error for any other."""
    with tab(namespace=lab.client, authorities=(constrained_authority / "root.pem",)) as page:
        with serving(lab, thief.forge(BANNED)):
            page.open(f"https://{BANNED}:{PORT}/")
            assert page.text.strip() == "forged"
        with serving(lab, thief.forge(ALLOWED)):
            assert page.error(f"https://{ALLOWED}:{PORT}/").startswith("ERR_CERT_")
            assert "forged" not in page.text
