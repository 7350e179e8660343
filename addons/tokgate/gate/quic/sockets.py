"""Sockets for QUIC: where the firewall brings datagrams, and raw ones that speak from others' addresses.

Raw sockets are opened while there are privileges; using them takes none. What a datagram means to the firewall is told
by the mark of the socket that it is written to (`gateway/udp_rules.py`): so a gate changes the kernel's set of flows
without netlink, and in the same step in which the datagram leaves.
"""

import contextlib
import errno
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tokgate.gate.sockets import Address

IP_RECVORIGDSTADDR: Final = 20  # linux/in.h
IPV6_RECVORIGDSTADDR: Final = 74  # linux/in6.h
_IPV6_TRANSPARENT: Final = 75  # linux/in6.h
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_IP_RECVTTL: Final = 12

_QUEUE_FULL: Final = (errno.EAGAIN, errno.ENOBUFS)
_CONTROL_OCTETS: Final = 256
"""Octets for what the kernel tells beside a datagram."""
_RECEIVE_BUFFER: Final = 4 << 20
_LARGEST: Final = 65536

type Key = tuple[str, int, str, int]
"""A flow: the client's address and port, the destination's."""


class PerMark[T](NamedTuple):
    """The firewall marks of raw sockets, and the sockets of a family of addresses by what their marks say."""

    carries: T
    """The datagram passes."""
    opens: T
    """It passes, and its flow with it: the kernel forwards what follows."""
    tells: T
    """It only tells the firewall something, by its length, and goes nowhere."""
    answers: T
    """It is a refusal, towards the client."""


@dataclass(frozen=True, slots=True)
class Front:
    """A socket to which `tproxy` brings datagrams."""

    socket: socket.socket
    port: int


class Datagram(NamedTuple):
    """A datagram that came to a front, with its addresses as the client sent it."""

    key: Key
    payload: bytes
    traffic_class: int
    hops: int
    interface: int
    """The index of the interface by which it came."""


@dataclass(frozen=True, slots=True)
class QuicSockets:
    """All of them. `fronts` has those of each gate: one gate has all of a flow, whatever others come and go."""

    fronts: tuple[tuple[Front, ...], ...]
    outlets: "Outlets"

    @classmethod
    def inherited(cls, fronts: Iterable[Iterable[int]], raw: Mapping[int, Iterable[int]]) -> "QuicSockets":
        """The sockets that another program has opened, from the numbers that `descriptors` gave."""
        ours = tuple(tuple(_inherited_front(number) for number in each) for each in fronts)
        families = {family: PerMark(*(socket.socket(fileno=n) for n in each)) for family, each in raw.items()}
        return cls(ours, Outlets(families))

    def descriptors(self) -> tuple[list[list[int]], dict[int, list[int]]]:
        """The numbers of the fronts of each gate, and of the raw sockets by family."""
        return [[front.socket.fileno() for front in fronts] for fronts in self.fronts], self.outlets.descriptors()

    def close(self) -> None:
        for front in (front for fronts in self.fronts for front in fronts):
            front.socket.close()
        self.outlets.close()


def _inherited_front(descriptor: int) -> Front:
    found = socket.socket(fileno=descriptor)
    return Front(found, found.getsockname()[1])


def open_sockets(places: Iterable[Address], gates: int, marks: PerMark[int]) -> QuicSockets:
    """Fronts at each of these places for that many gates, and raw sockets of their families.

    Raises:
        OSError: a port is taken, or CAP_NET_RAW or CAP_NET_ADMIN is missing.

    """
    with contextlib.ExitStack() as opened:
        fronts = tuple(tuple(_front(opened, place) for place in places) for _ in range(gates))
        families = dict.fromkeys(int(front.socket.family) for front in fronts[0])
        outlets = Outlets({each: PerMark(*(_raw(opened, each, mark) for mark in marks)) for each in families})
        opened.pop_all()
    return QuicSockets(fronts, outlets)


def _front(opened: contextlib.ExitStack, place: Address) -> Front:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    made = opened.enter_context(socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)  # the kernel chooses by a hash of the client's end
    with contextlib.suppress(OSError):  # then it is as large as anyone's
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    if family == socket.AF_INET6:
        level = socket.IPPROTO_IPV6
        wanted = [socket.IPV6_V6ONLY, IPV6_RECVORIGDSTADDR]
        wanted += (socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVPKTINFO)
    else:
        level = socket.IPPROTO_IP
        wanted = [IP_RECVORIGDSTADDR, socket.IP_RECVTOS, _IP_RECVTTL, socket.IP_PKTINFO]
    made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, True)  # for IPv6 as well
    for option in wanted:
        made.setsockopt(level, option, True)
    made.bind(place)
    return Front(made, made.getsockname()[1])


def _raw(opened: contextlib.ExitStack, family: int, mark: int) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made = opened.enter_context(socket.socket(family, kind, socket.IPPROTO_RAW))  # implies that we write the headers
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, True)  # raw sockets of IPv6 don't know IPv4's option
    else:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, True)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    return made


