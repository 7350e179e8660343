"""Packets that aioquic has written are found and read; its clients understand a refusal.

First flights of QUIC, written by aioquic, and what is read in them.
"""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.builders import present
from labs.quic_packets import NAME, V1, V2, QuicClient, client, crypto, protected
from tokgate.wire.quic import (
    CRYPTO_ERROR,
    MAX_HELLO,
    Opening,
    QuicError,
    close,
    follows_initial,
    hides_packets,
    initials,
    is_unreadable,
    varint,
)


@pytest.mark.parametrize(
    ("data", "number"),
    [("c2197c5eff14e88c", 151288809941952652), ("9d7f3e7d", 494878333), ("7bbd", 15293), ("25", 37), ("4025", 37)],
)
def test_integers(data: str, number: int) -> None:
    """The integers of RFC 9000 §A.1."""
    assert varint(b"\0" + bytes.fromhex(data) + b"more", 1) == (number, 1 + len(data) // 2)


@pytest.mark.parametrize(
    ("first", "version", "follows"),
    [
        *((first, V1, False) for first in (0x40, 0x60, 0xC0, 0xCF)),
        *((first, V1, True) for first in (0xD0, 0xE3)),
        *[(0xD0, V2, False), (0xE0, V2, True), (0xF0, V2, True)],
        *[(0xE0, 0xFF00001D, False), (0xE0, 0, False)],
    ],
)
def test_what_follows_an_initial_packet(first: int, version: int, follows: bool) -> None:
    """Early data and handshakes of known versions wait for the beginning of their connection, and nothing else."""
    assert follows_initial(bytes((first,)) + version.to_bytes(4) + bytes(20)) is follows
    assert not follows_initial(b"")


@pytest.mark.parametrize("version", [V1, V2])
def test_refusal(version: int) -> None:
    """A client takes the refusal for the server's, and learns why."""
    refused = QuicClient(NAME, version=version)
    event = present(refused.told(close(initials(refused.flight[0])[0], CRYPTO_ERROR + 0x70, "Clips on work devices")))
    assert (event.error_code, event.frame_type, event.reason_phrase) == (0x0170, 6, "Clips on work devices")


def test_refusal_with_many_words() -> None:
    """Words are cut between letters, and the whole fits anywhere."""
    _, flight = client()

    data = close(initials(flight[0])[0], 0x0170, "x" + "é" * 1000)

    assert len(data) < 400


def test_packets_in_one_datagram() -> None:
    """Initial packets are found among the others of their datagram; what can't be skipped ends it."""
    one, two = protected(b"\x01"), protected(b"\x01", number=1)
    head = struct.pack("!I", V1) + b"\x00\x00"
    handshake = b"\xe0" + head + b"\x14" + bytes(20)
    short = b"\x40" + bytes(30)

    found = initials(one.packet + handshake + two.packet + short)
    assert [i.packet for i in found] == [one.packet, two.packet]
    assert all(Opening(one).fits(each) for each in found)
    assert initials(handshake + short) == ()
    retry = b"\xf0" + head + b"\x14" + bytes(20)
    assert [i.packet for i in initials(one.packet + retry + two.packet)] == [one.packet]


def test_packets_behind_what_can_not_be_read() -> None:
    """A server may know the end of a packet that makes no sense here: too short, of a server's, of another version."""
    one, two = protected(b"\x01"), protected(b"\x01", number=1)
    odd = [
        *(bytes((kind,)) + struct.pack("!I", V1) + b"\0\0" + b"\5junk!" for kind in (0xD0, 0xE0, 0xF0)),
        b"\xc0" + struct.pack("!I", 0xFF00001D) + b"\0\0\0\x14" + bytes(20),
    ]
    assert [hides_packets(one.packet + each + two.packet) for each in odd] == [True] * 4
    assert [hides_packets(each + two.packet) for each in odd] == [True, True, True, False]
    for whole in (one.packet, one.packet + two.packet, one.packet + bytes(50), one.packet + b"\x40" + bytes(30), b""):
        assert not hides_packets(whole)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\xc0\x00\x00\x00\x00\x00\x00",
        b"\xc0\xff\x00\x00\x1d\x00\x00\x00\x14" + bytes(20),
        b"\xc0\x00\x00\x00\x01\x15" + bytes(21) + b"\x00\x00\x14" + bytes(20),
        b"\xc0\x00\x00\x00\x01\x00\x00\x00\x14" + bytes(19),
        b"\xc0\x00\x00\x00\x01\x00\x00\x00\x13" + bytes(19),
        b"\x40" + bytes(60),
    ],
    ids=["empty", "octet", "version-0", "draft", "long-id", "cut", "short", "short-header"],
)
def test_no_initial(data: bytes) -> None:
    """Other versions, other packets and what is cut off hold no Initial packet."""
    assert initials(data) == ()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xc0\xff\x00\x00\x1d\x00\x00", True),
        (b"\xc3\xff\x00\x00\x1d\x00\x00", True),
        (b"\xc0\x00\x00\x00\x00\x00\x00", False),
        (b"\xe0\x00\x00\x00\x01\x00\x00", False),
        (b"\x80\xff\x00\x00\x1d\x00\x00", False),
        (b"\x40\xff\x00\x00\x1d\x00\x00", False),
        (b"\xc0", False),
        (b"\xc0\xff\x00\x00\x1d\x00", False),
        (b"", False),
    ],
)
def test_unreadable(data: bytes, expected: bool) -> None:
    """QUIC of any version is known by its first octets; version 0 is what servers negotiate with."""
    assert is_unreadable(data) is expected


