"""DNS messages as the wire has them: reading questions, writing refusals, editing answers. Sans-IO; no policy here.

What passes unedited is never taken apart and put together again: only what must change changes.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import dns.flags
import dns.message
import dns.rdata
import dns.rdatatype
from dns.rdtypes.svcbbase import MandatoryParam, ParamKey, SVCBBase

HTTPS: Final = dns.rdatatype.HTTPS.value
SVCB: Final = dns.rdatatype.SVCB.value
IN: Final = 1
SMALLEST: Final = 512
"""Octets that every client takes over UDP (RFC 1035 §4.2.1)."""

_HEADER: Final = struct.Struct("!HHHHHH")
_QUESTION: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_OPT: Final = 41
_TSIG: Final = 250
_TRANSFERS: Final = (251, 252)  # IXFR, AXFR
_RESPONSE: Final = 0x8000
_TRUNCATED: Final = 0x0200
_RECURSION_AVAILABLE: Final = 0x0080
_COPIED: Final = 0x0110  # RD (RFC 1035 §4.1.1) and CD (RFC 4035 §3.2.2) come back as they were sent
_DNSSEC_OK: Final = 0x8000
_PAYLOAD: Final = 1232
"""Octets of UDP that we say we take: they fit every path unfragmented (DNS flag day 2020)."""
_EDE: Final = 15
"""The option code of Extended DNS Errors (RFC 8914 §2)."""
_EDE_TEXT: Final = 160
"""Octets of explanation: a refusal of the longest name still fits into 512."""
_FIRST_NAME: Final = b"\xc0\x0c"
"""A pointer to the name of the question."""
# Nobody's: there is no zone here. Names as in the negative answers of other resolvers' local zones.
_NOBODY: Final = b"\x09localhost\x00" + b"\x06nobody\x07invalid\x00" + struct.pack("!IIII", 1, 3600, 1200, 604800)

_readable = re.compile(rb"[A-Za-z0-9_-]+").fullmatch


class Rcode(IntEnum):
    """Response codes that are given here."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4


class Opcode(IntEnum):
    """Kinds of message whose question says what they are about (RFC 1035, RFC 1996, RFC 2136)."""

    QUERY = 0
    NOTIFY = 4
    UPDATE = 5


class QueryError(ValueError):
    """A message that asks nothing that could be decided. `reply` is what it is answered with; None: nothing."""

    def __init__(self, problem: str, reply: bytes | None = None) -> None:
        super().__init__(problem)
        self.reply: Final = reply


class ExtendedError(NamedTuple):
    """An Extended DNS Error (RFC 8914): its code, and words for people."""

    code: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A message with one question."""

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
        """The kind of message."""
        return Opcode(self.flags >> 11 & 0xF)

    @property
    def type_name(self) -> str:
        """`A`, `HTTPS`, `TYPE65280`."""
        return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(self.type))

    @property
    def transfers(self) -> bool:
        """Whether the answer is a zone, in many messages."""
        return self.type in _TRANSFERS


class _Record(NamedTuple):
    """Where a record's parts are in its message: `end` is the first octet after it."""

    type: int
    ttl: int
    at: int
    """Where type, class, TTL and length begin."""
    end: int


