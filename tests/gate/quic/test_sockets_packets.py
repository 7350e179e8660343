"""Packets for raw sockets: their checksums are those that any receiver computes."""

import socket
import struct
from ipaddress import ip_address

import pytest

from tokgate.gate.quic.sockets import port_unreachable, udp_packet

CLIENT4, SERVER4 = (ip_address("192.0.2.10").packed, 50000), (ip_address("203.0.113.9").packed, 443)
CLIENT6, SERVER6 = (ip_address("2001:db8::10").packed, 50000), (ip_address("2001:db8:f::9").packed, 443)


def folded(data: bytes) -> int:
    """The ones' complement sum as RFC 1071 has it, word by word; 0xFFFF for what is intact."""
    words = struct.unpack(f"!{len(data + bytes(len(data) % 2)) // 2}H", data + bytes(len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("payload", [b"", b"x", b"even", bytes(1200), b"\xff" * 1201], ids=len)
@pytest.mark.parametrize(("client", "server"), [(CLIENT4, SERVER4), (CLIENT6, SERVER6)], ids=["ipv4", "ipv6"])
def test_udp(client: tuple[bytes, int], server: tuple[bytes, int], payload: bytes) -> None:
    """A datagram says what was given, and no receiver would throw it away."""
    packet = udp_packet(client, server, payload, traffic_class=0x2A, hops=7)

    v4 = len(client[0]) == 4
    head, segment = packet[: 20 if v4 else 40], packet[20 if v4 else 40 :]
    if v4:
        assert (head[1], head[8], head[9]) == (0x2A, 7, 17)
        assert struct.unpack_from("!H", head, 2) == (len(packet),)
        assert head[0] == 0x45
        assert (head[4:8], head[10:12]) == (b"\0\0\x40\0", b"\0\0"), "in one piece; the kernel fills in the checksum"
        assert (head[12:16], head[16:20]) == (client[0], server[0])
    else:
        assert struct.unpack("!IHBB", head[:8]) == (6 << 28 | 0x2A << 20, len(segment), 17, 7)
        assert (head[8:24], head[24:]) == (client[0], server[0])
    assert struct.unpack_from("!HHH", segment) == (50000, 443, 8 + len(payload))
    assert segment[8:] == payload
    assert segment[6:8] != b"\0\0", "zero means that there is no checksum"
    pseudo = client[0] + server[0] + struct.pack("!II", len(segment), 17)
    assert folded(pseudo + segment) == 0xFFFF


def test_packets_of_our_own_reach_far() -> None:
    """A refusal crosses as many hops as any host's packets (RFC 1700: 64), and no router takes it for special."""
    assert (udp_packet(CLIENT4, SERVER4, b"")[8], port_unreachable(CLIENT6, SERVER6, b"")[7]) == (64, 64)
    assert udp_packet(CLIENT4, SERVER4, b"")[1] == 0


def test_a_checksum_of_zero_is_sent_as_its_complement() -> None:
    """A sum that comes to zero would say that there is none (RFC 768)."""
    packet = udp_packet(CLIENT4, SERVER4, b"\0\0")
    (checksum,) = struct.unpack_from("!H", packet, 26)

    assert udp_packet(CLIENT4, SERVER4, struct.pack("!H", checksum))[26:28] == b"\xff\xff"


@pytest.mark.parametrize(("client", "server"), [(CLIENT4, SERVER4), (CLIENT6, SERVER6)], ids=["ipv4", "ipv6"])
def test_port_unreachable(client: tuple[bytes, int], server: tuple[bytes, int]) -> None:
    """The error comes from the server, and quotes enough for the client to know which of its sockets is meant."""
    packet = port_unreachable(client, server, bytes(1200))

    v4 = len(client[0]) == 4
    body = packet[20 if v4 else 40 :]
    assert packet[9 if v4 else 6] == (socket.IPPROTO_ICMP if v4 else socket.IPPROTO_ICMPV6)
    assert body[:2] == (b"\x03\x03" if v4 else b"\x01\x04")
    assert body[4:8] == bytes(4), "of no use (RFC 792)"
    quoted = body[8:]
    assert quoted == udp_packet(client, server, bytes(1200))[: len(quoted)]
    assert len(quoted) >= 48
    source, to = (packet[12:16], packet[16:20]) if v4 else (packet[8:24], packet[24:40])
    assert (source, to) == (server[0], client[0])
    pseudo = b"" if v4 else source + to + struct.pack("!II", len(body), 58)
    assert folded(pseudo + body) == 0xFFFF
