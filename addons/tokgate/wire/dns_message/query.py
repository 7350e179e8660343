"""A client's message: one question, and what its OPT record says of the client."""
# mypy: disallow-untyped-calls=False

import struct
from dataclasses import dataclass
from typing import Final

import dns.rdatatype
from dns.opcode import Opcode
from dns.rcode import Rcode

from tokgate.wire.dns_message.records import (
    HEADER,
    OPT,
    QUESTION,
    RESPONSE,
    names_in_text,
    read_labels,
    read_records,
)

_WITH_A_QUESTION: Final = (Opcode.QUERY, Opcode.NOTIFY, Opcode.UPDATE)
"""Kinds of message whose question says what they are about (RFC 1035, RFC 1996, RFC 2136)."""
SMALLEST: Final = 512
"""Octets that every client takes over UDP (RFC 1035 §4.2.1)."""
DNSSEC_OK: Final = 0x8000
COPIED: Final = 0x7910  # opcode, RD (RFC 1035 §4.1.1) and CD (RFC 4035 §3.2.2) come back as they were sent
_TRANSFERS: Final = (251, 252)  # IXFR, AXFR


class QueryError(ValueError):
    """A message that asks nothing that could be decided. `reply` is what it is answered with; None: nothing."""

    def __init__(self, problem: str, reply: bytes | None = None) -> None:
        super().__init__(problem)
        self.reply: Final = reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A client's DNS message with one question."""

    id: int
    flags: int
    question: bytes
    """The question as it was sent: name, type, class."""
    name: str
    """The name in text without the last dot, `""` for the root; octets that no host name has are escaped."""
    below: str | None
    """If the name has such octets: the part of it after them, if any. Its owner answers for all below it."""
    type: int
    class_: int
    payload: int | None
    """The octets that the client takes over UDP, as its OPT record says (RFC 6891); None without such a record."""
    dnssec_ok: bool

    @property
    def opcode(self) -> Opcode:
        """The OPCODE of the header (RFC 1035 §4.1.1)."""
        return Opcode(self.flags >> 11 & 0xF)

    @property
    def type_name(self) -> str:
        """The mnemonic of the type, such as `HTTPS`; `TYPE65280` without one (RFC 3597)."""
        return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(self.type))

    @property
    def transfers(self) -> bool:
        """Whether the answer is a zone, in many messages."""
        return self.type in _TRANSFERS


def read_query(data: bytes) -> Query:
    """Read a client's message. Raises QueryError."""
    if len(data) < HEADER.size:
        raise QueryError("shorter than a header")
    number, flags, questions, *counts = HEADER.unpack_from(data)
    if flags & RESPONSE:
        raise QueryError("a response, and no query")  # answering could go on for ever
    if flags >> 11 & 0xF not in _WITH_A_QUESTION:
        raise QueryError("another kind of message", _bare(number, flags, Rcode.NOTIMP))
    malformed = _bare(number, flags, Rcode.FORMERR)
    if questions != 1:  # RFC 9619: more than one was never defined; none asks nothing
        raise QueryError(f"{questions} questions", malformed)
    try:
        labels, end = read_labels(data, HEADER.size)
        kind, class_ = QUESTION.unpack_from(data, end)
        end += QUESTION.size
        options = [record for record in read_records(data, end, sum(counts)) if record.type == OPT]
    except (ValueError, IndexError, struct.error) as error:
        raise QueryError(f"malformed: {error}", malformed) from error
    if len(options) > 1:  # RFC 6891 §6.1.1
        raise QueryError("more than one OPT record", malformed)
    name, *below = names_in_text(labels)
    return Query(
        id=number,
        flags=flags,
        question=data[HEADER.size : end],
        name=name,
        below=below[0] if below else None,
        type=kind,
        class_=class_,
        payload=max(QUESTION.unpack_from(data, options[0].at)[1], SMALLEST) if options else None,
        dnssec_ok=bool(options) and bool(options[0].ttl & DNSSEC_OK),
    )


def _bare(number: int, flags: int, rcode: Rcode) -> bytes:
    return HEADER.pack(number, RESPONSE | flags & COPIED | rcode, 0, 0, 0, 0)
