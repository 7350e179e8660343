"""Answers matched, edited and followed: dnspython says what they mean.

Refusals written: dnspython says what they mean, and they fit wherever they go.
"""

import struct
from itertools import pairwise

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.dns_message import answer as wire
from tokgate.wire.dns_message.answer import HTTPS, ExtendedError, refusal
from tokgate.wire.dns_message.query import read_query

NAME = "www.clips.example.org"


def asked(name: str = NAME, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


ARPA = struct.pack("!HH", 1, 1)


ECH = "ech=AEX+DQBBAAAgACDsmhA1bA9Gkp5XzFSlB0kUqvRgmJMYvRYgiO34ESwvUgAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="


def answer(query: dns.message.Message, *records: str, section: str = "answer") -> bytes:
    """A server's answer, with records as in zone files."""
    made = dns.message.make_response(query)
    for text in records:
        name, ttl, kind, rest = text.split(None, 3)
        getattr(made, section).append(dns.rrset.from_text(name, int(ttl), "IN", kind, rest))
    return made.to_wire(max_size=65535)


def test_answers() -> None:
    """An answer belongs to a query by id and question, in whatever case; a late one for another name does not."""
    sent = dns.message.make_query(NAME, "A", id=9)
    query = read_query(sent.to_wire())

    assert wire.answers(query, answer(sent))
    assert wire.answers(query, answer(dns.message.make_query(NAME.upper(), "A", id=9)))
    for other in (("www.example.org", "A", 9), (NAME, "AAAA", 9), (NAME, "A", 10)):
        assert not wire.answers(query, answer(dns.message.make_query(*other[:2], id=other[2])))
    asked_twice = answer(sent)[:4] + b"\x00\x02" + answer(sent)[6:] + query.question
    assert not wire.answers(query, asked_twice)
    assert not wire.answers(query, sent.to_wire())
    assert not wire.answers(query, b"")


def test_answers_without_a_question() -> None:
    """A server that understood nothing repeats nothing; nor do the later messages of a zone (RFC 5936 §2.2.1)."""
    query = read_query(asked(id=9))

    assert wire.answers(query, struct.pack("!HHHHHH", 9, 0x8001, 0, 0, 0, 0))
    assert not wire.answers(query, struct.pack("!HHHHHH", 9, 0x8000, 0, 0, 0, 0))
    assert wire.answers(read_query(asked(kind="AXFR", id=9)), struct.pack("!HHHHHH", 9, 0x8000, 0, 0, 0, 0))


ttls = st.integers(0, 2**31 - 1)


@given(st.lists(st.tuples(st.sampled_from(["answer", "authority", "additional"]), ttls)), ttls)
def test_capped_changes_nothing_else(records: list[tuple[str, int]], limit: int) -> None:
    """Whatever the records: none outlives the limit, and all else stays, also the flags of EDNS, which are no time."""
    made = dns.message.make_response(dns.message.make_query(NAME, "A"))
    made.want_dnssec()
    for number, (section, ttl) in enumerate(records):
        name = f"n{number}.example.org."
        getattr(made, section).append(dns.rrset.from_text(name, ttl, "IN", "A", "192.0.2.1"))
    before = made.to_wire(max_size=65535)

    after = wire.capped(before, limit)

    got = dns.message.from_wire(after)
    for section, ttl in records:
        rrset = getattr(got, section).pop(0)
        assert (rrset.ttl, rrset[0].to_text()) == (min(ttl, limit), "192.0.2.1")
    assert got.ednsflags == dns.flags.DO
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


def test_without_ech_in_a_signed_answer() -> None:
    """An answer that a resolver signed (RFC 8945) for its other users is edited as any other."""
    sent = dns.message.make_query(NAME, "HTTPS")
    made = dns.message.from_wire(answer(sent, f"{NAME}. 9 HTTPS 1 . {ECH}"))
    made.use_tsig({dns.name.from_text("key."): b"secret"}, "key.")

    got = dns.message.from_wire(wire.without_ech(made.to_wire()), keyring=False)

    assert [record.to_text() for record in got.answer[0]] == ["1 ."]


def test_without_ech_that_was_mandatory() -> None:
    """A record that calls ECH mandatory stays usable without it (RFC 9460 §8)."""
    sent = dns.message.make_query(NAME, "HTTPS")
    records = (f"{NAME}. 9 HTTPS 1 . mandatory=ech {ECH}", f"{NAME}. 9 HTTPS 2 . mandatory=alpn,ech alpn=h2 {ECH}")

    got = dns.message.from_wire(wire.without_ech(answer(sent, *records)))

    assert [r.to_text() for rrset in got.answer for r in rrset] == ["1 .", '2 . mandatory="alpn" alpn="h2"']


def test_leads_to() -> None:
    """Aliases and services lead to other names, in the order of the answer, whatever their case and compression."""
    sent = dns.message.make_query(NAME, "HTTPS")
    made = answer(
        sent,
        f"{NAME}. 9 CNAME Alias.Example.NET.",
        "alias.example.net. 9 DNAME example.com.",
        "alias.example.net. 9 HTTPS 0 pool.example.com.",
        "pool.example.com. 9 HTTPS 1 . alpn=h2",
        "pool.example.com. 9 SVCB 1 service.example.com.",
        f"{NAME}. 9 A 192.0.2.1",
    )

    assert wire.leads_to(made) == (
        "alias.example.net",
        "example.com",
        "pool.example.com",
        "service.example.com",
    )


ALIAS_AND_SERVER = (f"{NAME}. 9 CNAME alias.example.net.", "ns.example.net. 9 A 192.0.2.53")


@pytest.mark.parametrize(
    ("section", "records", "found"),
    [
        ("answer", ALIAS_AND_SERVER, ("alias.example.net", "ns.example.net")),
        ("additional", ALIAS_AND_SERVER, ("alias.example.net",)),
        ("authority", ALIAS_AND_SERVER, ()),
        ("answer", (rf"{NAME}. 9 CNAME a\.b.clips.example.",), (r"a\.b.clips.example", "clips.example")),
        *(
            ("answer", (f"{NAME}. 9 {record}",), ())
            for record in ("A 192.0.2.1", "MX 5 mx.example.net.", "HTTPS 1 .", "TXT x.example")
        ),
    ],
)
def test_leads_to_by_kind_of_record(section: str, records: tuple[str, ...], found: tuple[str, ...]) -> None:
    """Some clients take any address in an answer; a resolver adds where a service's name leads, and a zone's servers.

    What is looked up with a question of its own is decided about then. Octets that no host name has hide no name.
    """
    assert wire.leads_to(answer(dns.message.make_query(NAME, "ANY"), *records, section=section)) == found


chain_names = st.lists(st.from_regex(r"[a-z]{1,12}(\.[a-z]{1,9}){1,5}", fullmatch=True), min_size=1, max_size=12)


@given(chain_names, st.data())
def test_leads_to_the_end_of_any_chain(names: list[str], data: st.DataObject) -> None:
    """However long a chain is and in whatever order it comes, the banned name at its end is found."""
    chain = [*names, NAME]
    records = [f"{alias}. 9 CNAME {name}." for alias, name in pairwise(chain)]
    made = answer(dns.message.make_query(names[0], "A"), *data.draw(st.permutations(records)), f"{NAME}. 9 A 192.0.2.1")

    assert set(wire.leads_to(made)) == set(chain) - {names[0]}


def test_leads_to_too_many_names() -> None:
    """An answer with more names than any chain has is not gone through."""
    sent = dns.message.make_query(NAME, "A")
    chain = [f"n{number}.example.net. 9 CNAME n{number + 1}.example.net." for number in range(wire.MOST_NAMES)]

    assert len(wire.leads_to(answer(sent, *chain[1:]))) == wire.MOST_NAMES
    with pytest.raises(ValueError, match="more than 64 names"):
        wire.leads_to(answer(sent, *chain))


ALIAS = struct.pack("!HHIH", 5, 1, 9, 2)
NEXT_RECORD = b"\x0c" + b"x" * 12 + b"\x00" + struct.pack("!HHIH", 1, 1, 9, 4) + bytes(4)


@pytest.mark.parametrize(
    "record",
    [
        b"\xc0\x0c" + ALIAS + b"\xc0\x27",
        b"\xc0\x0c" + ALIAS + b"\xc0\x02",
        b"\xc0\x0c" + ALIAS + b"\x01a",
        b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 9, 1) + b"\x01",
        b"\xc0\x0c" + struct.pack("!HHIH", 65, 1, 9, 2) + b"\x00\x01",
        b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 9, 1) + b"\xc0",
    ],
    ids=["to-itself", "into-the-header", "cut", "cut-label", "no-target", "cut-pointer"],
)
@pytest.mark.parametrize("behind", [b"", NEXT_RECORD], ids=["last", "followed"])
def test_leads_to_what_makes_no_sense(record: bytes, behind: bytes) -> None:
    """A name that can't be read, or goes on in the next record, is an error, and not none: others see one."""
    header = struct.pack("!HHHHHH", 1, 0x8180, 1, 1 + bool(behind), 0, 0)
    made = header + b"\x01a\x07example\x00" + ARPA + record + behind

    with pytest.raises(ValueError, match="malformed|pointer|behind" + "|unknown kind" * bool(behind)):
        wire.leads_to(made)


