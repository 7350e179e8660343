"""The folder with the private key of the block page's authority, readable by its owner only."""

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

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.integrity.signing_key import KEY_MODE, PUBLIC_MODE

DEFAULT_CONFDIR: Final = Path("~/.tokgate")
AUTHORITY: Final = "mitmproxy-ca.pem"
"""The authority's key and certificates, where mitmproxy looks for them."""
LIFETIME: Final = hours(10 * 365 * 24)
LEEWAY: Final = hours(48)
"""The validity of an authority, and how long before now it begins, for clients whose clock is slow."""
_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
SIGNS_CERTIFICATES: Final = x509.KeyUsage(**dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True})
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_KEYS: Final = (AUTHORITY, "mitmproxy-ca.p12")
"""The files with the authority's private key. mitmproxy writes the second one for an authority that it creates."""


def secure_folder(folder: Path) -> None:
    """Create the folder if need be; remove all permissions of group and others from it and its keys. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _restrict(folder)
    for name in _KEYS:
        if (folder / name).exists():
            _restrict(folder / name)


def establish_authority(folder: Path, now: Instant) -> None:
    """Create an authority unless the folder has one: key and certificate, and the certificate alone for devices.

    mitmproxy would create one with an RSA key. It signs each handshake with the authority's key, and a P-256 signature
    costs a fraction of that. Raises OSError.
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
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - LEEWAY).to_stdlib())
        .not_valid_after((now - LEEWAY + LIFETIME).to_stdlib())
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _restrict(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & _OTHERS:
        path.chmod(mode & ~_OTHERS)
