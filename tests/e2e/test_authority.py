"""certs/README.md makes an authority that is believed for the banned names and can forge nothing else."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from labs.devtools import tab
from labs.netns import Lab, run
from labs.origin import ALLOWED, BANNED, Origin
from labs.web_server import served, web_server


class Thief:
    """Someone who has the gateway's key file and signs whatever a client might believe."""

    def __init__(self, stolen: bytes, folder: Path) -> None:
        self.authority = trustme.CA.from_pem(stolen, stolen)
        self._stolen, self._folder = stolen, folder

    def forge(self, name: str, below: trustme.CA | None = None) -> Path:
        """A server certificate for a name or an address, with its key and its chain in one file."""
        path, issued = self._folder / f"{name}.pem", (below or self.authority).issue_cert(name)
        path.write_bytes(issued.private_key_and_cert_chain_pem.bytes() + self._stolen)
        return path


@pytest.fixture
def thief(constrained_authority: Path, tmp_path: Path) -> Thief:
    """The gateway's key in the wrong hands."""
    return Thief((constrained_authority / "mitmproxy-ca.pem").read_bytes(), tmp_path)


def verify(authority: Path, forged: Path) -> str:
    """What OpenSSL says to the first certificate of a file, given the rest of it."""
    done = run(
        *("openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", authority / "root.pem"),
        *("-untrusted", forged, forged),
        check=False,
    )
    return done.stdout + done.stderr


def test_openssl_believes_it_for_banned_names_only(constrained_authority: Path, thief: Thief) -> None:
    """A name below a banned suffix verifies; another name, an address and a further authority do not."""
    assert ": OK" in verify(constrained_authority, thief.forge(BANNED))
    assert "permitted subtree violation" in verify(constrained_authority, thief.forge(ALLOWED))
    assert "permitted subtree violation" in verify(constrained_authority, thief.forge("www.nottiktok.com"))
    assert "excluded subtree violation" in verify(constrained_authority, thief.forge("203.0.113.10"))
    assert "excluded subtree violation" in verify(constrained_authority, thief.forge("2001:db8:f::10"))
    between = thief.authority.create_child_ca()
    assert "path length constraint exceeded" in verify(constrained_authority, thief.forge(BANNED, between))


@contextlib.contextmanager
def serving(lab: Lab, forged: Path) -> Iterator[int]:
    """The port of a TLS server with this certificate on every address of the origin."""
    server = lab.origin.inside(lambda: web_server(b"forged", host=""))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(forged)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with served(server) as port:
        yield port


def test_chromium_believes_it_for_banned_names_only(
    lab: Lab, origin: Origin, constrained_authority: Path, thief: Thief
) -> None:
    """Chromium, with the root in its store, shows the forged page of a banned name and an error for any other."""
    with tab(namespace=lab.client, authorities=(constrained_authority / "root.pem",)) as page:
        with serving(lab, thief.forge(BANNED)) as port:
            page.open(f"https://{BANNED}:{port}/")
            assert page.text.strip() == "forged"
        with serving(lab, thief.forge(ALLOWED)) as port:
            assert page.error(f"https://{ALLOWED}:{port}/").startswith("ERR_CERT_")
            page.wait("location.protocol === 'chrome-error:' && !document.body.innerText.includes('forged')")
