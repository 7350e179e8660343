"""Checkpoints: a signature (Ed25519, RFC 8032) over a chain's head, which nobody without the key can make. No I/O."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tokgate.blocklog.chain import Head, canonical, is_hash

MARK: Final = "tokgate-checkpoint "
"""Stands before a checkpoint where it is one message among others."""
_PURPOSE: Final = "tokgate block log checkpoint, version 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A chain's head at an instant, signed. Keys are raw public keys in base64.

    `epoch` counts the keys of a log that replaces its key; `next_key` is the one that will sign after this.
    """

    head: Head
    at: str
    epoch: int
    key: str
    next_key: str | None
    signature: str = ""

    def as_json(self) -> dict[str, Any]:
        """As it stands in a record, and in what is sent elsewhere (with `chain`)."""
        said: dict[str, Any] = {"sequence": self.head.sequence, "hash": self.head.hash, "at": self.at}
        said |= {"epoch": self.epoch, "key": self.key}
        if self.next_key is not None:
            said["next_key"] = self.next_key
        return said | {"signature": self.signature}

    def message(self) -> str:
        """The checkpoint as one line of text that `parse_checkpoints` finds again."""
        return MARK + json.dumps({"chain": self.head.chain, **self.as_json()}, separators=(",", ":"))

    @property
    def signed(self) -> bytes:
        """The octets that the signature is over: everything else, and what it is for."""
        said = self.as_json()
        del said["signature"]
        return canonical({"purpose": _PURPOSE, "chain": self.head.chain, **said})

    @property
    def genuine(self) -> bool:
        """Whether the signature is that of `key`."""
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(self.key, validate=True))
            public.verify(base64.b64decode(self.signature, validate=True), self.signed)
        except (InvalidSignature, ValueError):
            return False
        return True


def sign(private: Ed25519PrivateKey, head: Head, at: str, epoch: int, next_key: str | None = None) -> Checkpoint:
    """A checkpoint of a head."""
    bare = Checkpoint(head=head, at=at, epoch=epoch, key=key_text(private.public_key()), next_key=next_key)
    signature = base64.b64encode(private.sign(bare.signed)).decode()
    return Checkpoint(head=head, at=at, epoch=epoch, key=bare.key, next_key=next_key, signature=signature)


def key_text(public: Ed25519PublicKey) -> str:
    """A public key as checkpoints state it."""
    return base64.b64encode(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def checkpoint_of(chain: object, said: object) -> Checkpoint | None:
    """A checkpoint from JSON; None if it is none."""
    if not isinstance(said, dict) or not isinstance(chain, str):
        return None
    sequence, epoch, next_key = said.get("sequence"), said.get("epoch"), said.get("next_key")
    texts = [said.get(name) for name in ("at", "key", "signature")]
    if type(sequence) is not int or type(epoch) is not int or not is_hash(said.get("hash")):
        return None
    if not all(isinstance(text, str) for text in texts) or not isinstance(next_key, str | None):
        return None
    at, key, signature = map(str, texts)
    head = Head(chain, sequence, str(said["hash"]))
    return Checkpoint(head=head, at=at, epoch=epoch, key=key, next_key=next_key, signature=signature)


def parse_checkpoints(lines: Iterable[str]) -> Iterator[Checkpoint]:
    """The checkpoints in any text: syslog files, `journalctl` output, or nothing but checkpoints."""
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
