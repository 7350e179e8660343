"""Questions read from bytes, refusals written, answers edited: dnspython says what they mean."""

from __future__ import annotations

import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire import dns_message as wire
from tokgate.wire.dns_message import ExtendedError, Query, QueryError, Rcode, read_query

NAME = "www.clips.example.org"
ECH = "ech=AEX+DQBBAAAgACDsmhA1bA9Gkp5XzFSlB0kUqvRgmJMYvRYgiO34ESwvUgAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="


def asked(name: str = NAME, kind: str = "A", **options: object) -> bytes:
    """A client's query."""
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def attempt(data: bytes) -> Query | QueryError:
    """What reading comes to."""
    try:
        return read_query(data)
    except QueryError as error:
        return error


def reply_to(data: bytes) -> bytes | None:
    """What a message that asks nothing is answered with."""
    with pytest.raises(QueryError) as caught:
        read_query(data)
    return caught.value.reply


def answer(query: dns.message.Message, *records: str, section: str = "answer") -> bytes:
    """A server's answer, with records as in zone files."""
    made = dns.message.make_response(query)
    for text in records:
        name, ttl, kind, rest = text.split(None, 3)
        getattr(made, section).append(dns.rrset.from_text(name, int(ttl), "IN", kind, rest))
    return made.to_wire(max_size=65535)


def test_question() -> None:
    """Name, type, class and id come out as they went in."""
    data = asked("WwW.Clips.example.ORG", "HTTPS", id=4711)

    query = read_query(data)

    assert (query.id, query.name, query.below) == (4711, "WwW.Clips.example.ORG", None)
    assert (query.type_name, query.class_, query.opcode) == ("HTTPS", 1, wire.Opcode.QUERY)
    assert (query.payload, query.dnssec_ok, query.transfers) == (None, False, False)


def test_edns() -> None:
    """An OPT record says what the client takes over UDP, never less than every client does, and about DNSSEC."""
    assert read_query(asked(use_edns=0, payload=4096)).payload == 4096
    assert read_query(asked(use_edns=0, payload=100)).payload == 512
    assert read_query(asked(want_dnssec=True)).dnssec_ok


@pytest.mark.parametrize(
    ("labels", "name", "below"),
    [
        ((), "", None),
        ((b"_443", b"_https", b"example", b"org"), "_443._https.example.org", None),
        ((b"xn--strae-oqa", b"example"), "xn--strae-oqa.example", None),
        ((b"a.b", b"clips", b"example"), r"a\.b.clips.example", "clips.example"),
        ((b"\x00", b"clips", b"example"), r"\000.clips.example", "clips.example"),
        ((b"ok", b"\xc3\xa9", b"example"), r"ok.\195\169.example", "example"),
        ((b"clips", b"ex ample"), r"clips.ex\032ample", None),
        ((b"back\\slash", b"example"), r"back\\slash.example", "example"),
    ],
)
def test_names(labels: tuple[bytes, ...], name: str, below: str | None) -> None:
    """Names become text without loss; what stands below labels that no host has is told by itself."""
    query = read_query(asked(dns.name.Name((*labels, b"")), "A"))  # type: ignore[arg-type]

    assert (query.name, query.below) == (name, below)


def test_types_without_a_name() -> None:
    """A type that has no name is shown by its number."""
    assert read_query(asked(kind="TYPE65280")).type_name == "TYPE65280"


@pytest.mark.parametrize("opcode", [dns.opcode.NOTIFY, dns.opcode.UPDATE])
def test_other_messages_with_a_question(opcode: dns.opcode.Opcode) -> None:
    """NOTIFY and UPDATE say of which zone they speak, signed or not."""
    data = bytearray(asked())
    struct.pack_into("!H", data, 2, opcode << 11)

    assert read_query(bytes(data)).opcode == opcode


@pytest.mark.parametrize("opcode", [1, 2, 3, 6, 15])
def test_other_opcodes(opcode: int) -> None:
    """What has no question in its question section is not implemented."""
    data = bytearray(asked(id=7))
    struct.pack_into("!H", data, 2, opcode << 11 | 0x0100)

    reply = reply_to(bytes(data))

    assert reply is not None
    assert reply[:4] == struct.pack("!HH", 7, 0x8000 | opcode << 11 | 0x0100 | Rcode.NOTIMP)


