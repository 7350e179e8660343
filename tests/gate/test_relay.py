"""Bulk that ends badly: whose bytes go to whom, what shows of a broken transfer, and who has to wait for whom."""

import socket
import threading
from collections.abc import Iterator

import pytest

from labs.builders import ban
from labs.gate_lab import (
    DEADLINE,
    RunningGate,
    StartGate,
    StartOrigin,
    broken_off,
    dial,
    exactly,
    pass_time,
    policy,
    read_all,
    reset,
    until,
)
from labs.hello_builder import hello_for
from labs.records import Monotonic
from labs.waiting import readable
from tokgate.gate.connection import Connection
from tokgate.gate.sockets import unacknowledged

# Connections that one side resets: the other gets all that was said before, and then the reset.

HELLO = hello_for("www.example.net")
CLOSED = 7  # TCP_CLOSE in net/tcp_states.h


def is_reset(sock: socket.socket) -> bool:
    """Whether the peer's reset has come, read or not."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSED


def says(sock: socket.socket, words: bytes) -> None:
    """Say something, and wait until it has arrived."""
    sock.sendall(words)
    until(lambda: not unacknowledged(sock))


class Lab:
    """A gate with one connection; the test does what its server does, too."""

    def __init__(self, gate: RunningGate, clock: Monotonic, accepted: list[socket.socket]) -> None:
        self.gate, self.clock, self._accepted = gate, clock, accepted

    @property
    def server(self) -> socket.socket:
        """The server's socket, which has read the hello."""
        until(lambda: self._accepted)
        return self._accepted[0]

    @property
    def connection(self) -> Connection:
        (found,) = set(self.gate.gate.loop.connections.values())
        return found

    def ends(self, survivor: socket.socket) -> bool:
        """Run the paused gate until it has ended the connection: time passes once all is acknowledged."""

        def over() -> bool:
            open_now = bool(self.gate.gate.loop.connections)
            if open_now and not unacknowledged(survivor):
                self.clock.now += 1
            return not open_now

        return self.gate.serves(over)


@pytest.fixture(params=[False, True], ids=["unbanned", "watched"])
def lab(
    request: pytest.FixtureRequest, start_gate: StartGate, start_origin: StartOrigin, monotonic: Monotonic
) -> Iterator[Lab]:
    """A gate for clients that no ban is for, and for clients whose server's first answer is looked into."""
    accepted: list[socket.socket] = []
    over = threading.Event()

    def serve(client: socket.socket) -> None:
        exactly(client, len(HELLO))
        accepted.append(client)
        over.wait(DEADLINE)

    bans = (ban(networks=("loop",)),) if request.param else ()
    yield Lab(start_gate(start_origin(serve), policy(*bans)), monotonic, accepted)
    over.set()


@pytest.mark.parametrize("length", [1, 30_000], ids=["short", "long"])
def test_an_answer_and_a_reset_at_once(lab: Lab, length: int) -> None:
    """A server that closes with something unread resets the connection behind its answer: 413, or an alert."""
    answer = bytes(range(256)) * (length // 256) + b"."
    with dial(lab.gate.redirected, HELLO) as client:
        assert lab.server
        lab.gate.pause()
        says(lab.server, answer)
        reset(lab.server)
        connection = lab.connection
        until(lambda: is_reset(connection.server))
        assert lab.ends(connection.client)
        assert exactly(client, len(answer)) == answer
        assert broken_off(client)


@pytest.mark.parametrize("ends", [False, True])
def test_an_answer_to_a_client_that_still_speaks(lab: Lab, ends: bool) -> None:
    """The same where the gate notices as it passes on what the client says, or its end."""
    with dial(lab.gate.redirected, HELLO) as client:
        says(lab.server, b"begins")
        assert exactly(client, 6) == b"begins"
        lab.gate.pause()
        client.shutdown(socket.SHUT_WR) if ends else client.sendall(b"more of the upload")
        connection = lab.connection
        assert readable(connection.client, DEADLINE)
        says(lab.server, b"too large")
        reset(lab.server)
        until(lambda: is_reset(connection.server))
        assert lab.ends(connection.client)
        assert exactly(client, 9) == b"too large"
        assert broken_off(client)


def test_an_end_before_the_reset(lab: Lab) -> None:
    """A server that has ended its answer, and resets for what the client says afterwards, has ended all the same."""
    with dial(lab.gate.redirected, HELLO) as client:
        assert lab.server
        lab.gate.pause()
        says(lab.server, b"all of it")
        lab.server.shutdown(socket.SHUT_WR)
        reset(lab.server)
        connection = lab.connection
        until(lambda: is_reset(connection.server))
        assert lab.ends(connection.client)
        assert read_all(client) == b"all of it"


@pytest.mark.parametrize("ends", [False, True])
def test_a_download_to_a_slow_client(lab: Lab, ends: bool) -> None:
    """What the gate has taken of it reaches the client, however late, before the reset does."""
    body = bytes(range(250)) * 400
    lab.gate.listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # inherited by who is accepted
    with dial(lab.gate.redirected, HELLO, room=4096) as client:
        says(lab.server, body)
        if ends:
            lab.server.shutdown(socket.SHUT_WR)
        reset(lab.server)
        connection = lab.connection
        until(lambda: connection.server_error)
        pass_time(lab.gate.gate, lab.clock, 1.0)
        assert exactly(client, len(body)) == body
        lab.gate.pause()
        assert lab.ends(connection.client)
        assert broken_off(client) is not ends


def test_an_upload_of_a_client_that_leaves(lab: Lab) -> None:
    """A client that closes with an answer unread resets the connection, and has sent all that it wanted to."""
    body = bytes(range(250)) * 400
    with dial(lab.gate.redirected, HELLO) as client:
        lab.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        says(lab.server, b"begins")
        assert exactly(client, 6) == b"begins"
        says(client, body)
        connection = lab.connection
        reset(client)
        until(lambda: connection.client_error)
        assert exactly(lab.server, len(body)) == body
        lab.gate.pause()
        assert lab.ends(connection.server)
        assert broken_off(lab.server)
