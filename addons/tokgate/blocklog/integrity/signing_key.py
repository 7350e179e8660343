"""The key that signs checkpoints: generated at the first start, in a file that only its owner may read.

The file is PEM (PKCS #8) after a line with the key's epoch: how many keys came before. The public key lies beside it.
"""

import hashlib
import hmac
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.integrity.checkpoint import Checkpoint, Tree, key_text, sign
from tokgate.blocklog.paths import public_path_for
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.warnings import warn

KEY_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
_EPOCH: Final = "epoch: "
_AFTER: Final = "\nsecret: "


class KeyUnusable(OSError):
    """The key file holds no Ed25519 key, or others may read it."""


class Signer:
    """Signs with the key in a file. With `evolving` (forward security), each key signs once and is then overwritten.

    A stolen evolving key can't sign earlier records, since their keys no longer exist.
    """

    def __init__(self, path: Path, *, evolving: bool = False) -> None:
        """Read the key, or generate one if the file doesn't exist. Raises OSError, KeyUnusable."""
        self.path: Final = path
        self._evolving: Final = evolving
        self._next: Ed25519PrivateKey | None = None
        if path.exists():
            self._key, self._epoch = read_key(path)
            self.secret = _secret_in(path.read_text("ascii", "replace")) or _secret_of(self._key)
            return
        self._key, self._epoch = Ed25519PrivateKey.generate(), 0
        self.secret = _secret_of(self._key)
        """Authenticates what lies beside the log. The same for all keys that follow each other."""
        replace_secret(path, _pem(self._key, 0))
        public = public_pem(self._key.public_key())
        replace_file(public_path_for(path), public.encode(), PUBLIC_MODE)
        warn(
            "the block log is signed with a new key, %s; keep its public part elsewhere, to verify with:\n%s",
            path,
            public,
        )

    @property
    def public(self) -> str:
        """The present key's public part, in base64 as in checkpoints."""
        return key_text(self._key.public_key())

    def sign(self, head: Head, at: str, tree: Tree | None = None) -> Checkpoint:
        """A checkpoint of a head. With an evolving key, call `used` once the checkpoint is on the disk."""
        if not self._evolving:
            return sign(self._key, head, at, self._epoch, tree=tree)
        if self._next is None:
            self._next = Ed25519PrivateKey.generate()
        return sign(self._key, head, at, self._epoch, key_text(self._next.public_key()), tree)

    def used(self, checkpoint: Checkpoint) -> None:
        """Replace the key by the one that this checkpoint announces, now that it is on the disk. Raises OSError."""
        if self._next is None or checkpoint.next_key != key_text(self._next.public_key()):
            return
        replace_secret(self.path, _pem(self._next, self._epoch + 1, self.secret))
        self._key, self._next, self._epoch = self._next, None, self._epoch + 1


def read_key(path: Path) -> tuple[Ed25519PrivateKey, int]:
    """A private key and its epoch. Raises OSError, KeyUnusable."""
    if path.stat().st_mode & 0o077:
        raise KeyUnusable(f"{path} may be read by others: chmod 600 it, or make a new key")
    text = path.read_text("ascii", "replace")
    first, _, rest = text.partition("\n")
    try:
        epoch = int(first.removeprefix(_EPOCH)) if first.startswith(_EPOCH) else 0
        key = load_pem_private_key((rest if first.startswith(_EPOCH) else text).partition(_AFTER)[0].encode(), None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"{path} is no key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is no Ed25519 key")
    return key, epoch


def read_public_key(path: Path) -> str:
    """A public key from a PEM file, in base64 as in checkpoints. Raises OSError, KeyUnusable."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise KeyUnusable(f"{path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable(f"{path} is no Ed25519 key")
    return key_text(key)


def public_pem(public: Ed25519PublicKey) -> str:
    """A public key in PEM (SubjectPublicKeyInfo)."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _pem(key: Ed25519PrivateKey, epoch: int, secret: bytes | None = None) -> bytes:
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    after = "" if secret is None else f"{_AFTER[1:]}{secret.hex()}\n"
    return f"{_EPOCH}{epoch}\n".encode() + text + after.encode()


def _secret_of(key: Ed25519PrivateKey) -> bytes:
    return hmac.digest(key.private_bytes_raw(), b"tokgate block log heads, version 1", hashlib.sha256)


def _secret_in(text: str) -> bytes:
    """The secret in a key file, which a key that follows another one has from it; empty if there is none."""
    try:
        return bytes.fromhex(text.partition(_AFTER)[2])
    except ValueError:
        return b""


def replace_secret(path: Path, content: bytes) -> None:
    """Replace a file with mode 0600, and overwrite its old content in place. Raises OSError.

    Copies in file systems, disks and backups remain.
    """
    old = _open_old(path)
    try:
        replace_file(path, content, KEY_MODE)
        if old is not None:
            os.pwrite(old, bytes(os.fstat(old).st_size), 0)
            os.fsync(old)
    finally:
        if old is not None:
            os.close(old)


def _open_old(path: Path) -> int | None:
    """A descriptor of the old file; None if it isn't a regular file that may be overwritten."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None
