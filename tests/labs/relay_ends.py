"""A connection of a relay between two socket pairs, and what the relay would do with it."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tokgate.gate.connecting import proceed
from tokgate.gate.connection import Connection, Direction, State
from tokgate.gate.context import Context
from tokgate.gate.event_loop import EventLoop
from tokgate.gate.first_message import FirstExchange
from tokgate.gate.relay import Relay
from tokgate.gate.sockets import Entry, Listener
from tokgate.traffic.client_messages import Watched
from tokgate.traffic.limits import Limits

LIMITS = Limits(half_closed=300.0)


class NotingLoop(EventLoop):
    """A loop that notes what it would do with a connection."""

    def __init__(self) -> None:
        super().__init__(LIMITS, failed=lambda error: self.errors.append(error), closed=lambda _: None)
        self.done: list[str] = []
        self.errors: list[Exception] = []

    def close(self, connection: Connection) -> None:
        self.done.append("close")

    def watch_client(self, connection: Connection) -> None:
        self.done.append("listen")


class Noting(Relay):
    """A relay that notes what it would do with a connection."""

    def __init__(self) -> None:
        self.loop = NotingLoop()
        self.done = self.loop.done
        super().__init__(self.loop, LIMITS.half_closed)

    def reset(self, connection: Connection, other: Any) -> None:
        self.done.append("reset client" if other is connection.client else "reset server")

    def serve_bulk(self) -> None:
        """One turn."""
        direction = self.loop.bulk.popleft()
        direction.serve(direction)


class Exchange(FirstExchange):
    """A first exchange that notes when the client has to be decided about again."""

    def _read_again(self, connection: Connection) -> None:
        self.context.loop.done.append("asked again")  # type: ignore[attr-defined]


class Ends:
    """A connection between two socket pairs: what its client and its destination have in hand."""

    def __init__(self) -> None:
        self.client, inside = socket.socketpair()
        self.server, outside = socket.socketpair()
        self.relay = Noting()
        self.loop, self.done = self.relay.loop, self.relay.done
        self.context = Context(None, None, LIMITS, self.loop, self.relay, None, None, set())  # type: ignore[arg-type]
        listener = Listener(None, Entry.REDIRECT, 8080, 0)
        self.connection = Connection(inside, inside.fileno(), "192.0.2.7", 40000, listener, 0.0, self.relay)
        self.connection.server, self.connection.server_fd = outside, outside.fileno()
        for each in (inside, outside):
            each.setblocking(False)

    def close(self) -> None:
        """Close everything."""
        for each in (self.client, self.server, self.connection.client, self.connection.server):
            each.close()
        self.loop.epoll.close()

    def watch(self, watched: Watched) -> FirstExchange:
        """Have the first words passed on, and an answer awaited that something depends on."""
        self.connection.state = exchange = Exchange(self.context, watched)
        return exchange

    def proceed(self, watched: Watched | None = None) -> None:
        """The destination is there."""
        then: State = self.relay if watched is None else Exchange(self.context, watched)
        proceed(self.context, self.connection, then)

    def answer(self, event: int) -> None:
        """Serve an event of the destination."""
        self.connection.state.on_server(self.connection, event)

    def go_on(self, event: int) -> None:
        """Serve an event of the client."""
        self.connection.state.on_client(self.connection, event)

    @property
    def is_open(self) -> bool:
        """Whether the connection is relayed as any other."""
        return self.connection.state is self.relay

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
        self.relay, self.loop, self.connection = ends.relay, ends.loop, ends.connection
        self.loop.now = 7.0
        self.sender, self.receiver = (ends.client, ends.server) if is_up else (ends.server, ends.client)
        self.inside = ends.connection.client if is_up else ends.connection.server
        self.outside = ends.connection.server if is_up else ends.connection.client
        for fd in (ends.connection.client_fd, ends.connection.server_fd):
            self.loop.epoll.register(fd, 0)

    def event(self, event: int) -> list[str]:
        """Serve an event of the side that sends; what is done about it."""
        (self.relay.on_client if self.is_up else self.relay.on_server)(self.connection, event)
        return self.relay.done

    def takes(self, event: int) -> None:
        """Serve an event of the side that receives."""
        (self.relay.on_server if self.is_up else self.relay.on_client)(self.connection, event)

    def bulk(self, pending: bytes = b"") -> Direction:
        """Begin a transfer of bulk."""
        return self.relay.direction(self.connection, self.is_up, pending)

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
    made = Ends()
    yield made
    made.close()


@pytest.fixture(params=[True, False], ids=["up", "down"])
def way(ends: Ends, request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each direction in turn."""
    made = Way(ends, request.param)
    yield made
    made.relay.close_pipes()
