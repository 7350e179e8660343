"""The loop's own decisions: who is told of which event, who has waited too long, and when sockets are closed."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from types import SimpleNamespace
from typing import Any

import pytest

from tokgate.gate.connection import (
    CLOSED,
    CONNECTING,
    OPEN,
    PARTING,
    WAITING,
    Answering,
    AskingParent,
    Connection,
    Direction,
    Greeting,
)
from tokgate.gate.event_loop import LOOKS_AT, SWEEP_SIZE, Poller
from tokgate.gate.sockets import Entry, Listener, listen
from tokgate.traffic.limits import Limits


class Noting(Poller):
    """A loop that notes what it would do, and whose handlers fail where a test wants it."""

    limits = Limits(idle=300.0, half_closed=30.0)

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []
        self.fails: set[str] = set()
        self.bulk: list[object] = []
        for name in Poller.__abstractmethods__:
            setattr(self, name, partial(self._note, name))

    def _note(self, name: str, *_: object) -> None:
        self.done.append(name)
        if name in self.fails:
            raise ValueError(name)


Noting.__abstractmethods__ = frozenset()


@dataclass
class Watched:
    """A loop with one connection, and what the ends of it hold."""

    loop: Noting
    connection: Connection
    client: socket.socket
    server: socket.socket

    def told(self, state: Any, side: str, event: int) -> list[Any]:
        """What is done about an event in a state."""
        self.connection.state = state
        self.loop._early(self.connection, getattr(self.connection, f"{side}_fd"), event)
        return self.loop.done


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A connection that is open, and watched at both ends."""
    (client, inside), (server, outside) = socket.socketpair(), socket.socketpair()
    listener = Listener(None, Entry.REDIRECT, 8080, 0)
    connection = Connection(inside, inside.fileno(), "192.0.2.7", 40000, listener, 0.0, OPEN)
    connection.server, connection.server_fd = outside, outside.fileno()
    loop = Noting()  # type: ignore[abstract]
    loop.watch_client(connection)
    loop.watch_server(connection)
    loop.once(0)  # of new sockets it is told that they are writable
    loop.done.clear()
    yield Watched(loop, connection, client, server)
    for each in (client, server, inside, outside, loop.epoll):
        each.close()


ASKING, ANSWERING = AskingParent(None), Answering(None)  # type: ignore[arg-type]  # neither is looked into


@pytest.mark.parametrize(
    ("state", "side", "event", "done"),
    [
        (CONNECTING, "server", EPOLLOUT, ["connected"]),
        (ASKING, "server", EPOLLIN, ["connected"]),
        (CONNECTING, "client", EPOLLIN | EPOLLRDHUP, []),
        (CONNECTING, "client", EPOLLIN | EPOLLERR, ["forget", "closed"]),
        (ASKING, "client", EPOLLERR, ["forget", "closed"]),
        (Greeting(), "client", EPOLLIN, ["greet"]),
        (Greeting(), "client", EPOLLIN | EPOLLOUT, ["client_writable", "greet"]),
        (Greeting(), "server", EPOLLIN, ["server_event"]),
        (ANSWERING, "server", EPOLLIN, ["answered"]),
        (ANSWERING, "client", EPOLLIN, ["goes_on"]),
        (WAITING, "client", EPOLLIN | EPOLLRDHUP, []),
        (WAITING, "client", EPOLLIN | EPOLLERR, ["forget", "closed"]),
        (PARTING, "client", EPOLLIN, []),
        (CLOSED, "client", EPOLLIN | EPOLLERR, []),
    ],
)
def test_who_is_told(watched: Watched, state: Any, side: str, event: int, done: list[str]) -> None:
    """A client that has ended in order still gets its answer; one that broke off is closed, and not connected for."""
    assert watched.told(state, side, event) == done
    assert (watched.connection.state is CLOSED) is (state is CLOSED or "closed" in done)


@pytest.mark.parametrize(("event", "again"), [(EPOLLIN, False), (EPOLLIN | EPOLLRDHUP, True)])
def test_an_end_behind_a_greeting(watched: Watched, event: int, again: bool) -> None:
    """The end of a client that has not said enough is told once more, when what stands before it was read."""
    watched.client.sendall(b"half")
    watched.loop.epoll.poll(0)
    watched.told(Greeting(), "client", event)
    assert bool(watched.loop.epoll.poll(0)) is again


