"""The loop's own decisions: who is told of which event, who has waited too long, and when sockets are closed."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from select import EPOLLIN, EPOLLOUT
from types import SimpleNamespace
from typing import Any

import pytest

from tokgate.gate.connection import CLOSED, Connection, Direction, State
from tokgate.gate.event_loop import (
    CONTENDED,
    CREDIT,
    FEW,
    LONGEST,
    LOOKS_AT,
    SHORT,
    SWEEP_SIZE,
    BusyPolling,
    EventLoop,
    Events,
)
from tokgate.gate.sockets import Entry, Listener, listen
from tokgate.traffic.limits import Limits


class Noting(EventLoop):
    """A loop that notes what it would do, and whose handlers fail where a test wants it."""

    def __init__(self) -> None:
        limits = Limits(idle=300.0, half_closed=30.0)
        super().__init__(limits, failed=partial(self.note, "failed"), closed=partial(self.note, "closed"))
        self.done: list[str] = []
        self.fails: set[str] = set()

    def note(self, name: str, *_: object) -> None:
        self.done.append(name)
        if name in self.fails:
            raise ValueError(name)


class Told(State):
    """A state that notes what its connection is told."""

    def __init__(self, loop: Noting) -> None:
        self._loop = loop

    def on_client(self, connection: Connection, event: int) -> None:
        self._loop.note("on_client")

    def on_server(self, connection: Connection, event: int) -> None:
        self._loop.note("on_server")

    def overdue(self, connection: Connection) -> None:
        self._loop.note("overdue")


@dataclass
class Watched:
    """A loop with one connection, and what the ends of it hold."""

    loop: Noting
    connection: Connection
    client: socket.socket
    server: socket.socket


@pytest.fixture
def watched() -> Iterator[Watched]:
    (client, inside), (server, outside) = socket.socketpair(), socket.socketpair()
    listener = Listener(None, Entry.REDIRECT, 8080, 0)
    loop = Noting()
    connection = Connection(inside, inside.fileno(), "192.0.2.7", 40000, listener, 0.0, Told(loop))
    connection.server, connection.server_fd = outside, outside.fileno()
    loop.watch_client(connection)
    loop.watch_server(connection)
    loop.once(0)  # of new sockets it is told that they are writable
    loop.done.clear()
    yield Watched(loop, connection, client, server)
    for each in (client, server, inside, outside, loop.epoll):
        each.close()


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_bug_costs_one_connection(watched: Watched, side: str) -> None:
    """Each end's events come to it; what serving one raises is told, and the connection is closed."""
    watched.loop.fails = {f"on_{side}"}
    getattr(watched, side).sendall(b"x")
    watched.loop.once(1)
    assert watched.loop.done == [f"on_{side}", "failed", "closed"]
    assert watched.connection.client.fileno() == watched.connection.server.fileno() == -1
    assert watched.loop.connections == {}


def test_new_connections_are_connected_when_all_are_read() -> None:
    """What fails costs its own connection, and one that is closed by then is not connected."""
    loop = Noting()

    class Passes(Told):
        def on_client(self, connection: Connection, event: int) -> None:
            assert loop.dials is not None
            loop.dials.append((lambda one, _: loop.note(f"connect {one.port}"), connection, ("198.51.100.1", 443)))
            loop.note(f"read {connection.port}")

    listener = Listener(None, Entry.TPROXY, 8080, 0)
    new = [Connection(None, -1, "192.0.2.7", port, listener, 0.0, Passes(loop)) for port in (1, 2, 3, 4)]
    loop.fails = {"read 2", "connect 3"}
    loop.read_together(new)
    read = ["read 1", "read 2", "failed", "closed", "read 3", "read 4"]
    assert loop.done == [*read, "connect 1", "connect 3", "failed", "closed", "connect 4"]
    assert loop.dials is None
    loop.epoll.close()