def read_query(data: bytes) -> Query:
    """Read a client's message. Raises QueryError."""
    if len(data) < _HEADER.size:
        raise QueryError("shorter than a header")
    number, flags, questions, *counts = _HEADER.unpack_from(data)
    if flags & _RESPONSE:
        raise QueryError("a response, and no query")  # answering could go on for ever
    if flags >> 11 & 0xF not in Opcode:
        raise QueryError("another kind of message", _bare(number, flags, Rcode.NOTIMP))
    malformed = _bare(number, flags, Rcode.FORMERR)
    if questions != 1:  # RFC 9619: more than one was never defined; none asks nothing
        raise QueryError(f"{questions} questions", malformed)
    try:
        labels, end = _labels(data, _HEADER.size)
        kind, class_ = _QUESTION.unpack_from(data, end)
        end += _QUESTION.size
        options = [record for record in _records(data, end, sum(counts)) if record.type == _OPT]
    except (ValueError, IndexError, struct.error) as error:
        raise QueryError(f"malformed: {error}", malformed) from error
    if len(options) > 1:  # RFC 6891 §6.1.1
        raise QueryError("more than one OPT record", malformed)
    odd = max((index for index, label in enumerate(labels, 1) if not _readable(label)), default=0)
    return Query(
        id=number,
        flags=flags,
        question=data[_HEADER.size : end],
        name=_text(labels),
        below=_text(labels[odd:]) or None if odd else None,
        type=kind,
        class_=class_,
        payload=max(_class_at(data, options[0]), SMALLEST) if options else None,
        dnssec_ok=bool(options) and bool(options[0].ttl & _DNSSEC_OK),
    )


def refusal(query: Query, rcode: Rcode, *, ttl: int | None = None, error: ExtendedError | None = None) -> bytes:
    """A reply without records of the name. `ttl` in seconds: for how long it may be remembered (RFC 2308); None: not.

    The extended error goes only to those who sent an OPT record (RFC 8914 §3).
    """
    authority = b""
    if ttl is not None:
        zone = _NOBODY + struct.pack("!I", ttl)
        authority = _FIRST_NAME + _RECORD.pack(dns.rdatatype.SOA.value, IN, ttl, len(zone)) + zone
    options = _options(query, error) if query.payload is not None else b""
    head = _HEADER.pack(query.id, _flags(query, rcode), 1, 0, bool(authority), bool(options))
    return head + query.question + authority + options


def fitting(query: Query, answer: bytes, *, udp: bool) -> bytes:
    """A resolver's answer made complete: with an OPT record where the query had one, and cut where UDP is too small."""
    if query.payload is not None and all(record.type != _OPT for record in records(answer)):
        additional = struct.unpack_from("!H", answer, 10)[0] + 1
        answer = answer[:10] + struct.pack("!H", additional) + answer[12:] + _options(query, None)
    if not udp or len(answer) <= (query.payload or SMALLEST):
        return answer
    cut = refusal(query, Rcode.NOERROR)  # the client comes again over TCP
    return cut[:2] + struct.pack("!H", struct.unpack_from("!H", cut, 2)[0] | _TRUNCATED) + cut[4:]


def answers(query: Query, data: bytes) -> bool:
    """Whether a server's message answers this query: same id, same question, letters in any case."""
    if len(data) < _HEADER.size:
        return False
    number, flags, questions = struct.unpack_from("!HHH", data)
    if number != query.id or not flags & _RESPONSE:
        return False
    if questions == 0:  # as some say that they did not understand; and all but the first message of a zone
        return bool(flags & 0xF) or query.transfers
    asked = data[_HEADER.size : _HEADER.size + len(query.question)]
    return questions == 1 and asked.lower() == query.question.lower()


def capped(answer: bytes, seconds: int) -> bytes:
    """The answer with no record to be remembered longer than that. Raises ValueError for one that makes no sense."""
    edited = bytearray(answer)
    for record in records(answer):
        if record.type not in (_OPT, _TSIG) and record.ttl > seconds:
            struct.pack_into("!I", edited, record.at + 4, seconds)
    return bytes(edited)


def offers_ech(answer: bytes) -> bool:
    """Whether an answer may hold what a client needs to hide a name: any HTTPS or SVCB record. Raises ValueError."""
    return any(record.type in (HTTPS, SVCB) for record in records(answer))


