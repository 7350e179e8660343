"""IP packets as they are written to raw sockets: UDP (RFC 768), and ICMP's "port unreachable" (RFC 792, RFC 4443)."""

import struct
from typing import Final

type End = tuple[bytes, int]
"""An address of four or sixteen octets, and a port."""

_UDP: Final = 17
_ICMP: Final = 1
_ICMPV6: Final = 58
_DONT_FRAGMENT: Final = 0x4000
_QUOTED: Final = 64
"""Octets of what is refused that the refusal quotes; RFC 1122 §3.2.2 wants the header and eight more."""
_HOPS: Final = 64


def udp_packet(source: End, destination: End, payload: bytes, *, traffic_class: int = 0, hops: int = _HOPS) -> bytes:
    """A whole packet. `traffic_class`: DSCP and ECN; `hops`: the time to live."""
    length = 8 + len(payload)
    head = struct.pack("!HHH", source[1], destination[1], length)
    checksum = _checksum(_pseudo_header(source[0], destination[0], _UDP, length) + head + b"\0\0" + payload)
    segment = head + struct.pack("!H", checksum) + payload
    return _packet(source[0], destination[0], _UDP, segment, traffic_class, hops)


def port_unreachable(source: End, destination: End, payload: bytes) -> bytes:
    """What `destination` would say of a datagram from `source` if nobody listened there."""
    quoted = udp_packet(source, destination, payload)[:_QUOTED]
    here, there = destination[0], source[0]
    if len(here) == 4:
        message = struct.pack("!BBHI", 3, 3, 0, 0) + quoted
        checksum, protocol = _checksum(message), _ICMP
    else:
        message = struct.pack("!BBHI", 1, 4, 0, 0) + quoted
        checksum, protocol = _checksum(_pseudo_header(here, there, _ICMPV6, len(message)) + message), _ICMPV6
    return _packet(here, there, protocol, message[:2] + struct.pack("!H", checksum) + message[4:], 0, _HOPS)


def _packet(source: bytes, destination: bytes, protocol: int, body: bytes, traffic_class: int, hops: int) -> bytes:
    """Behind a header of IPv4, whose checksum the kernel fills in (raw(7)), or of IPv6."""
    if len(source) == 4:
        head = (0x45, traffic_class, 20 + len(body), 0, _DONT_FRAGMENT, hops, protocol, 0)
        return struct.pack("!BBHHHBBH", *head) + source + destination + body
    first = 6 << 28 | traffic_class << 20
    return struct.pack("!IHBB", first, len(body), protocol, hops) + source + destination + body


def _pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What checksums cover besides the packet (RFC 768, RFC 8200 §8.1)."""
    return source + destination + struct.pack("!II", length, protocol)


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): a sum in ones' complement is the remainder of one big number; never 0."""
    return 0xFFFF - int.from_bytes(data + bytes(len(data) % 2)) % 0xFFFF