def test_other_descriptors(watched: Watched) -> None:
    """Listeners are served behind the connections of a batch, each alone; a callback that fails is told."""
    listeners = [listen("127.0.0.1", 0, Entry.EXPLICIT) for _ in range(2)]
    asked, asking = socket.socketpair()
    watched.loop.fails = {"called", "accept"}
    for each in listeners:
        watched.loop.accept_from(each.socket.fileno(), partial(watched.loop.note, "accept"))
    watched.loop.call_back(asked.fileno(), partial(watched.loop.note, "called"))
    dialled = [socket.create_connection(("127.0.0.1", each.port)) for each in listeners]
    for sock in (asking, watched.client):
        sock.sendall(b"x")
    watched.loop.once(1)
    assert sorted(watched.loop.done[:3]) == ["called", "failed", "on_client"]
    assert watched.loop.done[3:] == ["accept", "failed"] * 2
    for _ in range(2):
        watched.loop.call_no_more(asked.fileno())
        for each in listeners:
            watched.loop.call_no_more(each.socket.fileno())
    assert watched.loop.epoll.poll(0) == []
    for sock in (*dialled, asked, asking, *(each.socket for each in listeners)):
        sock.close()


def test_bulk_has_its_turn(watched: Watched) -> None:
    """While bulk waits nobody waits for events; each batch ends with one turn of it."""
    direction = Direction(watched.connection, True, b"", 1, lambda each: watched.loop.note("turn", each))
    watched.loop.bulk.append(direction)
    watched.loop.once(3600)
    assert (watched.loop.done, list(watched.loop.bulk)) == (["turn"], [])


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
    watched.loop._due = watched.loop._next_sweep
    watched.loop.once(0)
    assert watched.loop.done == []
    assert watched.loop.now > 0.0
    watched.loop._next_sweep = watched.loop._due = 0.0
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
    watched.connection.down = Direction(watched.connection, False, b"", 1, lambda _: None)
    watched.loop.watch_client(watched.connection)
    assert watched.loop.epoll.poll(0) == [(fd, EPOLLIN | EPOLLOUT)]


def test_a_greeting_is_watched_once(watched: Watched) -> None:
    """A client that says little at a time is told of without being watched anew."""
    watched.loop.unwatch(watched.connection)
    watched.loop.unwatch(watched.connection)
    assert watched.connection.client_fd not in watched.loop.connections
    watched.client.sendall(b"x")
    assert watched.loop.epoll.poll(0) == []
    for _ in range(2):
        watched.loop.keep_watching_client(watched.connection)
    assert watched.loop.epoll.poll(0) == [(watched.connection.client_fd, EPOLLIN)]
    for wanted, event in ((True, EPOLLIN | EPOLLOUT), (False, EPOLLIN)):
        watched.loop.watch_client_writes(watched.connection, wanted)
        assert watched.loop.epoll.poll(0) == [(watched.connection.client_fd, event)]


def test_sockets_are_closed_behind_the_batch(watched: Watched) -> None:
    """A number that was given out again would receive the old connection's events. To end twice counts once."""
    inside, outside = watched.connection.client, watched.connection.server
    for _ in range(2):
        watched.loop.close(watched.connection)
    assert watched.loop.done == ["closed"]
    assert watched.loop.connections == {}
    assert -1 not in (inside.fileno(), outside.fileno())
    watched.loop.release_closed()
    assert (inside.fileno(), outside.fileno()) == (-1, -1)


def test_a_number_is_not_given_out_again_within_a_batch(watched: Watched) -> None:
    """What a batch says of a connection that has just been closed in it is not taken for another's."""
    (other, again), opened = socket.socketpair(), list[socket.socket]()
    second = Connection(again, again.fileno(), "192.0.2.8", 40001, watched.connection.listener, 0.0, Told(watched.loop))

    def closes(connection: Connection, event: int) -> None:
        for each in (watched.connection, second):
            if each is not connection:
                watched.loop.close(each)
        opened.append(socket.socket())

    for each in (watched.connection, second):
        each.state.on_client = closes  # type: ignore[method-assign]
    watched.loop.watch_client(second)
    for sock in (watched.client, other):
        sock.sendall(b"x")
    numbers = {watched.connection.client_fd, watched.connection.server_fd, second.client_fd}
    watched.loop.once(1)
    assert len(opened) == 1, "of the other nothing is told any more"
    assert not {sock.fileno() for sock in opened} & numbers
    for sock in (other, again, *opened):
        sock.close()


