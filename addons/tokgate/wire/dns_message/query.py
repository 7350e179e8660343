"""A client's message: one question, and what its OPT record says of the client; and the records of any message.

RFC 1035 §4; §4.2.2 for the length that goes before a message over TCP.
"""
# mypy: disallow-untyped-calls=False

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import dns.rdatatype
from dns.opcode import Opcode
from dns.rcode import Rcode

HEADER: Final = struct.Struct("!HHHHHH")
QUESTION: Final = struct.Struct("!HH")
POINTER: Final = struct.Struct("!H")
RECORD: Final = struct.Struct("!HHIH")
RESPONSE: Final = 0x8000
OPT: Final = 41
_POINTERS: Final = 32
"""Most pointers in one name, so that chains of them cost little. A compressed name has one, seldom a few."""

_readable = re.compile(rb"[A-Za-z0-9_-]+").fullmatch
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


class ResourceRecord(NamedTuple):
    """Where a record's parts are in its message: `end` is the first octet after it."""

    owner: int
    type: int
    ttl: int
    at: int
    """The offset of type, class, TTL and length."""
    end: int

    @property
    def data(self) -> int:
        """The offset of the record's RDATA in the message."""
        return self.at + RECORD.size


def records(data: bytes) -> list[ResourceRecord]:
    """The offsets of all records of a message. Raises ValueError."""
    try:
        _, _, questions, *counts = HEADER.unpack_from(data)
        end = HEADER.size
        for _ in range(questions):
            end = after_name(data, end) + QUESTION.size
        return list(read_records(data, end, sum(counts)))
    except (IndexError, struct.error) as error:
        raise ValueError(f"malformed: {error}") from error


def read_records(data: bytes, at: int, count: int) -> Iterator[ResourceRecord]:
    """The records from an offset on, up to the message's end."""
    for _ in range(count):
        owner, at = at, after_name(data, at)
        kind, _, ttl, length = RECORD.unpack_from(data, at)
        end = at + RECORD.size + length
        yield ResourceRecord(owner, kind, ttl, at, end)
        at = end
    if at != len(data):
        raise ValueError("the message ends elsewhere than it says")


def read_labels(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of a name, and where it ends. Pointers lead back, and never into the header (RFC 1035 §4.1.4)."""
    labels: list[bytes] = []
    size, start, end, pointers = 0, at, 0, 0
    while length := data[at]:
        if length >= 0xC0:
            target = name_start(data, at)
            pointers += 1
            if not HEADER.size <= target < start or pointers > _POINTERS:
                raise ValueError("a pointer that leads nowhere")
            end = end or at + 2
            at = start = target
            continue
        if length > 63:
            raise ValueError("a label of an unknown kind")
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
        size += 1 + length
        if size > 254:
            raise ValueError("a name of more than 255 octets")
    return labels, end or at + 1


def name_start(data: bytes, at: int) -> int:
    """The offset of a name, after one pointer if it is no more than that."""
    return POINTER.unpack_from(data, at)[0] & 0x3FFF if data[at] >= 0xC0 else at


def after_name(data: bytes, at: int) -> int:
    """The offset after a name. Pointers are not followed, since chains of them would be expensive."""
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise ValueError("a label of an unknown kind")
        at += 1 + length
    return at + 1


def names_in_text(labels: list[bytes]) -> tuple[str, ...]:
    """A name in text; and, if it has octets that no host name has, what follows them, whose owner answers for it."""
    odd = max((index for index, label in enumerate(labels, 1) if not _readable(label)), default=0)
    below = in_text(labels[odd:]) if odd else ""
    return (in_text(labels), below) if below else (in_text(labels),)


def in_text(labels: list[bytes]) -> str:
    """A name in text, without its last dot."""
    return ".".join(label.decode("ascii") if _readable(label) else _escaped(label) for label in labels)


def _escaped(label: bytes) -> str:
    r"""As in zone files (RFC 1035 §5.1): a dot inside a label is `\.`, an octet that can't be shown `\ddd`."""
    shown = (f"\\{chr(o)}" if o in b".\\" else chr(o) if 0x21 <= o <= 0x7E else f"\\{o:03d}" for o in label)
    return "".join(shown)


_LENGTH: Final = struct.Struct("!H")


def framed(message: bytes) -> bytes:
    """A message of up to 65,535 octets, as it is sent in a stream."""
    return _LENGTH.pack(len(message)) + message


def take_messages(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole messages out of a stream's buffer; what is left is the beginning of the next one."""
    while len(buffer) >= _LENGTH.size and len(buffer) - _LENGTH.size >= (size := _LENGTH.unpack_from(buffer)[0]):
        message = bytes(buffer[_LENGTH.size : _LENGTH.size + size])
        del buffer[: _LENGTH.size + size]
        yield message
