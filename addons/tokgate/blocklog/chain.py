"""The hash chain: each record carries its number and a hash over itself and the hash before it. Pure.

`event.hash` is SHA-256 over the hash of the record before, as 32 octets, and the canonical JSON of the record without
its own `event.hash`. A chain's first record has the sequence 1, and 32 zero octets before it.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from tokgate.blocklog.document import Record

NO_HASH: Final = "0" * 64
"""What stands before a chain's first record."""

_canonical: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain: which chain, its number, its hash in hexadecimal."""

    chain: str
    sequence: int = 0
    hash: str = NO_HASH


def canonical(value: object) -> bytes:
    """JSON without spaces, keys sorted, in UTF-8: the same octets for the same content, whoever wrote it.

    Raises TypeError or ValueError for what JSON can't say.
    """
    return _canonical.encode(value).encode("utf-8", "backslashreplace")


def link(head: Head, record: Record) -> tuple[Record, Head]:
    """The record as the next one of the chain, and the head that it is then. Raises as `canonical` does."""
    sequence = head.sequence + 1
    event = {**record.get("event", {}), "sequence": sequence}
    event.pop("hash", None)
    linked = {**record, "event": event, "tokgate": {**record.get("tokgate", {}), "chain": head.chain}}
    event["hash"] = _digest(head.hash, canonical(linked))
    return linked, Head(head.chain, sequence, event["hash"])


def stated_head(record: Record) -> Head | None:
    """What a record says of itself; None if it belongs to no chain."""
    event, own = record.get("event"), record.get("tokgate")
    if not isinstance(event, dict) or not isinstance(own, dict):
        return None
    sequence, digest, chain = event.get("sequence"), event.get("hash"), own.get("chain")
    if type(sequence) is not int or sequence < 1 or not isinstance(chain, str) or not is_hash(digest):
        return None
    return Head(chain, sequence, str(digest))


def proper_hash(before: str, record: Record) -> str | None:
    """The hash that a record must have after one with the hash `before`; None if it can have none."""
    event = {key: value for key, value in record["event"].items() if key != "hash"}
    try:
        return _digest(before, canonical({**record, "event": event}))
    except (TypeError, ValueError, RecursionError):
        return None


def is_hash(value: object) -> bool:
    """Whether this is a SHA-256 in lower-case hexadecimal."""
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


def _digest(before: str, content: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(before) + content).hexdigest()
