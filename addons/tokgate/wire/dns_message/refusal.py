"""Answers of our own: refusals and failures without records, with an extended error (RFC 8914)."""

import struct
from typing import Final, NamedTuple

from tokgate.wire.dns_message.query import COPIED, DNSSEC_OK, EDE, Query, Rcode
from tokgate.wire.dns_message.records import HEADER, OPT, RECORD, RESPONSE

_SOA: Final = 6
_IN: Final = 1
_RECURSION_AVAILABLE: Final = 0x0080
_PAYLOAD: Final = 1232
"""Octets of UDP that we say we take: they fit every path unfragmented (DNS flag day 2020)."""
_EDE_TEXT: Final = 160
"""Octets of explanation: a refusal of the longest name still fits into 512."""
_FIRST_NAME: Final = b"\xc0\x0c"
"""A pointer to the name of the question."""
# There is no zone here. Names as in the negative answers of other resolvers' local zones.
_NOBODY: Final = b"\x09localhost\x00" + b"\x06nobody\x07invalid\x00" + struct.pack("!IIII", 1, 3600, 1200, 604800)


class ExtendedError(NamedTuple):
    """An Extended DNS Error (RFC 8914): its code, and words for people."""

    code: int
    text: str
    structured: tuple[str, ...] = ()
    """JSON in place of the words, from the longest to the shortest: the first that fits is sent, else no text."""


def refusal(query: Query, rcode: Rcode, *, ttl: int | None = None, error: ExtendedError | None = None) -> bytes:
    """A reply without records of the name. `ttl` in seconds: for how long it may be remembered (RFC 2308); None: not.

    The extended error goes only to those who sent an OPT record (RFC 8914 §3).
    """
    authority = b""
    if ttl is not None:
        zone = _NOBODY + struct.pack("!I", ttl)
        authority = _FIRST_NAME + RECORD.pack(_SOA, _IN, ttl, len(zone)) + zone
    option = b""
    if query.payload is not None:
        room = min(query.payload, _PAYLOAD) - HEADER.size - len(query.question) - len(authority)
        option = options(query, error, room)
    head = HEADER.pack(
        query.id, RESPONSE | _RECURSION_AVAILABLE | query.flags & COPIED | rcode, 1, 0, bool(authority), bool(option)
    )
    return head + query.question + authority + option


def options(query: Query, error: ExtendedError | None, room: int = 0) -> bytes:
    """An OPT record of our own, of at most `room` octets where it has structured text.

    What a client said in its own is not sent back.
    """
    option = b""
    if error is not None:
        text = _extra_text(error, room - len(b"\x00") - RECORD.size - 6)
        option = struct.pack("!HHH", EDE, 2 + len(text), error.code) + text
    return b"\x00" + RECORD.pack(OPT, _PAYLOAD, DNSSEC_OK if query.dnssec_ok else 0, len(option)) + option


def _extra_text(error: ExtendedError, room: int) -> bytes:
    if error.structured:
        return next((text for said in error.structured if len(text := said.encode()) <= room), b"")
    return error.text.encode()[:_EDE_TEXT].decode(errors="ignore").encode()
