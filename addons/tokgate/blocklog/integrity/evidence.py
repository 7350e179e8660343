"""What shows others that a record stands in the log: a proof by its checkpoint, and a timestamp by a third party.

A proof is the record, its way through the Merkle tree, and the checkpoint that signs the root. It shows no other
record; docs/proof.md has a verifier that needs nothing of tokgate. A timestamp (RFC 3161) of a checkpoint keeps the
owner of the key, too, from dating a log back. A checkpoint is a file of one line; OpenTimestamps can stamp it as it is.
"""

import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from cryptography.x509 import Certificate, load_pem_x509_certificates
from whenever import Instant

from tokgate.blocklog.integrity.chain_state import Chain
from tokgate.blocklog.integrity.checkpoint import Checkpoint, audit_path, checkpoint_of, fingerprint
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.read.reader import LONGEST_LINE, OpenLog, decode_strictly, holds, in_order, open_log
from tokgate.blocklog.records.chain import Head, proper_hash
from tokgate.blocklog.records.record import EventAction, Record, text_at, value_at

if TYPE_CHECKING:
    from rfc3161_client.tsp import TimeStampResponse

FORMAT: Final = "tokgate record proof, version 1"


class NoProof(ValueError):
    """A record can't be proved, and why."""


class _Enough(Exception):
    """All is proved: the rest of the log need not be read."""


def prove(
    event: str, files: Sequence[Path], verifier_of: Callable[[Sequence[Path]], Verifier] = lambda _: Verifier()
) -> dict[str, Any]:
    """The proof of the record with an `event.id`, as JSON: verified as `tokgate log verify` does, by the same keys.

    Raises NoProof, OSError, UNREADABLE.
    """
    opener = verifier_of(files).opener
    ordered = in_order(files, opener)
    holding = [at for at, path in enumerate(ordered) if holds(path, event.encode(), opener)]
    problems = {event: f"no record of these files has the id {event}"}
    starts = (max(0, holding[-1] - 1), 0) if holding else ()  # a tree may begin in the file before
    for first in dict.fromkeys(starts):
        proofs = prove_all({event}, ordered[first:], verifier_of(ordered[first:]), problems)
        if event in proofs:
            return proofs[event]
    raise NoProof(problems[event])