def opening_of(flight: list[bytes]) -> Opening:
    packets = [initial for datagram in flight for initial in initials(datagram)]
    opening = Opening(packets[0])
    assert all([opening.reads(initial) for initial in packets])  # noqa: C419 - each is to be read
    return opening


def hello_message(name: str = NAME, *, large: bool = False) -> bytes:
    """A ClientHello as CRYPTO frames carry it."""
    hello = present(opening_of(client(name, large=large)[1]).hello)
    return hello.message


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize("large", [False, True])
def test_hello(version: int, large: bool) -> None:
    """The name is read in both versions, whether the hello fills one datagram or several, in any order."""
    _, flight = client("www.Example.ORG", version, large=large)
    assert (len(flight) > 1) is large

    for order in (flight, flight[::-1]):
        hello = present(opening_of(order).hello)
        assert hello.name == "www.Example.ORG"
    assert not is_unreadable(flight[0])


def test_second_hello() -> None:
    """A second hello behind the first is read as such; without one nothing goes on, and nothing more is kept."""
    first, second = hello_message(), hello_message("clips.example.org")
    opening = Opening(protected(b"\x01"))
    assert opening.reads(protected(crypto(0, first)))
    assert (opening.goes_on, opening.second_hello, opening.octets) == (False, None, 2 * len(first))
    assert opening.reads(protected(crypto(len(first), second[:-1]), number=1))
    assert (opening.goes_on, opening.second_hello) == (True, None)
    assert opening.reads(protected(crypto(len(first) + len(second) - 1, second[-1:]), number=2))
    assert opening.second_hello is not None
    assert opening.second_hello.name == "clips.example.org"
    assert opening.hello is not None
    assert opening.hello.name == NAME
    opening.forget()
    assert opening.octets == 0


def test_the_last_octet_of_the_longest_hello() -> None:
    """It is kept: what is read of one has an end, and it is behind that octet."""
    assert Opening(protected(b"\x01")).reads(protected(crypto(MAX_HELLO - 1, b"x")))


def test_other_connections() -> None:
    """A packet of another connection is told by its keys, whatever its ids say."""
    flight = client()[1]
    opening = opening_of(flight)
    (other,) = initials(client()[1][0])

    assert not opening.reads(other)
    assert not opening.fits(other)
    assert opening.fits(initials(flight[0])[0])


def test_same_connection_in_another_version() -> None:
    """A client that the server has moved to version 2 goes on with keys of its first id (RFC 9368 §4.1)."""
    opening = Opening(protected(b"\x01", version=V1))

    assert opening.fits(protected(b"\x01", version=V2, number=1))


@pytest.mark.parametrize(
    ("largest", "number"),
    [(0, 1), (0, 127), (0, 129), (199, 73), (199, 328), (299, 173), (299, 428), (255, 256), (300, 299)],
)
def test_short_packet_numbers(largest: int, number: int) -> None:
    """A number in one octet is the nearest to the one expected (RFC 9000 §A.3), or the rest of a hello stays unread."""
    opening = Opening(protected(b"\x01"))
    assert opening.reads(protected(b"\x01", number=largest))

    assert opening.reads(protected(b"\x01", number=number, size=1))


@given(st.data())
def test_any_parts(data: st.DataObject) -> None:
    """However a hello is cut, ordered, repeated and put among other frames, it is whole in the end alone."""
    message = MESSAGE
    cuts = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=6)))
    parts = [(a, message[a:b]) for a, b in pairwise([0, *cuts, len(message)])]
    order = data.draw(st.permutations(parts + parts[:1]))
    opening = Opening(protected(b"\x01"))

    seen: set[int] = set()
    for number, (offset, part) in enumerate(order):
        assert (opening.hello is not None) is (len(seen) == len(parts))
        assert opening.reads(protected(b"\x01\0\0" + OTHER_FRAMES + crypto(offset, part) + bytes(3), number=number))
        seen.add(offset)

    assert opening.hello is not None
    assert opening.hello.message == message


MESSAGE = hello_message()
OTHER_FRAMES = b"\x02\x09\x09\x01\x09\x09\x09" + b"\x03\x09\x09\x00\x09\x09\x09\x09" + b"\x1c\x00\x00\x03bye"


@pytest.mark.parametrize(
    ("frames", "problem"),
    [
        (crypto(MAX_HELLO, b"x"), "too long"),
        (crypto(0, b"\x01\xff\xff\xff"), "too long"),
        (crypto(0, b"\x02"), "no ClientHello"),
        (crypto(0, b"\x01\x00\x00\x04none"), "malformed"),
        (b"\x08\x00", "type 0x8"),
        (crypto(0, b"abc")[:-1], "cut off"),
        (b"\x02\x00\x00\xff", "cut off"),
    ],
)
def test_no_hello(frames: bytes, problem: str) -> None:
    """What can't become a hello says so as soon as it shows."""
    opening = Opening(protected(b"\x01"))

    def read() -> object:
        return opening.reads(protected(frames)) and opening.hello

    with pytest.raises(QuicError, match=problem):
        read()


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Any datagram has Initial packets or has none, and none of them is readable by chance."""
    for initial in initials(b"\xc0\x00\x00\x00\x01" + data) + initials(data):
        assert not Opening(initial).reads(initial)


@given(st.binary(min_size=1, max_size=100))
def test_any_frames(data: bytes) -> None:
    """Any frames are read, or refused with one kind of error."""
    opening = Opening(protected(b"\x01"))
    try:
        assert opening.reads(protected(data))
        assert opening.hello is None or opening.hello.message
    except QuicError:
        return
