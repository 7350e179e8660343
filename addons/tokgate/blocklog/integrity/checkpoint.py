"""Checkpoints: Ed25519 signatures (RFC 8032) over the head of a chain, and the key that makes them.

The key is generated at the first start, in a file that only its owner may read: PEM (PKCS #8) after a line with the
key's epoch, which is how many keys came before. The public key lies beside it. A checkpoint also signs the root of a
Merkle tree (RFC 6962 §2.1) over hashes of records, so that one can be proved without showing the others.
"""

import base64
import hashlib
import hmac
import json
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
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
from tokgate.blocklog.paths import public_path_for
from tokgate.blocklog.records.chain import Head, canonical, is_hash


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle Tree Hash of at least one leaf."""
    level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        level = _above(level)
    return level[0]


def audit_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from a leaf to the root, from the leaf on (§2.1.1). Raises IndexError."""
    level, path = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves], []
    if not 0 <= index < len(level):
        raise IndexError(index)
    while len(level) > 1:
        if (beside := index ^ 1) < len(level):
            path.append(level[beside])
        level, index = _above(level), index // 2
    return path


def _above(level: list[bytes]) -> list[bytes]:
    """The next level; a last node without a neighbour moves up, which gives the tree of §2.1."""
    pairs = [hashlib.sha256(b"\1" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)]
    return [*pairs, level[-1]] if len(level) % 2 else pairs


MARK: Final = "tokgate-checkpoint "
"""Precedes a checkpoint in texts that hold other messages."""
_PURPOSE: Final = "tokgate block log checkpoint, version 1"


@dataclass(frozen=True, slots=True)
class Tree:
    """The Merkle root, in hexadecimal, over the hashes of all records from number `first` up to the one signed."""

    first: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A chain's head at an instant (`at`, RFC 3339), signed. Keys are raw public keys in base64.

    `epoch` counts the keys before this one in a log with forward security; `next_key` will sign the next checkpoint.
    """

    head: Head
    at: str
    epoch: int
    key: str
    next_key: str | None
    tree: Tree | None = None
    signature: str = ""

    def as_json(self) -> dict[str, Any]:
        """The value of `tokgate.checkpoint` in a record: without the chain's name."""
        fields: dict[str, Any] = {"sequence": self.head.sequence, "hash": self.head.hash, "at": self.at}
        fields |= {"epoch": self.epoch, "key": self.key}
        if self.next_key is not None:
            fields["next_key"] = self.next_key
        if self.tree is not None:
            fields["tree"] = {"first": self.tree.first, "root": self.tree.root}
        return fields | {"signature": self.signature}

    def message(self) -> str:
        """The checkpoint as one line of text, for outlets; `parse_checkpoints` reads it."""
        return MARK + json.dumps({"chain": self.head.chain, **self.as_json()}, separators=(",", ":"))

    @property
    def signed(self) -> bytes:
        """The octets that are signed: all other fields, and the signature's purpose."""
        fields = self.as_json()
        del fields["signature"]
        return canonical({"purpose": _PURPOSE, "chain": self.head.chain, **fields})

    @property
    def genuine(self) -> bool:
        """Whether the signature verifies with `key`."""
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.key))
            public.verify(base64.b64decode(self.signature, validate=True), self.signed)
        except (InvalidSignature, ValueError):
            return False
        return True


def sign(
    private: Ed25519PrivateKey, head: Head, at: str, epoch: int, next_key: str | None = None, tree: Tree | None = None
) -> Checkpoint:
    """Sign a chain's head; `at` is RFC 3339."""
    key = key_text(private.public_key())
    bare = Checkpoint(head=head, at=at, epoch=epoch, key=key, next_key=next_key, tree=tree)
    return replace(bare, signature=base64.b64encode(private.sign(bare.signed)).decode())


def key_text(public: Ed25519PublicKey) -> str:
    """A raw public key in base64, as in checkpoints."""
    return base64.b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def fingerprint(key: str) -> str:
    """SHA-256 over a raw public key, in hexadecimal; `key` is in base64 as in checkpoints."""
    return hashlib.sha256(base64.b64decode(key)).hexdigest()


def checkpoint_of(chain: object, fields: object) -> Checkpoint | None:
    """A checkpoint from the JSON of `as_json`, unverified; None if it has another shape."""
    if not isinstance(fields, dict) or not isinstance(chain, str):
        return None
    sequence, epoch, next_key = fields.get("sequence"), fields.get("epoch"), fields.get("next_key")
    texts = [fields.get(name) for name in ("at", "key", "signature")]
    if type(sequence) is not int or type(epoch) is not int or not is_hash(fields.get("hash")):
        return None
    if not all(isinstance(text, str) for text in texts) or not isinstance(next_key, str | None):
        return None
    at, key, signature = map(str, texts)
    tree = None
    if "tree" in fields:
        said = fields["tree"]
        if not isinstance(said, dict) or type(said.get("first")) is not int or not is_hash(said.get("root")):
            return None
        tree = Tree(said["first"], str(said["root"]))
    head = Head(chain, sequence, str(fields["hash"]))
    return Checkpoint(head=head, at=at, epoch=epoch, key=key, next_key=next_key, tree=tree, signature=signature)


def parse_checkpoints(lines: Iterable[str]) -> Iterator[Checkpoint]:
    """The checkpoints in any text, such as syslog files or `journalctl` output, unverified."""
    decoder = json.JSONDecoder()
    for line in lines:
        _, mark, rest = line.partition(MARK)
        if not mark:
            continue
        try:
            said, _ = decoder.raw_decode(rest.lstrip())
        except (ValueError, RecursionError):
            try:  # inside JSON text, as in `journalctl -o json`
                said, _ = decoder.raw_decode(rest.replace('\\"', '"').lstrip())
            except (ValueError, RecursionError):
                continue
        found = checkpoint_of(said.get("chain"), said) if isinstance(said, dict) else None
        if found is not None:
            yield found


_logger: Final = logging.getLogger(__name__)
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
        told = "the block log is signed with a new key, %s; keep its public part elsewhere, to verify with:\n%s"
        with suppress(RuntimeError):  # of mitmproxy's handler, whose event loop may be closed
            _logger.warning(told, path, public)

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