def test_a_socket_that_another_process_has(watched: Watched) -> None:
    """It goes on there; here nothing is told of it any more, though the kernel would."""
    with watched.connection.client.dup(), watched.connection.server.dup():
        watched.loop.unwatch(watched.connection)
        watched.loop.close(watched.connection)
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
    direction = Direction(watched.connection, True, b"", 1, lambda _: None)
    for bulk in ([], [direction], []):
        loop.bulk.extend(bulk)
        loop.once(60)
    assert looks == [True, False, False]
    loop._carried -= 1.0
    loop.once(60)
    assert looks[-1]
    loop.connections.update({1000 + number: watched.connection for number in range(LOOKS_AT)})
    loop._carried -= 1.0
    loop.once(60)
    assert not looks[-1], "the ends of many connections need the processors"
    for number in range(LOOKS_AT):
        del loop.connections[1000 + number]
    watched.connection.state = CLOSED
    for came, looked in ((FEW, True), (FEW + 1, False), (0, True)):
        loop.read_together([watched.connection] * came)
        loop.once(60)
        assert looks[-1] is looked, "behind many new connections more of them are let come together"


# -- busy polling: where it pays, and not where others need the processor

EVENT: Events = [(7, 1)]
STEP = 2e-6
"""What a look takes, in seconds."""


class Kernel:
    """An epoll object whose next event comes `after` so many seconds, and the clock beside it."""

    def __init__(self, after: float, events: Events = EVENT, step: float = STEP) -> None:
        self.now = 0.0
        self.after = after
        self.step = step
        self.sleeps = self.looks = 0
        self._events = events
        self._comes = after

    def clock(self) -> float:
        return self.now

    def poll(self, timeout: float, most: int) -> Events:
        assert most >= len(self._events)
        if timeout > 0:
            self.sleeps += 1
            if self._comes > self.now + timeout:
                self.now += timeout
                return []
            self.now = max(self.now, self._comes)
        else:
            self.looks += 1
            self.now += self.step
        if self.now < self._comes:
            return []
        self._comes = self.now + self.after
        return self._events


AWAKE = int(LONGEST / STEP) + 2
"""Looks before a sleep, at most."""


@pytest.mark.parametrize(
    ("comes", "look", "before", "times", "looks", "sleeps"),
    [
        # What comes soon is waited for awake: who says one thing after another is not answered later for a sleep.
        *(((after,), True, 0, 1000, (1000, 1000 * AWAKE), 0) for after in (0.0, STEP, LONGEST / 2)),
        # What comes late is slept for: a gate with little to do takes no more of the processor for it.
        ((10 * SHORT,), True, 0, 100, (1, 100 * AWAKE), 100),
        ((10 * SHORT,), True, 100, 100, (0, 0), 100),
        # Of events that always come a little too late for it, few are looked for.
        ((SHORT * 0.9,), True, 100, 1600, (1, 100 * AWAKE), 1600),
        # When another process ran instead, the gate sleeps, so that it may run on.
        ((LONGEST * 0.9, EVENT, CONTENDED * 1.1), True, 0, int(CREDIT), (1, 8 * AWAKE), CREDIT),
        # Behind a batch of many the next one is slept for, so that it is as large; behind one of few it is not.
        ((LONGEST / 2, EVENT * FEW), True, 0, 10, (1, 10 * AWAKE), 0),
        ((LONGEST / 2, EVENT * (FEW + 1)), True, 0, 10, (1, AWAKE), 9),
        # A gate that carries data sleeps at once: what it would look for comes without end.
        ((LONGEST / 2,), False, 0, 10, (0, 0), 10),
    ],
)
def test_where_polling_pays(
    comes: tuple[Any, ...], look: bool, before: int, times: int, looks: tuple[int, int], sleeps: int
) -> None:
    """It looks for what comes soon, and not where others need the processor."""
    kernel = Kernel(*comes)
    polling = BusyPolling(kernel.poll, kernel.clock)
    for number in range(before + times):
        if number == before:
            kernel.looks = kernel.sleeps = 0
        assert polling.wait(1.0, look=look)
    assert looks[0] <= kernel.looks <= looks[1]
    assert kernel.sleeps == sleeps


def test_no_wait() -> None:
    """With bulk to carry it looks once, and nothing is learned from that."""
    kernel = Kernel(LONGEST / 2)
    polling = BusyPolling(kernel.poll, kernel.clock)
    for _ in range(100):
        assert polling.wait(0.0) == []
        kernel.now = 0.0
    assert kernel.sleeps == 0