@pytest.mark.parametrize("questions", [0, 2, 65535])
def test_number_of_questions(questions: int) -> None:
    """Exactly one question can be decided about and answered."""
    data = bytearray(asked())
    struct.pack_into("!H", data, 4, questions)

    reply = reply_to(bytes(data))

    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize(
    "data", [b"", bytes(11), answer(dns.message.make_query(NAME, "A"))], ids=["empty", "short", "answer"]
)
def test_nothing_to_answer(data: bytes) -> None:
    """What has no header, and what is itself an answer, is not answered."""
    assert reply_to(data) is None


HEADER = struct.pack("!HHHHHH", 1, 0x0100, 1, 0, 0, 0)
ARPA = struct.pack("!HH", 1, 1)
OPT = b"\x00" + struct.pack("!HHIH", 41, 1232, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        HEADER,
        HEADER + b"\x03www",
        HEADER + b"\x03www\x00\x00",
        HEADER + b"\xc0\x0c" + ARPA,
        HEADER + b"\x40" + bytes(64) + ARPA,
        HEADER + b"\x01a" * 128 + b"\x00" + ARPA,
        asked() + b"\x00",
        HEADER[:10] + b"\x00\x01" + b"\x00" + ARPA,
        HEADER[:10] + b"\x00\x02" + b"\x00" + ARPA + OPT + OPT,
        HEADER[:10] + b"\x00\x01" + b"\x00" + ARPA + OPT[:-1] + b"\x09",
    ],
    ids=["empty", "cut-label", "cut-type", "pointer", "label-64", "too-long", "junk", "no-opt", "two-opt", "cut-opt"],
)
def test_malformed(data: bytes) -> None:
    """A question that is cut off, compressed or too long, records that are not there or twice: a format error."""
    reply = reply_to(data)

    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR


def test_longest_name() -> None:
    """255 octets are a name (RFC 1035 §2.3.4)."""
    data = HEADER + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\x00" + ARPA

    assert len(read_query(data).name) == 253


def test_refusal() -> None:
    """NXDOMAIN with the question as it was asked, and a negative answer that lasts as long as is said."""
    sent = dns.message.make_query("wWw.Clips.example.org", "AAAA", use_edns=0, want_dnssec=True)
    sent.flags |= dns.flags.CD

    data = wire.refusal(
        read_query(sent.to_wire()), Rcode.NXDOMAIN, ttl=7, error=ExtendedError(16, "Clips on work devices")
    )

    got = dns.message.from_wire(data)
    assert sent.is_response(got)
    assert got.question[0].to_text() == "wWw.Clips.example.org. IN AAAA"
    assert got.rcode() == dns.rcode.NXDOMAIN
    assert got.flags & (dns.flags.RD | dns.flags.RA | dns.flags.CD) == dns.flags.RD | dns.flags.RA | dns.flags.CD
    assert not got.flags & (dns.flags.AA | dns.flags.AD)
    (authority,) = got.authority
    assert (authority.name, authority.ttl, authority[0].minimum) == (sent.question[0].name, 7, 7)
    assert got.ednsflags & dns.flags.DO
    assert got.options == (dns.edns.EDEOption(16, "Clips on work devices"),)


def test_refusal_without_edns() -> None:
    """Who sent no OPT record gets none, and with it no extended error (RFC 6891 §7)."""
    got = dns.message.from_wire(
        wire.refusal(read_query(asked()), Rcode.NXDOMAIN, ttl=7, error=ExtendedError(16, "words"))
    )

    assert (got.edns, got.options, len(got.authority)) == (-1, (), 1)


def test_refusal_that_is_not_remembered() -> None:
    """Without a time there is no SOA record, and nothing to remember (RFC 2308 §5)."""
    assert dns.message.from_wire(wire.refusal(read_query(asked()), Rcode.SERVFAIL)).authority == []


def test_refusal_of_the_longest_name_fits() -> None:
    """Whatever is said about whatever name, it fits into what every client takes; words are cut between letters."""
    name = dns.name.Name((b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61, b""))
    query = read_query(asked(name, use_edns=0))  # type: ignore[arg-type]

    data = wire.refusal(query, Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "x" + "é" * 500))

    assert len(data) <= 512
    (error,) = dns.message.from_wire(data).options
    assert isinstance(error, dns.edns.EDEOption)
    assert error.text == "x" + "é" * 79


