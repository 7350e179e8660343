"""The folder of an authority: the root, its encrypted key, the file for gateways. Only their owner reads the keys."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from whenever import Instant

from tokgate.block_page.authority import AUTHORITY, CertifiedKey, pem, secure_folder
from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.integrity.checkpoint import KEY_MODE, PUBLIC_MODE

OLD: Final = "old"
"""The folder, below the authority's, of what was replaced."""
_ROOT_FILES: Final = ("root.key", "root.passphrase", "root.pem", "root.cer")


@dataclass(frozen=True, slots=True)
class AuthorityFolder:
    """`root.key` and `root.passphrase` stay offline, `root.pem` and `root.cer` go to devices, the rest to gateways."""

    path: Path

    @property
    def for_gateways(self) -> Path:
        """The issuing key, its certificate and the root's."""
        return self.path / AUTHORITY

    @property
    def exists(self) -> bool:
        """Whether any file of an authority is there."""
        return any((self.path / name).exists() for name in (*_ROOT_FILES, AUTHORITY))

    def write_root(self, root: CertifiedKey) -> None:
        """Write a root, its key encrypted with a new passphrase. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        secure_folder(self.path)
        passphrase = secrets.token_urlsafe(30).encode()
        encrypted = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
        replace_file(self.path / "root.passphrase", passphrase + b"\n", KEY_MODE)
        replace_file(self.path / "root.key", encrypted, KEY_MODE)
        replace_file(self.path / "root.pem", pem([root.certificate]), PUBLIC_MODE)
        replace_file(self.path / "root.cer", root.certificate.public_bytes(Encoding.DER), PUBLIC_MODE)

    def read_root(self, passphrase: Path | None = None) -> CertifiedKey:
        """The root with its key; `passphrase` is the file with it, where it isn't in the folder.

        Raises:
            OSError: a file can't be read.
            ValueError: the passphrase or the key is wrong.
        """
        word = (passphrase or self.path / "root.passphrase").read_bytes().strip()
        key = load_pem_private_key((self.path / "root.key").read_bytes(), word)
        certificate = x509.load_pem_x509_certificate((self.path / "root.pem").read_bytes())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("root.key is not the key of root.pem")
        return CertifiedKey(key, certificate)

    def write_for_gateways(self, issuing: CertifiedKey, root: x509.Certificate) -> None:
        """Write the gateway's file: key first, then the certificates up to the root. Raises OSError."""
        key = issuing.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_file(self.for_gateways, key + pem([issuing.certificate, root]), KEY_MODE)

    def set_aside(self, now: Instant, *, root: bool) -> Path:
        """Move what is about to be replaced to a folder below `old`, and return that. Raises OSError."""
        (self.path / OLD).mkdir(mode=0o700, exist_ok=True)
        folder = self.path / OLD / _stamp(now)
        folder.mkdir(mode=0o700)
        for name in (*(_ROOT_FILES if root else ()), AUTHORITY):
            if (self.path / name).exists():
                (self.path / name).rename(folder / name)
        return folder


def install(made: AuthorityFolder, confdir: Path, now: Instant) -> Path | None:
    """Put the gateway's file into a gateway's folder; the one before it is kept there, and returned. Raises OSError.

    By root it is made a file of the folder's owner, as which tokgate runs.
    """
    secure_folder(confdir)
    target, kept = confdir / AUTHORITY, None
    content = made.for_gateways.read_bytes()
    if target.exists() and target.read_bytes() != content:
        kept = confdir / f"{AUTHORITY}.{_stamp(now)}"
        target.rename(kept)
        kept.chmod(KEY_MODE)
    replace_file(target, content, KEY_MODE)
    if os.geteuid() == 0:
        owner = confdir.stat()
        os.chown(target, owner.st_uid, owner.st_gid)
    return kept


def _stamp(now: Instant) -> str:
    return now.format_iso(unit="millisecond", basic=True)


def certificates_at(path: Path) -> Sequence[x509.Certificate]:
    """The certificates of a PEM file, or of the gateway's file in a folder.

    Raises:
        OSError: it can't be read.
        ValueError: it holds no certificate.
    """
    return x509.load_pem_x509_certificates((path / AUTHORITY if path.is_dir() else path).read_bytes())
