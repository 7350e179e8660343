"""What the kernel tells of a datagram, and what raw sockets are asked to send; with sockets that need no privileges."""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, ClassVar, Self

import pytest

from labs.quic_lab import KEY, SHORT, QuicGate
from labs.records import Records
from labs.waiting import DEADLINE
from tokgate.gate.quic import sockets
from tokgate.gate.quic.carrier import DATAGRAMS
from tokgate.gate.quic.sockets import (
    Datagram,
    Front,
    Key,
    Outlets,
    PerMark,
    QuicSockets,
    port_unreachable,
    receive,
    udp_packet,
)

KEY6: Key = ("2001:db8::7", 40000, "2001:db8:1::9", 443)
HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


@pytest.fixture
def front(host: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """A front without the one option that takes privileges, as if it stood at another port."""
    monkeypatch.setattr(socket, "IP_TRANSPARENT", socket.IP_TTL)
    with contextlib.ExitStack() as opened:
        try:
            made = sockets._front(opened, (host, 0))
        except OSError:
            if host == "127.0.0.1":
                raise
            pytest.skip("no IPv6 here")
        made.socket.settimeout(DEADLINE)
        yield Front(made.socket, 1)


def send(to: Front, *payloads: bytes) -> Any:
    """Send datagrams with a traffic class and a number of hops of their own; the address of the client."""
    address = to.socket.getsockname()[:2]
    with socket.socket(to.socket.family, socket.SOCK_DGRAM) as client:
        if client.family == socket.AF_INET:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x20)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
        else:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x20)
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 33)
        for payload in payloads:
            client.sendto(payload, address)
        return client.getsockname()[1]


@HOSTS
def test_what_the_kernel_tells_of_a_datagram(front: Front, host: str) -> None:
    """Who sent it, where it wanted to go, its traffic class and hops, and by which interface it came."""
    port = send(front, b"hello")
    key = (host, port, host, front.socket.getsockname()[1])
    assert receive(front) == Datagram(key, b"hello", 0x20, 33, socket.if_nametoindex("lo"))


@HOSTS
def test_what_is_sent_to_the_gate_itself(front: Front, records: Records) -> None:
    """It would be carried in a circle: it is counted, and others go on. One front does not hold up all others."""
    gate = QuicGate(records)
    own = Front(front.socket, front.socket.getsockname()[1])
    send(front, *[b"to the gate"] * (DATAGRAMS + 3))
    front.socket.setblocking(False)
    assert list(gate.carrier._come(own)) == []
    assert gate.counters.loops == DATAGRAMS
    assert [came.payload for came in gate.carrier._come(front)] == [b"to the gate"] * 3


def test_a_datagram_without_a_destination() -> None:
    """Where the kernel tells nothing, nothing is guessed."""

    class Silent:
        family = socket.AF_INET

        def recvmsg(self, size: int, room: int) -> Any:
            return b"x", [], 0, ("192.0.2.7", 40000)

    assert receive(Front(Silent(), 1)) is None  # type: ignore[arg-type]


class Raw:
    """Stands for a raw socket, which takes privileges to open."""

    def __init__(self, family: int, error: int = 0) -> None:
        self.family = family
        self.error = error
        self.sent: list[tuple[bytes, str, str]] = []

    def sendmsg(self, data: Any, control: Any, flags: int, to: tuple[str, int]) -> None:
        """Keep what is sent, and from which address: as `in_pktinfo` and `in6_pktinfo` say it, by any interface."""
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        (packet,), ((level, kind, beside),) = data, control
        if self.family == socket.AF_INET:
            assert (level, kind) == (socket.IPPROTO_IP, 8)
            interface, source, address = struct.unpack("@i4s4s", beside)
            assert address == bytes(4)
        else:
            assert (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO)
            source, interface = struct.unpack("@16si", beside)
        assert (interface, flags, to[1]) == (0, 0, 0)
        self.sent.append((packet, socket.inet_ntop(self.family, source), to[0]))


