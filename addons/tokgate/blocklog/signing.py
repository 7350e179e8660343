"""The key that signs checkpoints: made at the first start, in a file that only its owner reads, replaced on request.

The file is PEM (PKCS #8) under a line that says how many keys there were before. The public part lies beside it.
"""

import errno
import logging
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

from tokgate.blocklog.chain import Head
from tokgate.blocklog.checkpoint import Checkpoint, key_text, sign

logger = logging.getLogger(__name__)

KEY_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644
_EPOCH: Final = "epoch: "


class KeyUnusable(OSError):
    """The key file holds no Ed25519 key, or others may read it."""


def key_path_for(log: Path) -> Path:
    """Where a log's key is unless stated otherwise: beside it, `block.key` for `block.ndjson`."""
    return log.with_suffix(".key")


def public_path_for(key: Path) -> Path:
    """Where a key's public part is."""
    return key.with_suffix(".pub")


class Signer:
    """Signs with the key in a file. With `evolving`, each key signs once and is then overwritten.

    Whoever takes such a key can't sign anything that came before: those keys are gone.
    """

    def __init__(self, path: Path, *, evolving: bool = False) -> None:
        """Read the key, or make one. Raises OSError."""
        self.path: Final = path
        self._evolving: Final = evolving
        self._next: Ed25519PrivateKey | None = None
        if path.exists():
            self._key, self._epoch = read_key(path)
            return
        self._key, self._epoch = Ed25519PrivateKey.generate(), 0
        replace_secret(path, _pem(self._key, 0))
        public = public_pem(self._key.public_key())
        replace_file(public_path_for(path), public.encode(), PUBLIC_MODE)
        logger.warning(
            "the block log is signed with a new key, %s; keep its public part elsewhere, to verify with:\n%s",
            path,
            public,
        )

    def sign(self, head: Head, at: str) -> Checkpoint:
        """A checkpoint. With an evolving key, `used` has to be called once it is safe in the log."""
        if not self._evolving:
            return sign(self._key, head, at, self._epoch)
        if self._next is None:
            self._next = Ed25519PrivateKey.generate()
        return sign(self._key, head, at, self._epoch, key_text(self._next.public_key()))

    def used(self, checkpoint: Checkpoint) -> None:
        """The log has this checkpoint on the disk: the key that it announces takes over. Raises OSError."""
        if self._next is None or checkpoint.next_key != key_text(self._next.public_key()):
            return
        replace_secret(self.path, _pem(self._next, self._epoch + 1))
        self._key, self._next, self._epoch = self._next, None, self._epoch + 1


def read_key(path: Path) -> tuple[Ed25519PrivateKey, int]:
    """A private key and its epoch. Raises OSError, KeyUnusable."""
    if path.stat().st_mode & 0o077:
        raise KeyUnusable(f"{path} may be read by others: chmod 600 it, or make a new key")
    text = path.read_text("ascii", "replace")
    first, _, rest = text.partition("\n")
    try:
        epoch = int(first.removeprefix(_EPOCH)) if first.startswith(_EPOCH) else 0
        key = load_pem_private_key((rest if first.startswith(_EPOCH) else text).encode(), None)
    except (ValueError, TypeError) as error:
        raise KeyUnusable(f"{path} is no key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"{path} is no Ed25519 key")
    return key, epoch


def read_public_key(path: Path) -> str:
    """A public key as checkpoints state it. Raises OSError, KeyUnusable."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise KeyUnusable(f"{path} is no public key: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable(f"{path} is no Ed25519 key")
    return key_text(key)


def public_pem(public: Ed25519PublicKey) -> str:
    """A public key as a PEM file holds it."""
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _pem(key: Ed25519PrivateKey, epoch: int) -> bytes:
    return f"{_EPOCH}{epoch}\n".encode() + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def replace_secret(path: Path, content: bytes) -> None:
    """As `replace_file`, for its owner only; what the file held is overwritten where it lay.

    Copies that a file system, a disk or a backup keeps by itself remain.
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
    """The file that will be replaced, if it is one that may be overwritten."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Replace a file as a whole, on the disk before this returns. A symbolic link in its place is replaced too."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, "no room for all of it", str(draft))
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
