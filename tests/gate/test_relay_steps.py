"""A relay's single steps between two socket pairs: what passes at once, and how either side ends."""

import contextlib
import fcntl
import os
import socket
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP

import pytest

from labs.relay_ends import Ends, Noting, Way
from tokgate.gate import relay
from tokgate.gate.connection import CLOSED, Connection, Direction
from tokgate.gate.relay import BUFFER, LIVELY, PIPE, SHORT, STICK, Relay
from tokgate.gate.sockets import Entry, Listener


def test_what_comes_passes(way: Way) -> None:
    """At once, and noted: a connection with traffic is not idle."""
    for said in (b"s", b"aid"):
        way.sender.sendall(said)
        assert way.event(EPOLLIN) == []
        assert (way.heard, way.direction, way.ended) == (said, None, False)
    assert way.connection.seen == 7.0
    assert way.event(EPOLLIN) == []
    assert way.heard is None


@pytest.mark.parametrize("last", [b"last words", b""])
def test_an_end_passes_with_the_last_words(way: Way, last: bytes) -> None:
    """An end that was announced is passed on as soon as all before it was; the answer may still come."""
    way.sender.sendall(last)
    way.sender.shutdown(socket.SHUT_WR)
    assert way.event(EPOLLIN | EPOLLRDHUP) == []
    assert way.ended
    assert (way.heard or b"") + (way.heard or b"") == last
    assert way.heard == b""
    assert (way.connection.client_fin, way.connection.server_fin) == (way.is_up, not way.is_up)
    way.sender.close()
    assert way.event(EPOLLIN | EPOLLRDHUP) == [], "an end comes once"


def test_an_end_behind_more_than_is_read_at_once(way: Way) -> None:
    """Nothing is cut off: what fills the buffer may have more behind it."""
    for sock in (way.sender, way.outside):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * BUFFER)
    way.sender.sendall(bytes(BUFFER))
    way.event(EPOLLIN | EPOLLRDHUP)
    assert not way.ended
    assert way.direction is not None
    assert list(way.loop.bulk) == [way.direction]


@pytest.mark.parametrize("event", [EPOLLERR, EPOLLIN | EPOLLERR])
def test_one_side_breaks_off(way: Way, event: int) -> None:
    """What it had said is passed on; nothing goes to it any more, and the other is told if that is all."""
    told = ["reset server" if way.is_up else "reset client"]
    way.receiver.sendall(b"to nobody")
    way.sender.sendall(b"half")
    for _ in range(2):
        assert way.event(event) == []
        assert list(way.loop.bulk) == [way.direction]
        way.takes(EPOLLIN)
    way.relay.serve_bulk()
    assert (way.heard, way.relay.done) == (b"half", [])
    way.connection.up = way.connection.down = None
    assert way.event(event) == told


def test_one_side_that_had_ended_breaks_off(way: Way) -> None:
    """The other has all, or will have it."""
    way.sender.shutdown(socket.SHUT_WR)
    way.event(EPOLLIN | EPOLLRDHUP)
    assert way.ended
    assert way.event(EPOLLERR) == ["reset server" if way.is_up else "reset client"]


def test_one_side_can_not_be_read_from(way: Way) -> None:
    """The same when reading is what tells."""
    way.inside.close()
    assert way.event(EPOLLIN) == ["reset server" if way.is_up else "reset client"]


def test_one_side_takes_nothing_any_more(way: Way) -> None:
    """The sender is not left to send into nowhere."""
    way.sender.sendall(b"said")
    way.receiver.close()
    assert len(way.event(EPOLLIN)) == 1


def test_another_gate_goes_on(way: Way) -> None:
    """What came meanwhile is told, and what waited has its turn."""
    way.bulk(b"waits")
    for fd in (way.connection.client_fd, way.connection.server_fd):
        way.loop.epoll.unregister(fd)
    way.relay.resume(way.connection)
    assert way.relay.done == ["listen"]
    assert list(way.loop.bulk) == [way.direction]
    way.ends.server.sendall(b"x")
    assert [fd for fd, event in way.loop.epoll.poll(0) if event & EPOLLIN] == [way.connection.server_fd]


