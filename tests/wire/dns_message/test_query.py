"""Questions read from bytes: dnspython says what they mean."""

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
from dns.opcode import Opcode
from dns.rcode import Rcode
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.dns_message.answer import ExtendedError, refusal
from tokgate.wire.dns_message.query import QueryError, framed, read_labels, read_query, take_messages

NAME = "www.clips.example.org"


def asked(name: str = NAME, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def reply_to(data: bytes) -> bytes | None:
    """What a message that asks nothing is answered with."""
    with pytest.raises(QueryError) as caught:
        read_query(data)
    return caught.value.reply


def test_question() -> None:
    data = asked("WwW.Clips.example.ORG", "HTTPS", id=4711)

    query = read_query(data)

    assert (query.id, query.name, query.below) == (4711, "WwW.Clips.example.ORG", None)
    assert (query.type_name, query.class_, query.opcode) == ("HTTPS", 1, Opcode.QUERY)
    assert (query.payload, query.dnssec_ok, query.transfers) == (None, False, False)


def test_edns() -> None:
    """An OPT record says what the client takes over UDP, never less than every client does, and about DNSSEC."""
    assert read_query(asked(use_edns=0, payload=4096)).payload == 4096
    assert read_query(asked(use_edns=0, payload=100)).payload == 512
    assert read_query(asked(want_dnssec=True)).dnssec_ok
    assert not read_query(asked(use_edns=0)).dnssec_ok


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
        ((b"a b", b"ok", b"!~\x7f", b"clips", b"example"), r"a\032b.ok.!~\127.clips.example", "clips.example"),
    ],
)
def test_names(labels: tuple[bytes, ...], name: str, below: str | None) -> None:
    """Names become text without loss; what stands below labels that no host has is told by itself."""
    query = read_query(asked(dns.name.Name((*labels, b"")), "A"))  # type: ignore[arg-type]

    assert (query.name, query.below) == (name, below)


@pytest.mark.parametrize("opcode", [dns.opcode.NOTIFY, dns.opcode.UPDATE])
def test_other_messages_with_a_question(opcode: dns.opcode.Opcode) -> None:
    """NOTIFY and UPDATE say of which zone they speak, signed or not."""
    data = bytearray(asked())
    struct.pack_into("!H", data, 2, opcode << 11)

    assert read_query(bytes(data)).opcode.value == opcode.value


@pytest.mark.parametrize("opcode", [1, 2, 3, 6, 15])
def test_other_opcodes(opcode: int) -> None:
    """What has no question in its question section is not implemented."""
    data = bytearray(asked(id=7))
    struct.pack_into("!H", data, 2, opcode << 11 | 0x0100)

    reply = reply_to(bytes(data))

    assert reply is not None
    assert reply[:4] == struct.pack("!HH", 7, 0x8000 | opcode << 11 | 0x0100 | dns.rcode.NOTIMP)


@pytest.mark.parametrize(
    "data",
    [b"", bytes(11), dns.message.make_response(dns.message.make_query(NAME, "A")).to_wire()],
    ids=["empty", "short", "answer"],
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
        *(asked()[:4] + struct.pack("!H", questions) + asked()[6:] for questions in (0, 2, 65535)),
        HEADER,
        HEADER + b"\x03www",
        HEADER + b"\x03www\x00\x00",
        HEADER + b"\xc0\x0c" + ARPA,
        HEADER + b"\x40" + bytes(64) + b"\x00" + ARPA,
        HEADER + b"\x01a" * 128 + b"\x00" + ARPA,
        asked() + b"\x00",
        HEADER[:10] + b"\x00\x01" + b"\x00" + ARPA,
        HEADER[:10] + b"\x00\x02" + b"\x00" + ARPA + OPT + OPT,
        HEADER[:10] + b"\x00\x01" + b"\x00" + ARPA + OPT[:-1] + b"\x09",
    ],
    ids=[
        *("no-question", "two-questions", "endless-questions", "empty", "cut-label", "cut-type", "pointer"),
        *("label-64", "too-long", "junk", "no-opt", "two-opt", "cut-opt"),
    ],
)
def test_malformed(data: bytes) -> None:
    """Not one question, or one that is cut off, compressed or too long, records that are not there or twice."""
    reply = reply_to(data)

    assert reply is not None
    assert dns.message.from_wire(reply).rcode() == dns.rcode.FORMERR


def test_longest_name() -> None:
    """255 octets are a name (RFC 1035 §2.3.4), 256 are none."""
    longest = HEADER + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61

    assert len(read_query(longest + b"\x00" + ARPA).name) == 253
    assert reply_to(longest[:-62] + b"\x3e" + b"a" * 62 + b"\x00" + ARPA) is not None


def test_longest_owner() -> None:
    """Labels of 63 octets are read in records as in the question."""
    signed = HEADER[:10] + b"\x00\x01" + b"\x00" + ARPA + b"\x3f" + b"a" * 63 + b"\x00" + bytes(10)

    assert read_query(signed).name == ""


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_any_name(labels: list[bytes]) -> None:
    """Any name is told apart from every other: dnspython reads back from the text what was sent."""
    name = dns.name.Name((*labels, b""))

    query = read_query(asked(name))  # type: ignore[arg-type]

    assert dns.name.from_text(query.name or ".", idna_codec=None) == name


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    """Whatever arrives is a question that can be refused, or an error of one kind."""
    reply = None
    try:
        dns.message.from_wire(refusal(read_query(data), Rcode.NXDOMAIN, ttl=1, error=ExtendedError(15, "x")))
    except QueryError as error:
        reply = error.reply
    assert reply is None or len(reply) == 12


# -- names and records of a message, and messages in a stream


def test_a_name_ends_behind_its_first_pointer() -> None:
    """Behind a name that leads on by several pointers, the record's fields are read, and not octets before it."""
    header, name = bytes(12), b"\1a\0"
    message = header + name + b"\xc0\x0c" + b"\1b\xc0\x0f" + b"rest"
    assert read_labels(message, 12) == ([b"a"], 15)
    assert read_labels(message, 15) == ([b"a"], 17)
    assert read_labels(message, 17) == ([b"b", b"a"], 21)


def test_a_chain_of_pointers_ends() -> None:
    """Resolvers write a few pointers into a name; a message of nothing else would cost more than it is worth."""
    message = bytes(12) + b"\1a\0"
    for target in (12, *range(15, 79, 2)):
        message += (0xC000 | target).to_bytes(2)
    assert read_labels(message, 77) == ([b"a"], 79)
    with pytest.raises(ValueError, match="pointer"):
        read_labels(message, 79)


MESSAGES = st.lists(st.binary(max_size=300), max_size=5)


@given(MESSAGES, st.integers(1, 400), st.binary(max_size=1))
def test_messages_come_whole_and_in_order(messages: list[bytes], size: int, rest: bytes) -> None:
    """A message that is lost or mixed with another would be answered for the wrong question."""
    sent, buffer, taken = b"".join(map(framed, messages)) + rest, bytearray(), list[bytes]()
    for at in range(0, len(sent), size):
        buffer += sent[at : at + size]
        taken += take_messages(buffer)

    assert (taken, bytes(buffer)) == (messages, rest)


def test_the_longest_message() -> None:
    """The length has two octets."""
    buffer = bytearray(framed(bytes(65_535)))

    assert [len(message) for message in take_messages(buffer)] == [65_535]