def test_fitting_adds_edns() -> None:
    """A client that speaks EDNS is answered in EDNS (RFC 6891 §6.1.1); one that doesn't is not."""
    for options in ({}, {"use_edns": 0}):
        sent = dns.message.make_query(NAME, "A", **options)  # type: ignore[arg-type]
        plain = dns.message.make_response(sent)
        plain.use_edns(False)
        plain.answer.append(dns.rrset.from_text(f"{NAME}.", 60, "IN", "A", "192.0.2.1"))

        got = dns.message.from_wire(wire.fitting(read_query(sent.to_wire()), plain.to_wire(), udp=True))

        assert got.edns == (0 if options else -1)
        assert got.answer == plain.answer


def test_fitting_cuts() -> None:
    """What is too large for UDP becomes an empty answer that says to come over TCP; over TCP it passes whole."""
    sent = dns.message.make_query(NAME, "A", use_edns=0, payload=1232)
    large = answer(sent, *(f"{NAME}. 60 TXT {'x' * 250}" for _ in range(6)))
    query = read_query(sent.to_wire())

    cut = dns.message.from_wire(wire.fitting(query, large, udp=True))

    assert cut.flags & dns.flags.TC
    assert (cut.answer, cut.edns, cut.rcode()) == ([], 0, dns.rcode.NOERROR)
    assert wire.fitting(query, large, udp=False) == large


def test_answers() -> None:
    """An answer belongs to a query by id and question, in whatever case; a late one for another name does not."""
    sent = dns.message.make_query(NAME, "A", id=9)
    query = read_query(sent.to_wire())

    assert wire.answers(query, answer(sent))
    assert wire.answers(query, answer(dns.message.make_query(NAME.upper(), "A", id=9)))
    for other in (("www.example.org", "A", 9), (NAME, "AAAA", 9), (NAME, "A", 10)):
        assert not wire.answers(query, answer(dns.message.make_query(*other[:2], id=other[2])))
    assert not wire.answers(query, sent.to_wire())
    assert not wire.answers(query, b"")


def test_answers_without_a_question() -> None:
    """A server that understood nothing repeats nothing; nor do the later messages of a zone (RFC 5936 §2.2.1)."""
    query = read_query(asked(id=9))

    assert wire.answers(query, struct.pack("!HHHHHH", 9, 0x8001, 0, 0, 0, 0))
    assert not wire.answers(query, struct.pack("!HHHHHH", 9, 0x8000, 0, 0, 0, 0))
    assert wire.answers(read_query(asked(kind="AXFR", id=9)), struct.pack("!HHHHHH", 9, 0x8000, 0, 0, 0, 0))


def test_capped() -> None:
    """No record is to be remembered longer, in any section; flags of EDNS are no time."""
    sent = dns.message.make_query(NAME, "A", want_dnssec=True)
    made = dns.message.from_wire(answer(sent, f"{NAME}. 300 CNAME a.example.org.", "a.example.org. 5 A 192.0.2.1"))
    made.want_dnssec()
    made.authority.append(dns.rrset.from_text("example.org.", 86400, "IN", "NS", "ns.example.org."))
    made.additional.append(dns.rrset.from_text("ns.example.org.", 86400, "IN", "A", "192.0.2.53"))

    got = dns.message.from_wire(wire.capped(made.to_wire(), 30))

    assert [rrset.ttl for section in got.sections for rrset in section] == [0, 30, 5, 30, 30]
    assert got.ednsflags & dns.flags.DO
    assert got.answer == made.answer


ttls = st.integers(0, 2**31 - 1)


@given(st.lists(st.tuples(st.sampled_from(["answer", "authority", "additional"]), ttls)), ttls)
def test_capped_changes_nothing_else(records: list[tuple[str, int]], limit: int) -> None:
    """Whatever the records: none outlives the limit, shorter times stay, and so do all other bytes."""
    made = dns.message.make_response(dns.message.make_query(NAME, "A", use_edns=0))
    for number, (section, ttl) in enumerate(records):
        name = f"n{number}.example.org."
        getattr(made, section).append(dns.rrset.from_text(name, ttl, "IN", "A", "192.0.2.1"))
    before = made.to_wire(max_size=65535)

    after = wire.capped(before, limit)

    got = dns.message.from_wire(after)
    for section, ttl in records:
        rrset = getattr(got, section).pop(0)
        assert rrset.ttl == min(ttl, limit)
    assert wire.capped(after, 2**31 - 1) == after
    assert len(after) == len(before)


