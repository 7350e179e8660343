"""Refusals written: dnspython says what they mean, and they fit wherever they go."""

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

from tokgate.wire.dns_message.answer import ExtendedError, refusal
from tokgate.wire.dns_message.query import Rcode, read_query

NAME = "www.clips.example.org"


def asked(name: str = NAME, kind: str = "A", **options: object) -> bytes:
    """A client's query."""
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


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


def test_refusal_without_edns() -> None:
    """Who sent no OPT record gets none, and with it no extended error (RFC 6891 §7)."""
    got = dns.message.from_wire(refusal(read_query(asked()), Rcode.NXDOMAIN, ttl=7, error=ExtendedError(16, "words")))

    assert (got.edns, got.options, len(got.authority)) == (-1, (), 1)


def test_refusal_to_one_who_knows_no_dnssec() -> None:
    """Flags that the client did not set are not set in the reply (RFC 6891 §6.1.4)."""
    got = dns.message.from_wire(refusal(read_query(asked(use_edns=0)), Rcode.NXDOMAIN))

    assert (got.edns, got.ednsflags) == (0, 0)


def test_refusal_that_is_not_remembered() -> None:
    """Without a time there is no SOA record, and nothing to remember (RFC 2308 §5)."""
    got = dns.message.from_wire(refusal(read_query(asked()), Rcode.SERVFAIL))

    assert (got.authority, got.rcode()) == ([], dns.rcode.SERVFAIL)


def test_refusal_of_the_longest_name_fits() -> None:
    """Whatever is said about whatever name, it fits into what every client takes; words are cut between letters."""
    name = dns.name.Name((b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61, b""))
    query = read_query(asked(name, use_edns=0))  # type: ignore[arg-type]

    data = refusal(query, Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "x" + "é" * 500))

    assert len(data) <= 512
    (error,) = dns.message.from_wire(data).options
    assert isinstance(error, dns.edns.EDEOption)
    assert error.text == "x" + "é" * 79


@pytest.mark.parametrize(("payload", "sent"), [(1232, "long"), (4096, "long"), (512, "short")])
def test_structured_error_that_fits(payload: int, sent: str) -> None:
    """The longest form is sent that the client takes and that every path carries unfragmented; never a part of one."""
    query = read_query(asked(use_edns=0, payload=payload))
    forms = {"long": '{"j":"' + "é" * 200 + '"}', "short": '{"s":5}'}

    data = refusal(query, Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "words", tuple(forms.values())))

    assert len(data) <= payload
    (error,) = dns.message.from_wire(data).options
    assert isinstance(error, dns.edns.EDEOption)
    assert error.text == forms[sent]


@pytest.mark.parametrize("octets", [range(300, 500), range(1050, 1232)])
def test_structured_error_at_the_limit(octets: range) -> None:
    """One octet more than there is room for, and the code goes alone: cut JSON could not be read."""
    query = read_query(asked(use_edns=0, payload=octets.stop if octets.stop > 512 else 512))
    limit = max(512, octets.stop)

    for size in octets:
        data = refusal(query, Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "words", ("x" * size,)))
        (error,) = dns.message.from_wire(data).options
        assert isinstance(error, dns.edns.EDEOption)
        assert len(data) <= limit
        assert error.text in (None, "x" * size)
        assert error.text is not None or len(data) + size > limit