def without_ech(answer: bytes) -> bytes:
    """The answer with no ECHConfig in any section (RFC 9848). Raises ValueError for one that can't be read as a whole.

    All is written anew, because names further on may point behind what is taken out. It is no longer authenticated.
    """
    try:
        message = dns.message.from_wire(answer, keyring=False, one_rr_per_rrset=True)
        for section in message.sections:
            for rrset in section:
                for record in list(rrset):
                    if isinstance(record, SVCBBase) and ParamKey.ECH in record.params:
                        ttl = rrset.ttl
                        rrset.clear()
                        rrset.add(_without_ech(record), ttl)
        message.flags &= ~dns.flags.AD
        return message.to_wire(max_size=65535)
    except Exception as error:  # dnspython raises whatever its readers and checks of values do
        raise ValueError(f"an answer that can't be read: {error}") from error


def records(data: bytes) -> list[_Record]:
    """Where all records of a message are. Raises ValueError."""
    try:
        _, _, questions, *counts = _HEADER.unpack_from(data)
        end = _HEADER.size
        for _ in range(questions):
            end = _after_name(data, end) + _QUESTION.size
        return list(_records(data, end, sum(counts)))
    except (IndexError, struct.error) as error:
        raise ValueError(f"malformed: {error}") from error


def _records(data: bytes, at: int, count: int) -> Iterator[_Record]:
    """The records from an offset on, up to the message's end."""
    for _ in range(count):
        at = _after_name(data, at)
        kind, _, ttl, length = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + length
        yield _Record(kind, ttl, at, end)
        at = end
    if at != len(data):
        raise ValueError("the message ends elsewhere than it says")


def _labels(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of a name that can't be compressed, because nothing stands before it; and where it ends."""
    labels: list[bytes] = []
    start = at
    while length := data[at]:
        if length > 63:
            raise ValueError("a pointer in the question")
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
        if at - start > 254:
            raise ValueError("a name of more than 255 octets")
    return labels, at + 1


def _after_name(data: bytes, at: int) -> int:
    """Where a name ends, without following pointers: chains of them cost whoever does."""
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise ValueError("a label of an unknown kind")
        at += 1 + length
    return at + 1


def _class_at(data: bytes, record: _Record) -> int:
    found: int = struct.unpack_from("!H", data, record.at + 2)[0]
    return found


def _text(labels: list[bytes]) -> str:
    return ".".join(label.decode("ascii") if _readable(label) else _escaped(label) for label in labels)


def _escaped(label: bytes) -> str:
    r"""As in zone files (RFC 1035 §5.1): a dot inside a label is `\.`, an octet that can't be shown `\ddd`."""
    shown = (f"\\{chr(o)}" if o in b".\\" else chr(o) if 0x21 <= o <= 0x7E else f"\\{o:03d}" for o in label)
    return "".join(shown)


def _bare(number: int, flags: int, rcode: Rcode) -> bytes:
    return _HEADER.pack(number, _RESPONSE | flags & (0x7800 | _COPIED) | rcode, 0, 0, 0, 0)


def _flags(query: Query, rcode: Rcode) -> int:
    return _RESPONSE | _RECURSION_AVAILABLE | query.flags & (0x7800 | _COPIED) | rcode


def _options(query: Query, error: ExtendedError | None) -> bytes:
    """An OPT record of our own: what a client said in its own is not sent back."""
    option = b""
    if error is not None:
        text = error.text.encode()[:_EDE_TEXT].decode(errors="ignore").encode()
        option = struct.pack("!HHH", _EDE, 2 + len(text), error.code) + text
    return b"\x00" + _RECORD.pack(_OPT, _PAYLOAD, _DNSSEC_OK if query.dnssec_ok else 0, len(option)) + option


def _without_ech(record: SVCBBase) -> dns.rdata.Rdata:
    params = {key: value for key, value in record.params.items() if key != ParamKey.ECH}
    mandatory = params.get(ParamKey.MANDATORY)
    if mandatory is not None:  # what is named there and missing would void the record (RFC 9460 §8)
        kept = [key for key in mandatory.keys if key != ParamKey.ECH]
        del params[ParamKey.MANDATORY]
        if kept:
            params[ParamKey.MANDATORY] = MandatoryParam(kept)
    return type(record)(record.rdclass, record.rdtype, record.priority, record.target, params)