def test_without_ech() -> None:
    """ECH keys go from HTTPS and SVCB records in all sections; whatever else they say stays, compressed or not."""
    sent = dns.message.make_query(NAME, "HTTPS", want_dnssec=True)
    rest = "1 . alpn=h2,h3 ipv4hint=192.0.2.1"
    made = dns.message.from_wire(answer(sent, f"{NAME}. 300 HTTPS {rest} {ECH}", "b.example.org. 60 A 192.0.2.1"))
    made.additional.append(dns.rrset.from_text("_853._dns.example.org.", 9, "IN", "SVCB", f"1 . {ECH} alpn=dot"))
    made.authority.append(dns.rrset.from_text("example.org.", 60, "IN", "NS", "b.example.org."))
    made.flags |= dns.flags.AD
    made.want_dnssec()

    assert wire.offers_ech(made.to_wire())
    got = dns.message.from_wire(wire.without_ech(made.to_wire()))

    assert [record.to_text() for record in got.answer[0]] == ['1 . alpn="h2,h3" ipv4hint="192.0.2.1"']
    assert [record.to_text() for record in got.additional[0]] == ['1 . alpn="dot"']
    assert (got.answer[0].ttl, got.additional[0].ttl) == (300, 9)
    assert (got.answer[1], got.authority) == (made.answer[1], made.authority)
    assert got.ednsflags & dns.flags.DO
    assert not got.flags & dns.flags.AD, "what was changed is not authenticated any more"


def test_without_ech_that_was_mandatory() -> None:
    """A record that calls ECH mandatory stays usable without it (RFC 9460 §8)."""
    sent = dns.message.make_query(NAME, "HTTPS")
    records = (f"{NAME}. 9 HTTPS 1 . mandatory=ech {ECH}", f"{NAME}. 9 HTTPS 2 . mandatory=alpn,ech alpn=h2 {ECH}")

    got = dns.message.from_wire(wire.without_ech(answer(sent, *records)))

    assert [r.to_text() for rrset in got.answer for r in rrset] == ["1 .", '2 . mandatory="alpn" alpn="h2"']


def test_without_ech_keeps_aliases() -> None:
    """An alias has no keys."""
    sent = dns.message.make_query(NAME, "HTTPS")
    made = answer(sent, f"{NAME}. 9 HTTPS 0 cdn.example.org.")

    assert dns.message.from_wire(wire.without_ech(made)).answer == dns.message.from_wire(made).answer


def test_nothing_offered() -> None:
    """Answers without such records don't have to be written anew."""
    assert not wire.offers_ech(answer(dns.message.make_query(NAME, "A"), f"{NAME}. 9 A 192.0.2.1"))


@pytest.mark.parametrize("edit", [lambda data: wire.capped(data, 1), wire.without_ech, wire.offers_ech])
@pytest.mark.parametrize(
    "data", [b"", answer(dns.message.make_query(NAME, "A"), f"{NAME}. 9 A 192.0.2.1")[:-1]], ids=["empty", "cut"]
)
def test_answers_that_make_no_sense(edit: object, data: bytes) -> None:
    """An answer that can't be read can't be edited, and says so."""
    assert callable(edit)
    with pytest.raises(ValueError, match=r"malformed|read|ends"):
        edit(data)


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    """Whatever arrives is a question or an error of one kind, and so is every edit of it."""
    read = attempt(data)
    if isinstance(read, Query):
        dns.message.from_wire(wire.refusal(read, Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "x")))
    else:
        assert read.reply is None or len(read.reply) == 12
    for edit in (wire.offers_ech, wire.without_ech, lambda answer: wire.capped(answer, 5)):
        try:
            edit(data)
        except ValueError:
            continue


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_any_name(labels: list[bytes]) -> None:
    """Any name is told apart from every other: dnspython reads back from the text what was sent."""
    name = dns.name.Name((*labels, b""))

    query = read_query(asked(name))  # type: ignore[arg-type]

    assert dns.name.from_text(query.name or ".", idna_codec=None) == name
