"""A connection of a relay between two socket pairs, and what the relay would do with it."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tokgate.gate.connection import OPEN, Answering, Connection, Direction
from tokgate.gate.first_exchange import FirstExchange
from tokgate.gate.sockets import Entry, Listener
from tokgate.traffic.second_words import Watched


class Noting(FirstExchange):
    """A relay that notes what it would do with a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def close(self, connection: Connection) -> None:
        self.done.append("close")

    def watch_client(self, connection: Connection) -> None:
        self.done.append("listen")

    def asked_again(self, connection: Connection, watched: Watched) -> None:
        self.done.append("asked again")

    def reset(self, connection: Connection, other: Any) -> None:
        self.done.append("reset client" if other is connection.client else "reset server")


Noting.__abstractmethods__ = frozenset()


@dataclass
class Ends:
    """A connection between two socket pairs: what its client and its destination have in hand."""

    client: socket.socket
    server: socket.socket
    connection: Connection
    relay: Noting = field(default_factory=Noting)

    def close(self) -> None:
        """Close everything."""
        for each in (self.client, self.server, self.connection.client, self.connection.server):
            each.close()
        self.relay.epoll.close()

    def watch(self, watched: Watched) -> Answering:
        """Have the first words passed on, and an answer awaited that something depends on."""
        self.connection.state = answering = Answering(watched)
        return answering

    def answer(self, event: int) -> None:
        """Serve an event of the destination."""
        assert isinstance(self.connection.state, Answering)
        self.relay.answered(self.connection, self.connection.state, event)

    def go_on(self, event: int) -> None:
        """Serve an event of the client, whose destination has not answered."""
        assert isinstance(self.connection.state, Answering)
        self.relay.goes_on(self.connection, self.connection.state, event)

    @property
    def heard(self) -> bytes:
        """What the client receives."""
        try:
            return self.client.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    @property
    def ended(self) -> list[str]:
        """Which of both sees the end of what it receives."""
        return [name for name in ("client", "server") if _is_ended(getattr(self, name))]


def _is_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def fill(sock: socket.socket) -> int:
    """Fill what a socket can hold for its receiver; the octets."""
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += sock.send(bytes(4096), socket.MSG_DONTWAIT)
    return filled


class Way:
    """One direction of a connection, whichever: a test says the same of both."""

    def __init__(self, ends: Ends, is_up: bool) -> None:
        self.ends, self.is_up = ends, is_up
        self.relay, self.connection = ends.relay, ends.connection
        self.relay.now = 7.0
        setattr(self.relay, "first_octet", lambda _: self.relay.done.append("first octet"))  # noqa: B010
        self.sender, self.receiver = (ends.client, ends.server) if is_up else (ends.server, ends.client)
        self.inside = ends.connection.client if is_up else ends.connection.server
        self.outside = ends.connection.server if is_up else ends.connection.client
        for fd in (ends.connection.client_fd, ends.connection.server_fd):
            self.relay.epoll.register(fd, 0)

    def event(self, event: int) -> list[str]:
        """Serve an event of the side that sends; what is done about it."""
        (self.relay.client_event if self.is_up else self.relay.server_event)(self.connection, event)
        return self.relay.done

    def takes(self, event: int) -> None:
        """Serve an event of the side that receives."""
        (self.relay.server_event if self.is_up else self.relay.client_event)(self.connection, event)

    def bulk(self, pending: bytes = b"") -> Direction:
        """Begin a transfer of bulk."""
        return self.relay._direction(self.connection, self.is_up, pending)

    def fill(self) -> int:
        """Fill the side that receives; the octets that it takes."""
        return fill(self.outside)

    def drain(self, filled: int) -> None:
        """Read that much there."""
        while filled:
            filled -= len(self.receiver.recv(filled))

    @property
    def direction(self) -> Direction | None:
        return self.connection.up if self.is_up else self.connection.down

    @property
    def ended(self) -> bool:
        return self.connection.up_done if self.is_up else self.connection.down_done

    @property
    def heard(self) -> bytes | None:
        """What the other side receives; empty is its end, None nothing."""
        try:
            return self.receiver.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None


@pytest.fixture
def ends() -> Iterator[Ends]:
    """An open connection."""
    (client, inside), (server, outside) = socket.socketpair(), socket.socketpair()
    inside.setblocking(False)
    listener = Listener(None, Entry.REDIRECT, 8080, 0)
    connection = Connection(inside, inside.fileno(), "192.0.2.7", 40000, listener, 0.0, OPEN)
    connection.server, connection.server_fd = outside, outside.fileno()
    outside.setblocking(False)
    made = Ends(client, server, connection)
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["up", "down"])
def way(ends: Ends, request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each direction in turn."""
    made = Way(ends, request.param)
    yield made
    made.relay.close_pipes()
