"""The folder that holds the key of the page's certificate authority: for its owner's eyes only."""

import socket
import stat
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from whenever import Instant, hours

from tokgate.blocklog.signing import KEY_MODE, PUBLIC_MODE, replace_file

DEFAULT_CONFDIR: Final = Path("~/.tokgate")
AUTHORITY: Final = "mitmproxy-ca.pem"
"""The authority's key and certificates, where mitmproxy looks for them."""
LIFETIME: Final = hours(10 * 365 * 24)
LEEWAY: Final = hours(48)
"""How long an authority is valid, and how long before now that begins: for clients whose clock is slow."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_KEYS: Final = (AUTHORITY, "mitmproxy-ca.p12")
"""The files with an authority's private key; the second one comes with an authority that mitmproxy made."""


def secure_folder(folder: Path) -> None:
    """Make the folder if need be; take it and the keys in it away from everyone else. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _restrict(folder)
    for name in _KEYS:
        if (folder / name).exists():
            _restrict(folder / name)


def establish_authority(folder: Path, now: Instant) -> None:
    """Make an authority unless the folder has one: its key and certificate, and the certificate by itself for devices.

    mitmproxy would make one with an RSA key. It signs each handshake with the authority's key, which one of P-256 does
    at a fraction of the cost. Raises OSError.
    """
    if (folder / AUTHORITY).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(key, now)
    public = certificate.public_bytes(Encoding.PEM)
    replace_file(folder / "mitmproxy-ca-cert.pem", public, PUBLIC_MODE)
    replace_file(folder / "mitmproxy-ca-cert.cer", certificate.public_bytes(Encoding.DER), PUBLIC_MODE)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    replace_file(folder / AUTHORITY, private + public, KEY_MODE)  # last: with it, there is one


def _certificate(key: ec.EllipticCurvePrivateKey, now: Instant) -> x509.Certificate:
    """A self-signed authority (RFC 5280, section 4.2.1) whose name says which gateway's it is."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tokgate"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"tokgate on {socket.gethostname()}"[:64]),
        ]
    )
    usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - LEEWAY).to_stdlib())
        .not_valid_after((now - LEEWAY + LIFETIME).to_stdlib())
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _restrict(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        path.chmod(mode & ~_OTHERS)
