"""The key of the page's authority: made once, believed for what it signs, and read by its owner only."""

import stat
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from mitmproxy.certs import CertStore
from whenever import Instant

from tokgate.block_page.ca_folder import AUTHORITY, establish_authority, secure_folder

NAME = x509.DNSName("clips.example.org")


def test_keys_lose_their_readers(tmp_path: Path) -> None:
    """A folder and keys that others could read are closed to them; what is private stays as it is."""
    folder = tmp_path / "confdir"
    folder.mkdir(mode=0o755)
    key = folder / AUTHORITY
    key.write_text("key")
    key.chmod(0o644)

    secure_folder(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    """An authority that is there stays; only its owner reads the key, devices get the certificate in both forms."""
    establish_authority(tmp_path, Instant.now())
    made = (tmp_path / AUTHORITY).read_bytes()
    establish_authority(tmp_path, Instant.now())

    assert (tmp_path / AUTHORITY).read_bytes() == made
    assert stat.S_IMODE((tmp_path / AUTHORITY).stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate((tmp_path / "mitmproxy-ca-cert.pem").read_bytes())
    assert x509.load_der_x509_certificate((tmp_path / "mitmproxy-ca-cert.cer").read_bytes()) == certificate
    assert x509.load_pem_x509_certificates(made) == [certificate]


def test_mitmproxy_signs_with_it(tmp_path: Path) -> None:
    """Its certificates convince who trusts this authority, and nobody who trusts another."""
    for folder in ("ours", "another"):
        establish_authority(tmp_path / folder, Instant.now())
    leaf = CertStore.from_store(tmp_path / "ours", "mitmproxy", 2048).get_cert(NAME.value, [NAME])

    assert isinstance(leaf.privatekey, ec.EllipticCurvePrivateKey)
    assert _convinces(leaf.cert.to_cryptography(), tmp_path / "ours")
    assert not _convinces(leaf.cert.to_cryptography(), tmp_path / "another")


def _convinces(leaf: x509.Certificate, folder: Path) -> bool:
    root = x509.load_pem_x509_certificate((folder / "mitmproxy-ca-cert.pem").read_bytes())
    try:
        PolicyBuilder().store(Store([root])).build_server_verifier(NAME).verify(leaf, [])
    except VerificationError:
        return False
    return True