@pytest.mark.parametrize("record", ["A 192.0.2.1", "HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1", "SVCB 0 x.example."])
def test_nothing_offered(record: str) -> None:
    """Answers without keys don't have to be written anew, and so stay authenticated."""
    assert not wire.offers_ech(answer(dns.message.make_query(NAME, "ANY"), f"{NAME}. 9 {record}"))


@pytest.mark.parametrize(
    "data",
    [b"\x00", b"\x00\x01\x01", b"\x00\x01\x00\x00\x01", b"\x00\x01\x00\x00\x01\x00\x09h2", b"\x00\x01\x40"],
    ids=["priority", "target", "key", "value", "label"],
)
def test_what_may_be_offered(data: bytes) -> None:
    """A record that is cut off may hold keys: some client might find them."""
    made = struct.pack("!HHHHHH", 1, 0x8180, 1, 1, 0, 0) + b"\x01a\x07example\x00" + struct.pack("!HH", HTTPS, 1)
    made += b"\xc0\x0c" + struct.pack("!HHIH", HTTPS, 1, 9, len(data)) + data

    assert wire.offers_ech(made)
    with pytest.raises(ValueError, match="read"):
        wire.without_ech(made)


@pytest.mark.parametrize("edit", [lambda data: wire.capped(data, 1), wire.without_ech, wire.offers_ech, wire.leads_to])
@pytest.mark.parametrize(
    "data", [b"", answer(dns.message.make_query(NAME, "A"), f"{NAME}. 9 A 192.0.2.1")[:-1]], ids=["empty", "cut"]
)
def test_answers_that_make_no_sense(edit: object, data: bytes) -> None:
    """An answer that can't be read can't be edited, and says so."""
    assert callable(edit)
    with pytest.raises(ValueError, match=r"malformed|read|ends"):
        edit(data)


