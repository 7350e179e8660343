"""Answers of other servers, edited only where that is needed, and refusals of our own, with an extended error."""
# mypy: disallow-untyped-calls=False

import struct
from typing import Final, NamedTuple

import dns.flags
import dns.message
import dns.rdata
import dns.rdatatype
from dns.rcode import Rcode
from dns.rdtypes.svcbbase import MandatoryParam, ParamKey, SVCBBase

from tokgate.wire.dns_message.query import (
    COPIED,
    DNSSEC_OK,
    HEADER,
    OPT,
    RECORD,
    RESPONSE,
    Query,
    ResourceRecord,
    after_name,
    in_text,
    name_start,
    names_in_text,
    read_labels,
    records,
)

HTTPS: Final = dns.rdatatype.HTTPS.value
SVCB: Final = dns.rdatatype.SVCB.value
_CNAME: Final = 5
_DNAME: Final = 39
_TSIG: Final = 250
MOST_NAMES: Final = 64
"""Most names to which one answer may lead. Resolvers follow some ten aliases."""


def answers(query: Query, data: bytes) -> bool:
    """Whether a server's message answers this query: same id, same question, letters in any case."""
    if len(data) < HEADER.size:
        return False
    number, flags, questions = struct.unpack_from("!HHH", data)
    if number != query.id or not flags & RESPONSE:
        return False
    if questions == 0:  # as some say that they did not understand; and all but the first message of a zone
        return bool(flags & 0xF) or query.transfers
    asked = data[HEADER.size : HEADER.size + len(query.question)]
    return questions == 1 and asked.lower() == query.question.lower()


def capped(answer: bytes, seconds: int) -> bytes:
    """The answer with no record to be remembered longer than that. Raises ValueError for one that makes no sense."""
    edited = bytearray(answer)
    for record in records(answer):
        if record.type not in (OPT, _TSIG):
            struct.pack_into("!I", edited, record.at + 4, min(record.ttl, seconds))
    return bytes(edited)


def leads_to(answer: bytes) -> tuple[str, ...]:
    """The names to which an answer leads, besides the one that was asked for. Raises ValueError.

    These are the owners of what it answers, and the targets of CNAME, DNAME, HTTPS and SVCB records, which a resolver
    may also add (RFC 9460 §4.2). Of a name with octets that no host name has, also what follows them.
    """
    listed = records(answer)  # raises for a message without a whole header
    questions, answers, authorities = struct.unpack_from("!HHH", answer, 4)
    places: dict[int, ResourceRecord | None] = {}
    for index, record in enumerate(listed):
        if index < answers:
            places.setdefault(record.owner, None)
        elif index < answers + authorities:
            continue
        if record.type in (_CNAME, _DNAME, HTTPS, SVCB):
            places[record.data + (2 if record.type in (HTTPS, SVCB) else 0)] = record
    found: dict[str, None] = {}
    starts: set[int] = set()
    try:
        asked = in_text(read_labels(answer, HEADER.size)[0]).lower() if questions else None
        for place, alias in places.items():
            start, end = name_start(answer, place), place + 2
            if start not in starts:  # thousands of records may have one owner
                starts.add(start)
                labels, end = read_labels(answer, place)
                found |= dict.fromkeys(name.lower() for name in names_in_text(labels) if name)
            if alias is not None and end > alias.end:
                raise ValueError("a name that ends behind its record")
            if len(found) > MOST_NAMES:
                raise ValueError(f"more than {MOST_NAMES} names")
    except (IndexError, struct.error) as error:
        raise ValueError(f"malformed: {error}") from error
    return tuple(name for name in found if name != asked)


def offers_ech(answer: bytes) -> bool:
    """Whether an HTTPS or SVCB record holds what a client needs to hide a name, or may hold it. Raises ValueError."""
    return any(_may_hold_ech(answer, record) for record in records(answer) if record.type in (HTTPS, SVCB))


def without_ech(answer: bytes) -> bytes:
    """The answer with no ECHConfig in any section (RFC 9848). Raises ValueError for one that can't be read as a whole.

    All is written anew, because names further on may point behind what is taken out. It is no longer authenticated.
    """
    try:
        message = dns.message.from_wire(answer, keyring=False, one_rr_per_rrset=True)
        for section in message.sections:
            for rrset in section:
                for record in list(rrset):
                    if isinstance(record, SVCBBase):
                        ttl = rrset.ttl
                        rrset.clear()
                        rrset.add(_without_ech(record), ttl)
        message.flags &= ~dns.flags.AD
        return message.to_wire(max_size=65535)
    except Exception as error:  # dnspython raises whatever its readers and checks of values do
        raise ValueError(f"an answer that can't be read: {error}") from error


def _may_hold_ech(data: bytes, record: ResourceRecord) -> bool:
    """Whether a record has the parameter `ech`, or parameters that can't be read (RFC 9460 §2.2)."""
    try:
        at = after_name(data, record.data + 2)
        while at < record.end:
            key, length = struct.unpack_from("!HH", data, at)
            if key == ParamKey.ECH:
                return True
            at += 4 + length
    except (ValueError, IndexError, struct.error):
        return True
    return at != record.end


def _without_ech(record: SVCBBase) -> dns.rdata.Rdata:
    params = {key: value for key, value in record.params.items() if key != ParamKey.ECH}
    mandatory = params.get(ParamKey.MANDATORY)
    if mandatory is not None:  # what is named there and missing would void the record (RFC 9460 §8)
        kept = [key for key in mandatory.keys if key != ParamKey.ECH]
        del params[ParamKey.MANDATORY]
        if kept:
            params[ParamKey.MANDATORY] = MandatoryParam(kept)
    return type(record)(record.rdclass, record.rdtype, record.priority, record.target, params)


_SOA: Final = 6
_IN: Final = 1
_RECURSION_AVAILABLE: Final = 0x0080
EDE: Final = 15
"""The option code of Extended DNS Errors (RFC 8914 §2)."""
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


def refusal(query: Query, rcode: Rcode, *, ttl: int | None = None, error: ExtendedError | None = None) -> bytes:
    """A reply without records of the name. `ttl` in seconds: for how long it may be remembered (RFC 2308); None: not.

    The extended error goes only to those who sent an OPT record (RFC 8914 §3).
    """
    authority = b""
    if ttl is not None:
        zone = _NOBODY + struct.pack("!I", ttl)
        authority = _FIRST_NAME + RECORD.pack(_SOA, _IN, ttl, len(zone)) + zone
    option = b""
    if query.payload is not None:  # what a client said in its own OPT record is not sent back
        if error is not None:
            text = error.text.encode()[:_EDE_TEXT].decode(errors="ignore").encode()
            option = struct.pack("!HHH", EDE, 2 + len(text), error.code) + text
        option = b"\0" + RECORD.pack(OPT, _PAYLOAD, DNSSEC_OK if query.dnssec_ok else 0, len(option)) + option
    head = HEADER.pack(
        query.id, RESPONSE | _RECURSION_AVAILABLE | query.flags & COPIED | rcode, 1, 0, bool(authority), bool(option)
    )
    return head + query.question + authority + option
