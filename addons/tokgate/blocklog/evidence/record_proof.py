"""The proof of one record: the record, its way through the Merkle tree, and the checkpoint that signs the tree's root.

It shows no other record. docs/proof.md has a verifier that needs nothing of tokgate.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.integrity.branches import Branches, Node
from tokgate.blocklog.integrity.checkpoint import Checkpoint, checkpoint_of
from tokgate.blocklog.integrity.merkle import audit_path, tree_root
from tokgate.blocklog.read.file_order import LONGEST_LINE, OpenLog, decode_strictly, in_order
from tokgate.blocklog.read.reader import open_log
from tokgate.blocklog.records.chain import NO_HASH, Head, proper_hash, stated_head
from tokgate.blocklog.records.record import EventAction, Record, text_at, value_at

FORMAT: Final = "tokgate record proof, version 1"
_CHUNK: Final = 1 << 20


class NoProof(ValueError):
    """A record can't be proved, and why."""


@dataclass(slots=True)
class _Found:
    """The record to be proved."""

    record: Record
    head: Head
    before: str


def fingerprint(key: str) -> str:
    """SHA-256 over a raw public key, in hexadecimal; `key` is in base64 as in checkpoints."""
    return hashlib.sha256(base64.b64decode(key)).hexdigest()


def prove(event: str, files: Sequence[Path], opener: OpenLog = open_log) -> dict[str, Any]:
    """The proof of the record with an `event.id`, as JSON. Raises NoProof, OSError, UNREADABLE."""
    ordered = in_order(files, opener)
    holding = [at for at, path in enumerate(ordered) if _holds(path, event.encode(), opener)]
    if not holding:
        raise NoProof(f"no record of these files has the id {event}")
    for first in dict.fromkeys((max(0, holding[-1] - 1), 0)):  # the tree may begin in the file before
        proof = _Search(event).run(ordered[first:], opener)
        if proof is not None:
            return proof
    raise NoProof(f"no checkpoint with a tree covers the record {event}: its chain isn't whole here")


class _Search:
    """Reads files until a checkpoint covers the record."""

    def __init__(self, event: str) -> None:
        self._event: Final = event
        self._chains: Final[dict[str, Branches]] = {}
        self._found: _Found | None = None

    def run(self, files: Sequence[Path], opener: OpenLog) -> dict[str, Any] | None:
        """The proof; None if the records before it are missing here. Raises NoProof."""
        for path in files:
            with opener(path) as stream:
                while raw := stream.readline(LONGEST_LINE):
                    record, _ = decode_strictly(raw)
                    head = None if record is None else stated_head(record)
                    if record is None or head is None:
                        continue
                    self._add((str(path), 0), record, head)  # a proof names no line
                    if text_at(record, "event", "action") != EventAction.LOG_CHECKPOINT:
                        continue
                    if self._found is not None and self._found.head.chain == head.chain:
                        return self._proof(self._found, record, head)
                    for _ in self._chains[head.chain].settle():
                        pass
        if self._found is not None:
            raise NoProof(f"no checkpoint covers the record {self._event} yet: one follows within a minute")
        return None

    def _add(self, place: tuple[str, int], record: Record, head: Head) -> None:
        branches = self._chains.get(head.chain)
        if branches is None:
            branches = self._chains[head.chain] = Branches(Node(head, place))
            before = NO_HASH if head.sequence == 1 else text_at(record, "tokgate", "continues", "hash")
        else:
            parent = branches.rival(record, head) or branches.head
            before = parent.head.hash
            branches.add(head, place, parent)
        if text_at(record, "event", "id") == self._event:
            if before is None or proper_hash(before, record) != head.hash:
                raise NoProof(f"the record {self._event} does not fit those before it: see tokgate log verify")
            self._found = _Found(record, head, before)

    def _proof(self, found: _Found, record: Record, head: Head) -> dict[str, Any] | None:
        checkpoint = checkpoint_of(head.chain, value_at(record, "tokgate", "checkpoint"))
        if checkpoint is None or checkpoint.tree is None or found.head.sequence < checkpoint.tree.first:
            raise NoProof(f"the checkpoint after the record {self._event} has no tree that covers it")
        leaves = self._chains[head.chain].hashes(checkpoint.tree.first)
        if leaves is None:
            return None
        index = found.head.sequence - checkpoint.tree.first
        fits = tree_root(leaves).hex() == checkpoint.tree.root and leaves[index].hex() == found.head.hash
        if not fits or not checkpoint.genuine:
            raise NoProof(f"the checkpoint after the record {self._event} signs other records: see tokgate log verify")
        return _as_json(found, checkpoint, leaves, index)


def _as_json(found: _Found, checkpoint: Checkpoint, leaves: Sequence[bytes], index: int) -> dict[str, Any]:
    path = [step.hex() for step in audit_path(leaves, index)]
    return {
        "format": FORMAT,
        "record": found.record,
        "previous": found.before,
        "tree": {"index": index, "size": len(leaves), "path": path},
        "checkpoint": {"chain": checkpoint.head.chain, **checkpoint.as_json()},
        "fingerprint": fingerprint(checkpoint.key),
    }


def _holds(path: Path, wanted: bytes, opener: Callable[[Path], Any]) -> bool:
    """Whether a file holds some octets, read without splitting it into lines."""
    with opener(path) as stream:
        tail = b""
        while chunk := stream.read(_CHUNK):
            if wanted in tail + chunk:
                return True
            tail = chunk[-len(wanted) :]
    return False