@pytest.mark.parametrize("closed", [False, True])
def test_breaking_off_is_passed_on(closed: bool) -> None:
    """A reset goes on as a reset; sockets of a connection that is over may be somebody else's already."""
    relay, told = Noting(), []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as other:
        accepted, _ = server.accept()
        listener = Listener(None, Entry.REDIRECT, 8080, 0)
        connection = Connection(None, -1, "192.0.2.7", 40000, listener, 0.0, CLOSED if closed else relay, other)
        Relay.reset(relay, connection, other)
        Relay.reset(relay, connection, None)
        other.close()
        with accepted:
            try:
                told.append(accepted.recv(1))
            except ConnectionResetError:
                told.append(b"reset")
    relay.loop.epoll.close()
    assert told == [b"" if closed else b"reset"]
    assert relay.done == ["close"] * 2


# -- the ends of directions


def test_an_end_that_nobody_can_be_told(ends: Ends) -> None:
    """The other side has gone already: what it said last is looked for, and there is none."""
    ends.connection.server.close()
    ends.relay._end(ends.connection, True)
    assert ends.relay.done == ["reset client"]


# -- bulk: what waits, whose turn it is, and what a pipe holds


def test_who_takes_no_more(way: Way) -> None:
    """What does not fit waits, in order, until there is room; others have their turns meanwhile."""
    filled = way.fill()
    way.sender.sendall(b"waits")
    assert way.event(EPOLLIN) == []
    direction = way.direction
    assert direction is not None
    assert (direction.pending, direction.queued) == (b"waits", True)
    way.event(EPOLLIN)
    assert list(way.loop.bulk) == [direction], "a direction has one place"
    way.relay.serve_bulk()
    assert (direction.blocked, direction.queued, list(way.loop.bulk)) == (True, False, [])
    way.event(EPOLLIN)
    way.takes(EPOLLIN)
    assert list(way.loop.bulk) == [], "it waits for room"
    way.drain(filled)
    for _ in range(2):
        way.takes(EPOLLOUT)
        assert (direction.blocked, list(way.loop.bulk)) == (False, [direction])
    way.relay.serve_bulk()
    assert way.heard == b"waits"


def test_a_full_sink_keeps_what_its_pipe_holds(way: Way) -> None:
    """A splice would wait for who doesn't read, and all others with it; here it goes on when there is room."""
    way.connection.client.setblocking(True)
    direction = way.bulk()
    assert not way.connection.client.getblocking()
    filled = way.fill()
    way.sender.sendall(b"waits")
    way.event(EPOLLIN)
    way.relay.serve_bulk()
    assert (direction.in_pipe, direction.blocked, direction.queued) == (5, True, False)
    way.event(EPOLLIN)
    assert list(way.loop.bulk) == []
    way.drain(filled)
    if not way.is_up:
        assert (way.connection.client_fd, EPOLLOUT) in way.loop.epoll.poll(0), "it is told that there is room"
        way.relay.unblock(way.connection.down)
    way.takes(EPOLLOUT)
    assert list(way.loop.bulk) == [direction]
    way.relay.serve_bulk()
    assert (way.heard, direction.in_pipe, direction.blocked) == (b"waits", 0, False)


def test_bulk_passes_whole(way: Way) -> None:
    """What was read before there was a pipe goes first; the end comes behind all."""
    way.bulk(b"first")
    assert way.direction is not None
    way.relay._queue(way.direction)
    way.sender.sendall(b"second")
    way.relay.serve_bulk()
    assert list(way.loop.bulk) == [way.direction]
    way.relay.serve_bulk()
    assert (way.heard, way.connection.seen) == (b"firstsecond", 7.0)
    way.sender.shutdown(socket.SHUT_WR)
    way.event(EPOLLIN | EPOLLRDHUP)
    way.relay.serve_bulk()
    assert (way.heard, way.ended, list(way.loop.bulk)) == (b"", True, [])
    way.event(EPOLLIN | EPOLLRDHUP)
    assert list(way.loop.bulk) == [], "an end comes once"
    assert len(way.relay._pipes) == 1, "its pipe serves the next one"


def test_bulk_that_pauses_holds_no_pipe(way: Way) -> None:
    """An idle connection costs no descriptors beside its own, and goes on when more comes."""
    direction = way.bulk(b"zero")
    way.event(EPOLLOUT)
    assert list(way.loop.bulk) == [], "nothing has come"
    way.relay._queue(direction)
    way.relay.serve_bulk()
    assert way.heard == b"zero"
    for said in (b"one", b"two"):
        way.sender.sendall(said)
        way.event(EPOLLIN)
        for _ in range(2):
            if way.loop.bulk:
                way.relay.serve_bulk()
        assert way.heard == said
        assert (direction.pipe, direction.queued, len(way.relay._pipes)) == (None, False, 1)