def receive(front: Front) -> Datagram | None:
    """The next datagram that is there; None if it was sent to the gate itself, or the kernel doesn't tell where to.

    Raises:
        BlockingIOError: there is none.

    """
    payload, told, _, peer = front.socket.recvmsg(_LARGEST, _CONTROL_OCTETS)
    beside = {(level, kind): data for level, kind, data in told}
    try:
        host, port, *rest = _beside6(beside) if front.socket.family == socket.AF_INET6 else _beside4(beside)
    except KeyError:
        return None
    if port in (0, front.port):
        return None
    return Datagram((peer[0], peer[1], host, port), payload, *rest)


def _beside4(told: dict[tuple[int, int], bytes]) -> tuple[str, int, int, int, int]:
    """Where a datagram wanted to go, its traffic class and hops, and the interface."""
    where = told[socket.IPPROTO_IP, IP_RECVORIGDSTADDR]  # sockaddr_in
    traffic_class = told[socket.IPPROTO_IP, socket.IP_TOS][0]
    (hops,) = struct.unpack("@i", told[socket.IPPROTO_IP, socket.IP_TTL])
    (interface,) = struct.unpack_from("@i", told[socket.IPPROTO_IP, socket.IP_PKTINFO])
    return socket.inet_ntoa(where[4:8]), int.from_bytes(where[2:4]), traffic_class, hops, interface


def _beside6(told: dict[tuple[int, int], bytes]) -> tuple[str, int, int, int, int]:
    level = socket.IPPROTO_IPV6
    where = told[level, IPV6_RECVORIGDSTADDR]  # sockaddr_in6
    (traffic_class,) = struct.unpack("@i", told[level, socket.IPV6_TCLASS])
    (hops,) = struct.unpack("@i", told[level, socket.IPV6_HOPLIMIT])
    (interface,) = struct.unpack_from("@i", told[level, socket.IPV6_PKTINFO], 16)
    host = socket.inet_ntop(socket.AF_INET6, where[8:24])
    return host, int.from_bytes(where[2:4]), traffic_class, hops, interface


class Outlets:
    """The raw sockets."""

    def __init__(self, raw: Mapping[int, PerMark[socket.socket]]) -> None:
        self._raw: Final = raw

    def descriptors(self) -> dict[int, list[int]]:
        """The numbers of the raw sockets by family, in the order of `PerMark`."""
        return {family: [each.fileno() for each in raw] for family, raw in self._raw.items()}

    def carries(self, came: Datagram, payload: bytes, *, opens: bool) -> bool:
        """Send a datagram on from the client's own address; False if it can't be.

        `opens`: have the kernel forward its flow from now on, if its set has room. As by a router the datagram has a
        hop less before it: what is routed in a circle ends.
        """
        if came.hops <= 1:
            return False
        client, server = _ends(came.key)
        packet = udp_packet(client, server, payload, traffic_class=came.traffic_class, hops=came.hops - 1)
        raw, to = self._raw[_family(came.key)], came.key[2]
        return (opens and _send(raw.opens, packet, client[0], to)) or _send(raw.carries, packet, client[0], to)

    def ends(self, key: Key) -> None:
        """Have the kernel forward a flow no more."""
        client, server = _ends(key)
        _send(self._raw[_family(key)].tells, udp_packet(client, server, b""), client[0], key[2])

    def failed(self, client: str, destination: Address, refused: bool) -> None:
        """Have the kernel refuse a client's next connections to a destination, for a while.

        It was `refused`, or nobody answered.
        """
        key = client, 0, *destination
        source, server = _ends(key)
        packet = udp_packet(source, server, bytes(1 if refused else 2))
        # By loopback: there may be no route to the destination, and without the firewall's rules it goes nowhere.
        _send(self._raw[_family(key)].tells, packet, source[0], "::1" if ":" in client else "127.0.0.1")

    def answers(self, key: Key, payload: bytes) -> None:
        """Send a datagram to the client, from the address that it wants to reach."""
        client, server = _ends(key)
        _send(self._raw[_family(key)].answers, udp_packet(server, client, payload), server[0], key[0])

    def refuses(self, key: Key, payload: bytes) -> None:
        """Tell the client that nobody is there, so that it tries otherwise at once."""
        client, server = _ends(key)
        _send(self._raw[_family(key)].answers, port_unreachable(client, server, payload), server[0], key[0])

    def close(self) -> None:
        for raw in self._raw.values():
            for each in raw:
                each.close()


def _send(raw: socket.socket, packet: bytes, source: bytes, to: str) -> bool:
    """Send a packet, routed as what `source` sends; False if the kernel refuses it.

    That is also how a firewall's drop looks. What a queue has no room for is lost, as on any network, and not refused.
    """
    if raw.family == socket.AF_INET:
        control = (socket.IPPROTO_IP, socket.IP_PKTINFO, struct.pack("=i4s4x", 0, source))
    else:
        control = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, source + bytes(4))
    try:
        raw.sendmsg((packet,), (control,), 0, (to, 0))
    except OSError as error:
        return error.errno in _QUEUE_FULL
    return True


def _family(key: Key) -> int:
    return socket.AF_INET6 if ":" in key[0] else socket.AF_INET


def _ends(key: Key) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    host, port, server, server_port = key
    family = _family(key)
    return (socket.inet_pton(family, host), port), (socket.inet_pton(family, server), server_port)


# -- IP packets as they are written to raw sockets: UDP (RFC 768), and ICMP's "port unreachable" (RFC 792, RFC 4443)

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