@pytest.mark.parametrize("octet", [0x40, 0x80, 0xBF])
def test_labels_of_other_kinds(octet: int) -> None:
    """An answer with labels of no defined type (RFC 6891 §5) is refused: what it offers can't be known."""
    made = dns.message.make_response(dns.message.make_query(NAME, "A")).to_wire()
    owner = bytes((octet,)) + b"x" * octet + b"\x00"

    with pytest.raises(ValueError, match="unknown kind"):
        wire.offers_ech(made[:6] + b"\x00\x01" + made[8:] + owner + struct.pack("!HHIH", 1, 1, 9, 0))


@given(st.binary(max_size=600))
def test_any_answer(data: bytes) -> None:
    """Whatever arrives can be edited, or is an error of one kind."""
    for edit in (wire.offers_ech, wire.leads_to, wire.without_ech, lambda answer: wire.capped(answer, 5)):
        try:
            edit(data)
        except ValueError:
            continue


def test_refusal() -> None:
    """NXDOMAIN with the question as it was asked, and a negative answer that lasts as long as is said."""
    sent = dns.message.make_query("wWw.Clips.example.org", "AAAA", use_edns=0, want_dnssec=True)
    sent.flags |= dns.flags.CD

    data = refusal(read_query(sent.to_wire()), Rcode.NXDOMAIN, ttl=7, error=ExtendedError(16, "Clips on work devices"))

    got = dns.message.from_wire(data)
    assert sent.is_response(got)
    assert got.question[0].to_text() == "wWw.Clips.example.org. IN AAAA"
    assert got.rcode() == dns.rcode.NXDOMAIN
    assert got.flags & (dns.flags.RD | dns.flags.RA | dns.flags.CD) == dns.flags.RD | dns.flags.RA | dns.flags.CD
    assert not got.flags & (dns.flags.AA | dns.flags.AD)
    (authority,) = got.authority
    assert (authority.name, authority.ttl, authority[0].minimum) == (sent.question[0].name, 7, 7)
    assert authority.rdclass == dns.rdataclass.IN
    assert got.ednsflags == dns.flags.DO
    assert got.options == (dns.edns.EDEOption(dns.edns.EDECode.CENSORED, "Clips on work devices"),)


def test_refusal_says_no_more_than_was_asked() -> None:
    """Who sent no OPT record gets none and no error in it, nor flags that it did not set (RFC 6891 §6.1.4, §7).

    Without a time there is no SOA record, and nothing to remember (RFC 2308 §5).
    """
    got = dns.message.from_wire(refusal(read_query(asked()), Rcode.NXDOMAIN, ttl=7, error=ExtendedError(16, "words")))
    assert (got.edns, got.options, len(got.authority)) == (-1, (), 1)
    got = dns.message.from_wire(refusal(read_query(asked(use_edns=0)), Rcode.SERVFAIL))
    assert (got.edns, got.ednsflags, got.authority, got.rcode()) == (0, 0, [], dns.rcode.SERVFAIL)


def test_refusal_of_the_longest_name_fits() -> None:
    """Whatever is said about whatever name, it fits into what every client takes; words are cut between letters."""
    name = dns.name.Name((b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61, b""))
    query = read_query(asked(name, use_edns=0))  # type: ignore[arg-type]

    data = refusal(query, Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "x" + "é" * 500))

    assert len(data) <= 512
    (error,) = dns.message.from_wire(data).options
    assert isinstance(error, dns.edns.EDEOption)
    assert error.text == "x" + "é" * 79
