"""Timestamps of checkpoints by a third party (RFC 3161), so that not even the key's owner can date a log back.

A checkpoint is a file of one line, which OpenTimestamps can stamp as it is; its timestamp is a file beside it.
"""

import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography.x509 import Certificate, load_pem_x509_certificates
from whenever import Instant

from tokgate.blocklog.integrity.checkpoint import Checkpoint, checkpoint_of
from tokgate.blocklog.read.file_order import LONGEST_LINE, OpenLog, decode_strictly, in_order
from tokgate.blocklog.read.reader import open_log
from tokgate.blocklog.records.record import EventAction, text_at, value_at

if TYPE_CHECKING:
    from rfc3161_client.tsp import TimeStampResponse

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
        parsed = decode_timestamp_response(response)
    except ValueError as error:
        raise NoTimestamp(f"the answer is no timestamp: {error}") from error
    if parsed.status not in (0, 1):  # granted, granted with modifications
        raise NoTimestamp(f"the authority refused: {' '.join(parsed.status_string) or f'status {parsed.status}'}")
    return parsed
