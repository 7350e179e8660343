"""By which link a client comes: asked of the kernel on loopback, and what is made of its answers and its failures."""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from labs.builders import present, snapshot
from labs.gate_lab import Adopter
from labs.records import Monotonic, enforcer_of
from tokgate.gate.gate import Gate
from tokgate.gate.identification import (
    COMPLAIN_EVERY,
    REMEMBERED,
    Links,
    Neighbours,
    _hardware,
    _index_in,
    _question,
    incoming_interface,
)
from tokgate.policy.membership import Identifies, Identity
from tokgate.policy.networks import Network
from tokgate.policy.values.hostname import IPAddress

INTERFACES, HARDWARE = Identifies(interfaces=True), Identifies(hardware=True)
BOTH = Identifies(interfaces=True, hardware=True)
PHONE = "00:53:00:00:00:03"


@contextmanager
def accepted(host: str) -> Iterator[socket.SocketType]:
    """A connection on loopback, as a gate accepts it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        taken, _ = server.accept()
        with taken:
            client.sendall(b"something that waits")
            yield taken


class Table(Neighbours):
    """Neighbours that a test knows."""

    def __init__(self, **known: str) -> None:
        super().__init__()
        self.known = {address.replace("_", "."): hardware for address, hardware in known.items()}
        self.asked = 0
        self.error: OSError | None = None

    def find(self, interface: int, address: IPAddress) -> str | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.known.get(str(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_interface(host: str) -> None:
    """The kernel tells it of both families, more than once, and what was sent is still there to be read."""
    with accepted(host) as client:
        for _ in range(2):
            index = present(incoming_interface(client))
            assert socket.if_indextoname(index) == "lo"
        assert client.recv(100) == b"something that waits"


def test_only_what_is_wanted() -> None:
    """A policy that names neither asks the kernel nothing; one that names interfaces gets no hardware address."""
    table = Table(**{"127_0_0_1": PHONE})
    links = Links(lambda error: None, neighbours=table)
    with accepted("127.0.0.1") as client:
        assert links.identify(None, "127.0.0.1", Identifies(users=True)) is None
        assert links.identify(client, "127.0.0.1", INTERFACES) == Identity(interface="lo")
        assert table.asked == 0
        assert links.identify(client, "127.0.0.1", HARDWARE) == Identity(device=PHONE)
        assert links.identify(client, "127.0.0.1", BOTH) == Identity(device=PHONE, interface="lo")


def test_neighbours_are_remembered_for_a_while() -> None:
    """Asked once in ten seconds; who was not found is asked for again at once, since the table learns."""
    table, clock = Table(**{"127_0_0_1": PHONE}), Monotonic()
    links = Links(lambda error: None, neighbours=table, monotonic=clock)
    with accepted("127.0.0.1") as client:
        for _ in range(3):
            links.identify(client, "127.0.0.1", HARDWARE)
        assert table.asked == 1
        clock.now += REMEMBERED
        table.known = {}
        for _ in range(2):
            assert links.identify(client, "127.0.0.1", HARDWARE) is None
        assert table.asked == 3


def test_what_fails_is_told() -> None:
    """Not being able to ask is complained about once a minute; that a client has gone meanwhile is not."""
    complaints: list[Exception] = []
    table, clock = Table(), Monotonic()
    table.error = OSError(errno.EAFNOSUPPORT, "no netlink")
    links = Links(complaints.append, neighbours=table, monotonic=clock)
    with accepted("127.0.0.1") as client:
        for seconds in (0, 1, COMPLAIN_EVERY):
            clock.now += seconds
            assert links.identify(client, "127.0.0.1", BOTH) is None
        assert complaints == [table.error] * 2
        client.close()
        clock.now += COMPLAIN_EVERY
        assert links.identify(client, "127.0.0.1", BOTH) is None
    assert len(complaints) == 2


def test_the_real_table() -> None:
    """Loopback has no neighbours, nor has an interface that is not there; asking again works."""
    neighbours = Neighbours()
    for index in (socket.if_nametoindex("lo"), 999_999):
        for address in ("127.0.0.1", "::1", "192.0.2.77"):
            assert neighbours.find(index, ip_address(address)) is None
    neighbours.close()
    assert neighbours.find(1, ip_address("192.0.2.77")) is None
    neighbours.close()


def message(level: int, kind: int, data: bytes) -> bytes:
    length = struct.calcsize("@Nii") + len(data)
    return struct.pack("@Nii", length, level, kind) + data + bytes(-length % struct.calcsize("@N"))


def test_control_messages() -> None:
    """The one that is meant is found behind others; what is cut short or makes no sense is none."""
    other, meant = message(0, 2, struct.pack("@i", 9)), message(0, 8, struct.pack("@i", 7) + bytes(8))
    assert _index_in(other + meant, (0, 8), 0) == 7
    assert _index_in(meant, (0, 8), 0) == 7
    assert _index_in(message(0, 2, b"") + meant, (0, 8), 0) == 7
    for wrong in (b"", other, meant[:18], struct.pack("@Nii", 0, 0, 8) + meant, message(0, 8, bytes(12))):
        assert _index_in(wrong, (0, 8), 0) is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (struct.pack("=HH", 8, 1) + bytes(4) + struct.pack("=HH", 10, 2) + bytes.fromhex("005300000003"), PHONE),
        (struct.pack("=HH", 4, 1) + struct.pack("=HH", 10, 2) + bytes.fromhex("005300000003"), PHONE),
        (struct.pack("=HH", 10, 2) + bytes(6), None),
        (struct.pack("=HH", 8, 2) + bytes(4), None),
        (struct.pack("=HH", 12, 2) + b"\1" * 8, None),
        (struct.pack("=HH", 0, 2), None),
        (b"", None),
    ],
)
def test_answers(attributes: bytes, expected: Any) -> None:
    """Six octets that are not all zero are a hardware address."""
    assert _hardware(bytes(28) + attributes) == expected


@pytest.mark.parametrize(
    ("address", "family", "length"), [("192.0.2.77", socket.AF_INET, 8), ("2001:db8::77", socket.AF_INET6, 20)]
)
def test_the_question_to_the_kernel(address: str, family: int, length: int) -> None:
    """One field that is off, and no device of a network that is listed by hardware address is recognised any more."""
    packed = ip_address(address).packed
    neighbour = struct.pack("=BBHiHBB", family, 0, 0, 3, 0, 0, 0)  # struct ndmsg
    attribute = struct.pack("=HH", length, 1) + packed  # NDA_DST
    header = struct.pack("=IHHII", 16 + 12 + length, 30, 1, 7, 0)  # RTM_GETNEIGH, NLM_F_REQUEST
    assert _question(7, 3, ip_address(address)) == header + neighbour + attribute


def reply(sequence: int, kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


FOUND = bytes(12) + struct.pack("=HH", 10, 2) + bytes.fromhex("005300000003")


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ((reply(1, 28, FOUND),), PHONE),
        ((reply(1, 28, FOUND + bytes(2)) + bytes(8),), PHONE),
        ((reply(0, 28, bytes(12)), reply(1, 28, FOUND)), PHONE),
        ((reply(1, 29, FOUND),), None),
        *(((reply(1, 2, struct.pack("=i", -code)),), None) for code in (errno.ENOENT, errno.ENODEV, errno.EINVAL)),
        ((reply(1, 2, struct.pack("=i", -errno.EPERM)),), errno.EPERM),
        ((TimeoutError(errno.ETIMEDOUT, "silent"),), errno.ETIMEDOUT),
    ],
)
def test_what_the_kernel_says(monkeypatch: pytest.MonkeyPatch, answers: tuple[Any, ...], found: Any) -> None:
    """A late answer to another question is no answer; what can't be asked is an error, after which it is asked anew."""
    opened: list[Any] = []

    class Kernel:
        """A netlink socket with these answers to each who opens it."""

        def __init__(self, *_: Any) -> None:
            self.answers, self.open = list(answers), True
            self.settimeout = self.send = lambda *_: None
            opened.append(self)

        def recv(self, _: int) -> bytes:
            answer = self.answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            assert isinstance(answer, bytes)
            return answer

        def close(self) -> None:
            self.open = False

    monkeypatch.setattr(socket, "socket", Kernel)
    neighbours = Neighbours()
    if isinstance(found, int):
        with pytest.raises(OSError, match=rf"\[Errno {found}\]"):
            neighbours.find(1, ip_address("192.0.2.77"))
    else:
        assert neighbours.find(1, ip_address("192.0.2.77")) == found
    assert [each.open for each in opened] == [found != errno.ETIMEDOUT]


@pytest.mark.parametrize("links", [True, False])
def test_what_the_kernel_is_asked_by_is_closed_with_the_gate(monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Gates come and go with policies in one process; one whose policy names no links asks the kernel nothing."""
    closed: list[Links] = []
    monkeypatch.setattr(Links, "close", lambda links: closed.append(links))
    guests = Network("guests", (), interfaces=("lan0",) if links else (), users=("ada",))
    Gate(enforcer_of(snapshot(networks=(guests,))), Adopter()).close()
    assert len(closed) == links