def test_a_greeting_that_ends_the_connection(watched: Watched) -> None:
    """A client that is refused, and has ended, is not watched any more: its number may be somebody else's."""
    watched.connection.state = Greeting()
    setattr(watched.loop, "greet", lambda connection, _: watched.loop.close(connection))  # noqa: B010  (noted else)
    watched.client.sendall(b"x")
    watched.client.shutdown(socket.SHUT_WR)
    watched.loop.once(1)
    assert (watched.loop.done, watched.loop.connections) == (["forget", "closed"], {})


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_bug_costs_one_connection(watched: Watched, side: str) -> None:
    """Each end's events come to it; what serving one raises is told, and the connection is closed."""
    watched.loop.fails = {f"{side}_event"}
    getattr(watched, side).sendall(b"x")
    watched.loop.once(1)
    assert watched.loop.done == [f"{side}_event", "failed", "forget", "closed"]
    assert watched.connection.client.fileno() == watched.connection.server.fileno() == -1
    assert watched.loop.connections == {}


def test_other_descriptors(watched: Watched) -> None:
    """Listeners are served behind the batch's connections, each alone; a callback that fails is told."""
    listeners = [listen("127.0.0.1", 0, Entry.EXPLICIT) for _ in range(2)]
    for each in listeners:
        watched.loop.listeners[each.socket.fileno()] = each
        watched.loop.epoll.register(each.socket.fileno(), EPOLLIN)
    asked, asking = socket.socketpair()
    watched.loop.fails = {"called"}
    watched.loop.callbacks[asked.fileno()] = partial(watched.loop._note, "called")
    watched.loop.epoll.register(asked.fileno(), EPOLLIN)
    dialled = [socket.create_connection(("127.0.0.1", each.port)) for each in listeners]
    for sock in (asking, watched.client):
        sock.sendall(b"x")
    watched.loop.once(1)
    for sock in (*dialled, asked, asking, *(each.socket for each in listeners)):
        sock.close()
    assert sorted(watched.loop.done[:-2]) == ["called", "client_event", "failed"]
    assert watched.loop.done[-2:] == ["accept", "accept"]


def test_bulk_has_its_turn(watched: Watched) -> None:
    """While bulk waits nobody waits for events; each batch ends with one turn of it."""
    watched.loop.bulk.append(None)
    watched.loop.once(3600)
    assert watched.loop.done == ["serve_bulk"]


@pytest.mark.parametrize(
    ("said", "ends", "closed"),
    [(b"", False, False), (b"x" * 9000, False, False), (b"x", True, True), (b"x" * (1 << 20), False, True)],
    ids=["silent", "goes-on", "ends", "endless"],
)
def test_after_a_refusal(watched: Watched, said: bytes, ends: bool, closed: bool) -> None:
    """What a refused client still says is thrown away until it ends, but not for ever."""
    watched.connection.client.setblocking(False)
    pieces = iter([said[at : at + 65536] for at in range(0, len(said), 65536)])

    class Client:
        """A socket that has that much to read."""

        def recv(self, most: int, flags: int) -> bytes:
            piece = next(pieces, None)
            if piece is None and not ends:
                raise BlockingIOError
            return piece or b""

        def close(self) -> None:
            """Nothing is open."""

    real, watched.connection.client = watched.connection.client, Client()
    watched.told(PARTING, "client", EPOLLIN)
    assert (watched.connection.state is CLOSED) is closed
    real.close()


def test_a_refused_client_that_breaks_off(watched: Watched) -> None:
    """It is closed as one that ends."""
    watched.connection.client.close()
    assert watched.told(PARTING, "client", EPOLLIN) == ["forget", "closed"]


@pytest.mark.parametrize(
    ("fields", "overdue"),
    [
        ({"deadline": 999.0}, True),
        ({"deadline": 1000.0}, True),
        ({"deadline": 1000.5, "seen": 1.0}, False),
        ({"seen": 700.0}, False),
        ({"seen": 699.0}, True),
        ({"seen": 970.0, "up_done": True}, False),
        ({"seen": 969.0, "up_done": True}, True),
        ({"seen": 969.0, "down_done": True}, True),
        ({"deadline": 999.0, "state": CLOSED}, False),
    ],
)
def test_who_has_waited_too_long(watched: Watched, fields: dict[str, Any], overdue: bool) -> None:
    """A state's own limit counts before idleness does, and less of it where one side has ended."""
    for field, value in fields.items():
        setattr(watched.connection, field, value)
    watched.loop.now = 1000.0
    watched.loop._sweep = iter([watched.connection])
    watched.loop._look_for_overdue()
    assert watched.loop.done == ["overdue"] * overdue


def test_a_large_table_is_looked_at_in_parts(watched: Watched) -> None:
    """A look at everything would hold up those that are served: the rest has its turn soon, and then from the front."""
    watched.connection.deadline = 1.0
    watched.loop.now = 1000.0
    watched.loop._sweep = iter([watched.connection] * (SWEEP_SIZE + 3))
    counts, waits = [], []
    for _ in range(3):
        watched.loop.done.clear()
        watched.loop._look_for_overdue()
        counts.append(len(watched.loop.done))
        waits.append(watched.loop._next_sweep - 1000.0)
    assert counts == [SWEEP_SIZE, 3, 2]  # a connection stands in the table at both its ends
    assert 0 < waits[0] < waits[1] == waits[2] == 1.0


