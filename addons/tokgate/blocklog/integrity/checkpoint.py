"""Checkpoints: Ed25519 signatures (RFC 8032) over the head of a chain. No I/O."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tokgate.blocklog.records.chain import Head, canonical, is_hash

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
    tree = _tree(fields.get("tree"))
    if tree is None and "tree" in fields:
        return None
    head = Head(chain, sequence, str(fields["hash"]))
    return Checkpoint(head=head, at=at, epoch=epoch, key=key, next_key=next_key, tree=tree, signature=signature)


def _tree(fields: object) -> Tree | None:
    if not isinstance(fields, dict) or type(fields.get("first")) is not int or not is_hash(fields.get("root")):
        return None
    return Tree(fields["first"], str(fields["root"]))


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
