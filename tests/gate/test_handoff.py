"""Handing a socket to another process: what arrives is what was sent, and busy openers stop nobody."""

import re
import socket
from collections.abc import Iterator

import pytest

from labs.builders import present
from labs.waiting import DEADLINE
from tokgate.gate.handoff import SO_SNDBUFFORCE, Handover, OpenerChannel, channel, receive
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint
from tokgate.traffic.seen import Arrival

ARRIVAL = Arrival(
    client=Endpoint("192.0.2.1", 50000),
    destination=Endpoint("2001:db8::7", 443),
    connect="www.example.org",
    connection="0190",
    identity=Identity("alice", frozenset({"press"}), interface="eth1"),
)

type Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    write, read = channel()
    read.settimeout(DEADLINE)
    with write, read:
        yield write, read


@pytest.fixture
def client() -> Iterator[Pair]:
    """A connected pair: what is handed over, and the far end."""
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_the_socket_and_everything_known_of_it(pair: Pair, client: Pair) -> None:
    """Arrival, flags and 64 KiB of bytes arrive, and the descriptor is the same connection."""
    received = bytes(range(256)) * 256
    assert OpenerChannel(pair[0]).adopt(client[0], ARRIVAL, received, tls=True, explicit=False)
    taken = present(receive(pair[1]))
    handover, sock = taken
    assert handover == Handover(ARRIVAL, True, False, received)
    with sock:
        sock.sendall(b"hello")
    assert client[1].recv(10) == b"hello"


def test_a_full_queue_is_no_reason_to_wait(pair: Pair, client: Pair) -> None:
    """Openers that read nothing refuse at some point, at once; when they read again, more is taken."""
    openers = OpenerChannel(pair[0])
    taken_at_all = 0
    while openers.adopt(client[0], ARRIVAL, bytes(60_000), tls=True, explicit=False):
        taken_at_all += 1
        assert taken_at_all < 1000
    assert (openers.handed_over, openers.failed) == (taken_at_all, 1)
    first = present(receive(pair[1]))
    first[1].close()
    assert openers.adopt(client[0], ARRIVAL, bytes(60_000), tls=True, explicit=False)


WHOLE = Handover(ARRIVAL, True, False, b"").encode()
NO_IDENTITY = re.sub(rb'"identity":{[^}]*}', b'"identity":[]', WHOLE)


@pytest.mark.parametrize(
    "datagram", [b"", b"{}", b"{}\n", b"[]\n", b'{"client": 3}\nxyz', b"\xff\n", WHOLE[:-1], NO_IDENTITY]
)
def test_malformed_descriptions(datagram: bytes) -> None:
    """What no gate sent is an error, not a connection."""
    with pytest.raises(ValueError, match=r"."):
        Handover.decode(datagram)


def test_a_datagram_without_a_socket(pair: Pair) -> None:
    """A description alone is an error; the end of all gates is None."""
    pair[0].send(WHOLE)
    with pytest.raises(ValueError, match="0 descriptors"):
        receive(pair[1])
    pair[0].close()
    assert receive(pair[1]) is None


def test_a_client_without_a_word_about_it(pair: Pair) -> None:
    """It is let go, and the channel is not taken for closed."""
    near, far = socket.socketpair()
    with far:
        with near:
            socket.send_fds(pair[0], [b""], [near.fileno()])
        with pytest.raises(ValueError, match="no description"):
            receive(pair[1])
        assert far.recv(1) == b""
    pair[0].close()
    assert receive(pair[1]) is None


@pytest.mark.parametrize("privileged", [True, False])
def test_how_much_waits_for_an_opener(monkeypatch: pytest.MonkeyPatch, privileged: bool) -> None:
    """A client's few long heads don't fill the channel: megabytes do, or what a user may have at most."""
    stated: list[tuple[int, int, int]] = []

    class Noting:
        """A socket that notes its options."""

        def setsockopt(self, *option: int) -> None:
            if option[1] == SO_SNDBUFFORCE and not privileged:
                raise PermissionError
            stated.append(option)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socketpair", lambda *_: (Noting(), None))
    channel()
    option = SO_SNDBUFFORCE if privileged else socket.SO_SNDBUF
    assert stated == [(socket.SOL_SOCKET, option, 8 * 1024 * 1024)]