def raw_sockets(key: Key, **errors: int) -> tuple[Outlets, dict[str, Raw]]:
    """Outlets of the family of a flow; the errors with which sending fails."""
    family = socket.AF_INET6 if key is KEY6 else socket.AF_INET
    each = {name: Raw(family, errors.get(name, 0)) for name in ("carries", "opens", "tells", "answers")}
    return Outlets({family: PerMark(**each)}), each  # type: ignore[arg-type]


def ends(key: Key) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    family = socket.AF_INET6 if key is KEY6 else socket.AF_INET
    return (socket.inet_pton(family, key[0]), key[1]), (socket.inet_pton(family, key[2]), key[3])


@pytest.mark.parametrize("key", [KEY, KEY6])
@pytest.mark.parametrize(
    ("opens", "errors", "by"),
    [(True, {}, "opens"), (True, {"opens": errno.EPERM}, "carries"), (False, {}, "carries")],
)
def test_what_passes(key: Key, opens: bool, errors: dict[str, int], by: str) -> None:
    """From the client's own address, a hop later; by the socket whose mark opens the flow, if the kernel has room."""
    outlets, raw = raw_sockets(key, **errors)
    assert outlets.carries(Datagram(key, SHORT, 0x20, 2, 1), b"payload", opens=opens)
    packet = udp_packet(*ends(key), b"payload", traffic_class=0x20, hops=1)
    assert {name: each.sent for name, each in raw.items() if each.sent} == {by: [(packet, key[0], key[2])]}


@pytest.mark.parametrize(
    ("hops", "errors"), [(1, {}), (64, {"carries": errno.EPERM}), (64, {"carries": errno.ENETUNREACH})]
)
def test_what_can_not_pass(hops: int, errors: dict[str, int]) -> None:
    """What is routed in a circle ends; what the firewall drops or no route leads to is told to the client."""
    outlets, raw = raw_sockets(KEY, **errors)
    assert not outlets.carries(Datagram(KEY, SHORT, 0, hops, 1), SHORT, opens=False)
    assert [each.sent for each in raw.values()] == [[]] * 4


@pytest.mark.parametrize("opens", [True, False])
@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_queue_loses(opens: bool, error: int) -> None:
    """No error reaches a client for a datagram that a queue had no room for: its connection goes on."""
    outlets, raw = raw_sockets(KEY, opens=error, carries=error)
    assert outlets.carries(Datagram(KEY, SHORT, 0, 64, 1), SHORT, opens=opens)
    assert [each.sent for each in raw.values()] == [[]] * 4


@pytest.mark.parametrize("key", [KEY, KEY6])
def test_what_is_told_to_kernel_and_client(key: Key) -> None:
    """The end of a flow as the client would send it; refusals and errors from the address that it wants to reach."""
    outlets, raw = raw_sockets(key)
    client, server = ends(key)
    outlets.ends(key)
    outlets.answers(key, b"close")
    outlets.refuses(key, SHORT)
    outlets.failed(key[0], key[2:], True)
    outlets.failed(key[0], key[2:], False)
    here = "127.0.0.1" if key is KEY else "::1"
    failed = [udp_packet((client[0], 0), server, bytes(octets)) for octets in (1, 2)]
    assert raw["tells"].sent == [
        (udp_packet(client, server, b""), key[0], key[2]),
        *((packet, key[0], here) for packet in failed),
    ]
    assert raw["answers"].sent == [
        (udp_packet(server, client, b"close"), key[2], key[0]),
        (port_unreachable(client, server, SHORT), key[2], key[0]),
    ]


