"""Handing a socket to another process: what arrives is what was sent, and a missing opener is no disaster."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokgate.blocklog.observation import Endpoint
from tokgate.gate.admission import Arrival
from tokgate.gate.handover import Handover, RemoteOpeners, receive

ARRIVAL = Arrival(
    client=Endpoint("192.0.2.1", 50000),
    destination=Endpoint("2001:db8::7", 443),
    connect="www.example.org",
    connection="0190",
)


class Listening:
    """An opener's socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.socket.settimeout(5)
        self.gates: list[socket.socket] = []

    def gate(self) -> socket.socket:
        """The next gate that connects."""
        self.gates.append(self.socket.accept()[0])
        return self.gates[-1]

    def close(self) -> None:
        """As if the opener had died."""
        for sock in (self.socket, *self.gates):
            sock.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def openers(tmp_path: Path) -> Iterator[list[Listening]]:
    """Two openers."""
    listening = [Listening(tmp_path / "a"), Listening(tmp_path / "b")]
    yield listening
    for opener in listening:
        opener.close()


@pytest.fixture
def client() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair: what is handed over, and the far end."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_the_socket_and_everything_known_of_it(
    openers: list[Listening], client: tuple[socket.socket, socket.socket]
) -> None:
    """Arrival, flags and 64 KiB of bytes arrive, and the descriptor is the same connection."""
    remote = RemoteOpeners((openers[0].path,))
    received = bytes(range(256)) * 256
    assert remote.adopt(client[0], ARRIVAL, received, tls=True, explicit=False)
    taken = receive(openers[0].gate())
    assert taken is not None
    handover, sock = taken
    assert handover == Handover(ARRIVAL, True, False, received)
    with sock:
        sock.sendall(b"hello")
    assert client[1].recv(10) == b"hello"
    remote.close()


def test_openers_take_turns(openers: list[Listening], client: tuple[socket.socket, socket.socket]) -> None:
    """Each gets every other connection."""
    remote = RemoteOpeners(tuple(o.path for o in openers))
    for _ in range(4):
        assert remote.adopt(client[0], ARRIVAL, b"", tls=True, explicit=False)
    for opener in openers:
        gate = opener.gate()
        for _ in range(2):
            taken = receive(gate)
            assert taken is not None
            taken[1].close()
    remote.close()


def test_a_dead_opener_is_passed_over(openers: list[Listening], client: tuple[socket.socket, socket.socket]) -> None:
    """The other one takes all; with none left, the gate is told so; a restarted one is found again."""
    remote = RemoteOpeners(tuple(o.path for o in openers))
    for _ in range(2):
        remote.adopt(client[0], ARRIVAL, b"", tls=True, explicit=False)
    openers[0].close()
    assert all(remote.adopt(client[0], ARRIVAL, b"", tls=True, explicit=False) for _ in range(3))
    openers[1].close()
    assert not remote.adopt(client[0], ARRIVAL, b"", tls=True, explicit=False)
    openers[0] = Listening(openers[0].path)
    assert remote.adopt(client[0], ARRIVAL, b"", tls=True, explicit=False)
    assert (remote.handed_over, remote.failed) == (6, 1)
    remote.close()


def test_a_full_queue_is_no_reason_to_wait(tmp_path: Path, client: tuple[socket.socket, socket.socket]) -> None:
    """An opener that reads nothing refuses at some point, at once."""
    opener = Listening(tmp_path / "full")
    remote = RemoteOpeners((opener.path,))
    results = [remote.adopt(client[0], ARRIVAL, bytes(60_000), tls=True, explicit=False) for _ in range(400)]
    assert not results[-1]
    opener.close()
    remote.close()


@pytest.mark.parametrize("datagram", [b"", b"{}", b"{}\n", b"[]\n", b'{"client": 3}\nxyz', b"\xff\n"])
def test_malformed_descriptions(datagram: bytes) -> None:
    """What no gate sent is an error, not a connection."""
    with pytest.raises(ValueError, match=r"."):
        Handover.decode(datagram)


def test_a_datagram_without_a_socket(openers: list[Listening]) -> None:
    """A description alone is an error; the end of the gate is None."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(openers[0].path))
        gate = openers[0].gate()
        stranger.send(Handover(ARRIVAL, True, False, b"").encode())
        with pytest.raises(ValueError, match="0 descriptors"):
            receive(gate)
    assert receive(gate) is None