def test_turns(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction keeps its place for some turns; then it is the others'."""
    monkeypatch.setattr(os, "splice", lambda *_, **__: 1)
    one, two = way.bulk(), Direction(way.connection, not way.is_up, b"", STICK, way.relay._serve)
    setattr(way.connection, "down" if way.is_up else "up", two)
    for direction in (one, two):
        way.relay._queue(direction)
    served = []
    for _ in range(3 * STICK):
        served.append(way.loop.bulk[0])
        way.relay.serve_bulk()
    assert served == [one] * STICK + [two] * STICK + [one] * STICK
    way.event(EPOLLIN)
    assert len(way.loop.bulk) == 2


@pytest.mark.parametrize(("small_first", "most"), [(True, SHORT), (False, PIPE)])
def test_bulk_moves_less_at_a_time_beside_small_exchanges(
    way: Way, monkeypatch: pytest.MonkeyPatch, small_first: bool, most: int
) -> None:
    """Who clicks does not wait behind a megabyte; who downloads alone has all of the pipe."""
    counts: list[int] = []

    def counting(source: int, sink: int, count: int, **_: int) -> int:
        counts.append(count)
        return 1

    if small_first:
        way.sender.sendall(b"x")
        way.event(EPOLLIN)
    monkeypatch.setattr(os, "splice", counting)
    way.relay._queue(way.bulk())
    way.relay.serve_bulk()
    assert counts[0] == most
    for _ in range(LIVELY):
        way.relay.serve_bulk()
    assert counts[-2] == PIPE


def test_a_pipe_with_bytes_in_it_is_not_used_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are another client's. An empty one is kept, up to a number."""
    direction = way.bulk()
    monkeypatch.setattr(relay, "MAX_POOLED", 2)
    for held, kept in ((5, 0), (0, 1), (0, 2), (0, 2)):
        pipe = os.pipe2(os.O_NONBLOCK)
        direction.pipe, direction.in_pipe = pipe, held
        way.relay._release(direction)
        way.relay._release(direction)
        assert direction.pipe is None
        assert len(way.relay._pipes) == kept
        if pipe not in way.relay._pipes:
            for end in pipe:
                with pytest.raises(OSError, match="Bad file"):
                    os.close(end)


@pytest.mark.parametrize("error", [OSError(5, "broken"), ValueError("a bug")])
def test_bulk_that_breaks(way: Way, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It ends for both sides, and has no turn any more."""

    def broken(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(os, "splice", broken)
    way.relay._queue(way.bulk())
    way.relay.serve_bulk()
    is_bug = isinstance(error, ValueError)
    assert way.relay.done == (["close"] if is_bug else ["reset server" if way.is_up else "reset client"])
    assert (way.loop.errors, list(way.loop.bulk)) == ([error] * is_bug, [])


def test_bulk_that_was_given_up(way: Way) -> None:
    """A direction of a connection that is over moves nothing when its turn comes."""
    way.relay._queue(way.bulk(b"late"))
    way.relay.forget(way.connection)
    way.relay.serve_bulk()
    assert way.heard is None
    assert list(way.loop.bulk) == []


def test_pipes_are_closed_with_the_gate(way: Way) -> None:
    """Those that were kept, and those of connections that are given up."""
    for direction in (way.bulk(), Direction(way.connection, not way.is_up, b"", STICK, way.relay._serve)):
        way.relay._take_pipe(direction)
        setattr(way.connection, "up" if direction.is_up else "down", direction)
    first = way.connection.up.pipe, way.connection.down.pipe  # type: ignore[union-attr]
    way.relay.forget(way.connection)
    assert (way.connection.up, way.connection.down) == (None, None)
    assert tuple(way.relay._pipes) == first
    way.relay.close_pipes()
    for pipe in first:
        assert pipe is not None
        for end in pipe:
            with pytest.raises(OSError, match="Bad file"):
                os.fstat(end)


def test_a_pipe_holds_much(way: Way) -> None:
    """A default pipe would take sixteen times the calls; where a user may have no more of it, it does."""
    direction = way.bulk()
    pipe, other = way.relay._take_pipe(direction), os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(other[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    assert fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ) == fcntl.fcntl(other[1], fcntl.F_GETPIPE_SZ)
    assert [os.get_inheritable(end) for end in pipe] == [False, False], "programs that are started get none of it"
    for end in other:
        os.close(end)
    way.relay._release(direction)
    assert way.relay._take_pipe(direction) is direction.pipe
    assert way.relay._pipes == []
