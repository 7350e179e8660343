"""Packets that aioquic has written are found and read; its clients understand a refusal."""

import struct

import pytest
from aioquic.quic import events

from labs.quic_packets import SERVER, V1, V2, client, protected
from tokgate.wire.quic import (
    CRYPTO_ERROR,
    Opening,
    _keys,
    close,
    follows_initial,
    hides_packets,
    initials,
    is_unreadable,
    varint,
)


def test_keys() -> None:
    """The keys of RFC 9001 §A.1."""
    keys = _keys(V1, bytes.fromhex("8394c8f03e515708"), "client in")

    assert keys.iv.hex() == "fa044b2f42a3fd3b46fb255c"
    assert keys.header.key.hex() == "9f50449e04a0e810283a1e9933adedd2"
    assert _keys(V1, bytes.fromhex("8394c8f03e515708"), "server in").iv.hex() == "0ac1493ca1905853b0bba03e"


@pytest.mark.parametrize(
    ("data", "number"),
    [("c2197c5eff14e88c", 151288809941952652), ("9d7f3e7d", 494878333), ("7bbd", 15293), ("25", 37), ("4025", 37)],
)
def test_integers(data: str, number: int) -> None:
    """The integers of RFC 9000 §A.1."""
    assert varint(b"\0" + bytes.fromhex(data) + b"more", 1) == (number, 1 + len(data) // 2)


def test_the_longest_ids() -> None:
    """A connection id of 20 octets is read (RFC 9000 §17.2)."""
    assert Opening(protected(b"\x01", destination=bytes(20))).reads(protected(b"\x01", destination=bytes(20)))


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
    refused, flight = client(version=version)

    refused.receive_datagram(
        close(initials(flight[0])[0], CRYPTO_ERROR + 0x70, "Clips on work devices"), SERVER, now=0.1
    )

    terminated = [event for event in iter(refused.next_event, None) if isinstance(event, events.ConnectionTerminated)]
    if not terminated:  # told when the draining is over
        refused.handle_timer(now=100.0)
        terminated = [e for e in iter(refused.next_event, None) if isinstance(e, events.ConnectionTerminated)]
    (event,) = terminated
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


def test_packets_of_established_connections() -> None:
    """What carries data isn't taken for the beginning of another connection: that would be awaited in vain."""
    packet = bytearray(protected(b"\x01").packet)
    packet[0] &= 0x7F
    assert initials(bytes(packet)) == ()
