"""The hash chain: each record holds its number and a hash over itself and the previous hash. No I/O.

`event.hash` is SHA-256 over the previous record's hash, as 32 octets, and the canonical JSON of the record without its
own `event.hash`. A chain's first record has `event.sequence` 1, and 32 zero octets in place of a previous hash.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from tokgate.blocklog.records.record import Record

NO_HASH: Final = "0" * 64
"""The previous hash of a chain's first record."""

_canonical: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a chain: which chain, its number, its hash in hexadecimal."""

    chain: str
    sequence: int = 0
    hash: str = NO_HASH


def canonical(value: object) -> bytes:
    """The JSON Canonicalization Scheme (RFC 8785), so that equal content gives equal octets.

    For what records hold: keys are ASCII, numbers are integers or have a few decimals. Raises TypeError or ValueError
    for what JSON can't represent.
    """
    return _canonical.encode(value).encode("utf-8", "backslashreplace")


def link(head: Head, record: Record) -> tuple[Record, Head]:
    """The record as the next of the chain, and the chain's new head. Raises as `canonical` does."""
    sequence = head.sequence + 1
    event = {**record.get("event", {}), "sequence": sequence}
    event.pop("hash", None)
    linked = {**record, "event": event, "tokgate": {**record.get("tokgate", {}), "chain": head.chain}}
    event["hash"] = _digest(head.hash, canonical(linked))
    return linked, Head(head.chain, sequence, event["hash"])


def stated_head(record: Record) -> Head | None:
    """The chain, number and hash that a record states, unverified; None if it belongs to no chain."""
    event, own = record.get("event"), record.get("tokgate")
    if not isinstance(event, dict) or not isinstance(own, dict):
        return None
    sequence, digest, chain = event.get("sequence"), event.get("hash"), own.get("chain")
    if type(sequence) is not int or sequence < 1 or not isinstance(chain, str) or not is_hash(digest):
        return None
    return Head(chain, sequence, str(digest))


def proper_hash(before: str, record: Record) -> str | None:
    """The hash that a record must have after one with the hash `before`; None if it has no canonical form."""
    event = {key: value for key, value in record["event"].items() if key != "hash"}
    try:
        return _digest(before, canonical({**record, "event": event}))
    except (TypeError, ValueError, RecursionError):
        return None


def is_hash(value: object) -> bool:
    """Whether this is a SHA-256 in lower-case hexadecimal."""
    return isinstance(value, str) and len(value) == len(NO_HASH) and not value.strip("0123456789abcdef")


def _digest(before: str, content: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(before) + content).hexdigest()