def prove_all(
    events: Set[str], files: Sequence[Path], verifier: Verifier, problems: dict[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """The proofs of the records with these ids, by id, read in one pass; `problems` gets why one has none.

    Raises OSError, UNREADABLE.
    """
    why, proofs = {} if problems is None else problems, dict[str, dict[str, Any]]()
    waiting: dict[str, dict[str, tuple[Record, Head, str]]] = {}

    def met(record: Record, head: Head, before: str | None) -> None:
        event = text_at(record, "event", "id")
        if event is None or event not in events:
            return
        of_chain = waiting.setdefault(head.chain, {})
        of_chain.pop(event, None)
        why[event] = f"the record {event} does not fit those before it: see tokgate log verify"
        if before is not None and proper_hash(before, record) == head.hash:
            of_chain[event] = record, head, before
            why[event] = f"no checkpoint covers the record {event} yet: one follows within a minute"

    def signed(chain: Chain, checkpoint: Checkpoint, wrong: str | None) -> None:
        covered = waiting.pop(chain.head.chain, {})
        leaves = None if not covered or checkpoint.tree is None else chain.recent.hashes(checkpoint.tree.first)
        for event, (record, head, before) in covered.items():
            index = _index(event, head, checkpoint, leaves, wrong)
            if isinstance(index, str) or leaves is None:
                why[event] = str(index)
                continue
            path = [step.hex() for step in audit_path(leaves, index)]
            proofs[event] = {
                "format": FORMAT,
                "record": record,
                "previous": before,
                "tree": {"index": index, "size": len(leaves), "path": path},
                "checkpoint": {"chain": checkpoint.head.chain, **checkpoint.as_json()},
                "fingerprint": fingerprint(checkpoint.key),
            }
        if len(proofs) == len(events):
            raise _Enough

    verifier.met, verifier.signed = met, signed
    with suppress(_Enough):
        for _ in verifier.run(files):
            pass
    return proofs


def _index(event: str, head: Head, checkpoint: Checkpoint, leaves: list[bytes] | None, wrong: str | None) -> int | str:
    """Which leaf of a checkpoint's tree a record is; else why that proves nothing."""
    if checkpoint.tree is None or head.sequence < checkpoint.tree.first:
        return f"the checkpoint after the record {event} has no tree that covers it"
    if leaves is None:
        return f"no checkpoint with a tree covers the record {event}: its chain isn't whole here"
    index = head.sequence - checkpoint.tree.first
    if wrong is None and leaves[index].hex() == head.hash:
        return index
    what = f"the checkpoint after the record {event} signs other records: see tokgate log verify"
    return what if wrong is None else f"{what} ({wrong})"


TIMEOUT: Final = 30.0
"""Seconds for the authority's answer."""
_MOST: Final = 1 << 20
_TYPES: Final = ("application/timestamp-query", "application/timestamp-reply")


class NoTimestamp(OSError):
    """The authority gave no timestamp, or one that doesn't verify."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A verified timestamp: the file existed then; `serial` is the authority's number for it."""

    at: Instant
    serial: int


def stamp(content: bytes, url: str) -> bytes:
    """The authority's response for some content (RFC 3161 §3.4, over HTTP). Raises NoTimestamp."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise NoTimestamp(f"{url} is no http or https URL")
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder  # of an extra

    request = TimestampRequestBuilder().data(content).hash_algorithm(HashAlgorithm.SHA256).build()
    ask, answered = _TYPES
    wanted = urllib.request.Request(url, request.as_bytes(), {"Content-Type": ask, "Accept": answered})  # noqa: S310
    try:
        with urllib.request.urlopen(wanted, timeout=TIMEOUT) as response:  # noqa: S310
            octets: bytes = response.read(_MOST)
    except (OSError, HTTPException) as error:
        raise NoTimestamp(f"{url} gave no timestamp: {error}") from error
    parsed = _parsed(octets)
    said = parsed.tst_info
    if (said.nonce, said.message_imprint.message) != (request.nonce, request.message_imprint.message):
        raise NoTimestamp(f"{url} answered to something else than was asked")
    return octets


def verify_stamp(content: bytes, response: bytes, roots: Iterable[Certificate]) -> Timestamp:
    """The timestamp of some content, whose certificates lead to one of `roots`. Raises NoTimestamp."""
    from rfc3161_client import VerifierBuilder
    from rfc3161_client.errors import VerificationError

    parsed, builder = _parsed(response), VerifierBuilder()
    for root in roots:
        builder = builder.add_root_certificate(root)
    try:
        if not builder.build().verify_message(parsed, content):
            raise NoTimestamp("the timestamp is of something else")
    except (VerificationError, ValueError) as error:
        raise NoTimestamp(f"the timestamp does not verify: {error}") from error
    return Timestamp(Instant.from_timestamp(parsed.tst_info.gen_time.timestamp()), parsed.tst_info.serial_number)


def certificates_in(path: Path) -> list[Certificate]:
    """The certificates in a PEM file. Raises OSError, NoTimestamp."""
    try:
        return load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise NoTimestamp(f"{path} holds no certificate: {error}") from error


def last_checkpoint(files: Iterable[Path], opener: OpenLog = open_log) -> Checkpoint | None:
    """The last genuine checkpoint in the files that hold any. Raises OSError, UNREADABLE."""
    for path in reversed(in_order(files, opener)):
        latest = None
        with opener(path) as stream:
            while raw := stream.readline(LONGEST_LINE):
                if b'"log-checkpoint"' in raw:
                    latest = raw
        record, _ = (None, None) if latest is None else decode_strictly(latest)
        if text_at(record, "event", "action") == EventAction.LOG_CHECKPOINT:
            found = checkpoint_of(text_at(record, "tokgate", "chain"), value_at(record, "tokgate", "checkpoint"))
            if found is not None and found.genuine:
                return found
    return None


def _parsed(response: bytes) -> "TimeStampResponse":
    from rfc3161_client import decode_timestamp_response

    try:
        parsed = decode_timestamp_response(_in_der_order(response))
    except ValueError as error:
        raise NoTimestamp(f"the answer is no timestamp: {error}") from error
    if parsed.status not in (0, 1):  # granted, granted with modifications
        raise NoTimestamp(f"the authority refused: {' '.join(parsed.status_string) or f'status {parsed.status}'}")
    return parsed


_CERTIFICATES: Final = (0, 1, 1, 0, 3)
"""The way to SignedData.certificates in a TimeStampResp (RFC 3161 §2.4.2, RFC 5652 §5.1), as indices of elements."""


def _in_der_order(response: bytes) -> bytes:
    """The response with its certificates in the order of DER (X.690 §11.6), in which openssl does not write a chain.

    No signature covers their order.
    """
    tag, start, end = 0, 0, len(response)
    for index in _CERTIFICATES:
        found = list(_elements(response, start, end))
        if index >= len(found):
            return response
        tag, start, end = found[index]
    if response[tag] != 0xA0:  # noqa: PLR2004  ([0] IMPLICIT: there are certificates)
        return response
    each = sorted(response[first:last] for first, _, last in _elements(response, start, end))
    return response[:start] + b"".join(each) + response[end:]


def _elements(octets: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Where each element of some DER begins, where its content does, and where both end."""
    while start + 1 < end:
        length, content = octets[start + 1], start + 2
        if length > 0x7F:  # noqa: PLR2004  (the long form)
            content += length & 0x7F
            length = int.from_bytes(octets[start + 2 : content])
        yield start, content, min(content + length, end)
        start = content + length