def test_sweeps_come_with_the_loop(watched: Watched) -> None:
    """The loop looks for who is overdue by itself, when the time has come and not before."""
    watched.connection.deadline = 1.0
    watched.loop.now, watched.loop._next_sweep = 0.0, watched.loop.now + 3600
    watched.loop.once(0)
    assert watched.loop.done == []
    assert watched.loop.now > 0.0
    watched.loop._next_sweep = 0.0
    watched.loop.once(0)
    assert set(watched.loop.done) == {"overdue"}


def test_what_a_client_is_watched_for(watched: Watched) -> None:
    """Room to write is only told where somebody waits for it; to be watched anew tells again what came meanwhile."""
    assert watched.loop.epoll.poll(0) == []
    watched.client.sendall(b"x")
    fd = watched.connection.client_fd
    assert watched.loop.epoll.poll(0) == [(fd, EPOLLIN)]
    assert watched.loop.epoll.poll(0) == []
    watched.loop.watch_client(watched.connection)
    assert watched.loop.epoll.poll(0) == [(fd, EPOLLIN)]
    watched.connection.down = Direction(watched.connection, False, b"", 1)
    watched.loop.watch_client(watched.connection)
    assert watched.loop.epoll.poll(0) == [(fd, EPOLLIN | EPOLLOUT)]


def test_a_greeting_is_watched_once(watched: Watched) -> None:
    """A client that says little at a time is told of without being watched anew."""
    watched.loop.unwatch_client(watched.connection)
    watched.loop.unwatch_client(watched.connection)
    assert watched.connection.client_fd not in watched.loop.connections
    watched.client.sendall(b"x")
    assert watched.loop.epoll.poll(0) == []
    for _ in range(2):
        watched.loop.watch_greeting(watched.connection)
    assert watched.loop.epoll.poll(0) == [(watched.connection.client_fd, EPOLLIN)]
    watched.loop.watch_client_writes(watched.connection)
    assert watched.loop.epoll.poll(0) == [(watched.connection.client_fd, EPOLLIN | EPOLLOUT)]


def test_a_connection_goes_on_without_its_destination(watched: Watched) -> None:
    """Another address is tried: of the first no event comes any more, and its socket is closed behind the batch."""
    outside = watched.connection.server
    for _ in range(2):
        watched.loop.drop_server(watched.connection)
    assert (watched.connection.server, watched.connection.server_fd) == (None, -1)
    assert watched.loop.done == ["forget"]
    assert outside.fileno() != -1
    watched.server.sendall(b"x")
    watched.loop.once(0)
    assert (watched.loop.done, outside.fileno()) == (["forget"], -1)
    assert list(watched.loop.connections) == [watched.connection.client_fd]


@pytest.mark.parametrize("end", [Poller.close, Poller.let_go])
def test_sockets_are_closed_behind_the_batch(watched: Watched, end: Any) -> None:
    """A number that was given out again would receive the old connection's events. To end twice counts once."""
    inside, outside = watched.connection.client, watched.connection.server
    for _ in range(2):
        end(watched.loop, watched.connection)
    assert watched.loop.done == ["forget", "closed"]
    assert watched.loop.connections == {}
    assert -1 not in (inside.fileno(), outside.fileno())
    watched.loop.release_closed()
    assert (inside.fileno(), outside.fileno()) == (-1, -1)


def test_a_socket_that_another_process_has(watched: Watched) -> None:
    """It goes on there; here nothing is told of it any more, though the kernel would."""
    with watched.connection.client.dup(), watched.connection.server.dup():
        watched.loop.let_go(watched.connection)
        watched.loop.release_closed()
        watched.client.sendall(b"x")
        watched.server.sendall(b"x")
        assert watched.loop.epoll.poll(0) == []


def test_when_nothing_is_looked_for(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a turn of bulk the loop sleeps: what would be looked for comes by itself."""
    loop, looks = watched.loop, list[bool]()

    def wait(timeout: float, *, look: bool) -> list[tuple[int, int]]:
        looks.append(look and timeout > 0)
        return []

    monkeypatch.setattr(loop, "_polling", SimpleNamespace(wait=wait))
    for bulk in ([], [object()], []):
        loop.bulk = list(bulk)
        loop.once(60)
    assert looks == [True, False, False]
    loop.now += 1.0
    loop.once(60)
    assert looks[-1]
    loop.connections.update({1000 + number: watched.connection for number in range(LOOKS_AT)})
    loop.now += 1.0
    loop.once(60)
    assert not looks[-1], "the ends of many connections need the processors"
    for number in range(LOOKS_AT):
        del loop.connections[1000 + number]