def test_sockets_of_the_program_before() -> None:
    """A program that takes over finds each socket where it was, and closes all of them at its end."""
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(6)]
        for each in made[:2]:
            each.bind(("127.0.0.1", 0))
        fronts = tuple((Front(each, each.getsockname()[1]),) for each in made[:2])
        numbers = QuicSockets(fronts, Outlets({socket.AF_INET: PerMark(*made[2:])})).descriptors()
        assert numbers == (
            [[made[0].fileno()], [made[1].fileno()]],
            {socket.AF_INET: [one.fileno() for one in made[2:]]},
        )
        for each in made:
            opened.callback(each.detach)
        heir = QuicSockets.inherited(*numbers)
        assert heir.descriptors() == numbers
        assert [front.port for (front,) in heir.fronts] == [front.port for (front,) in fronts]
        heir.close()
        assert heir.descriptors() == ([[-1], [-1]], {socket.AF_INET: [-1] * 4})


class Asked:
    """What a socket is made as, and the options that it gets; for those that take privileges."""

    made: ClassVar[list["Asked"]] = []
    most = 99

    def __init__(self, family: int, kind: int, protocol: int = 0) -> None:
        if len(self.made) == self.most:
            raise PermissionError
        self.family, self.kind, self.protocol = family, kind, protocol
        self.options: dict[tuple[int, int], int] = {}
        self.place: Any = None
        self.closed = 0
        self.made.append(self)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options[level, option] = value

    def bind(self, place: Any) -> None:
        self.place = place

    def getsockname(self) -> Any:
        return self.place

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    monkeypatch.setattr(Asked, "made", [])
    monkeypatch.setattr(socket, "socket", Asked)
    return Asked.made


PLACES = (("127.0.0.1", 8443), ("::1", 8443))
MARKS = PerMark(carries=1, opens=2, tells=4, answers=8)
IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6


def test_what_is_asked_of_the_kernel(asked: list[Asked]) -> None:
    """Each gate has a front at each place, of which the kernel tells all; raw sockets send as others, marked."""
    made = sockets.open_sockets(PLACES, 2, MARKS)
    assert [[front.port for front in each] for each in made.fronts] == [[8443, 8443]] * 2
    fronts, raw = asked[:4], asked[4:]
    assert [one.place for one in fronts] == [*PLACES, *PLACES]
    wait, room = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, (socket.SOL_SOCKET, 33)  # SO_RCVBUFFORCE
    for one in fronts:
        assert (one.kind, one.options[socket.SOL_SOCKET, socket.SO_REUSEPORT]) == (socket.SOCK_DGRAM | wait, 1)
        assert one.options[room] > 1 << 20, "as much as waits while a gate is busy, whatever rmem_max allows"
        v4 = one.family == socket.AF_INET
        options = {(IP, n) for n in (20, 8, 12, 13)} if v4 else {(IPV6, n) for n in (26, 74, 66, 51, 49)}
        assert {key for key, on in one.options.items() if key[0] != socket.SOL_SOCKET and on == 1} == options | {
            (IP, 19)
        }
    found = [(one.family, one.options.pop((socket.SOL_SOCKET, socket.SO_MARK)), one.options) for one in raw]
    for family, option in ((socket.AF_INET, (IP, 19)), (socket.AF_INET6, (IPV6, 75))):
        assert [each[1:] for each in found if each[0] == family] == [(mark, {option: 1}) for mark in (1, 2, 4, 8)]
    assert {(one.kind, one.protocol) for one in raw} == {(socket.SOCK_RAW | wait, socket.IPPROTO_RAW)}
    assert not any(one.closed for one in asked)
    made.close()
    assert [one.closed for one in asked] == [1] * 12


@pytest.mark.parametrize("most", [0, 1, 7])
def test_without_privileges(asked: list[Asked], monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Nothing stays open of what was opened before it came to that."""
    monkeypatch.setattr(Asked, "most", most)
    with pytest.raises(PermissionError):
        sockets.open_sockets(PLACES, 1, MARKS)
    assert [one.closed for one in asked] == [1] * most


# -- packets for raw sockets: their checksums are those that any receiver computes

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
