"""A relay's single steps between two socket pairs: what passes at once, and how either side ends."""

import socket
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP

import pytest

from labs.relay_ends import Ends, Noting, Way
from tokgate.gate.connection import CLOSED, Connection
from tokgate.gate.relay import BUFFER, Relay
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


@pytest.mark.parametrize(
    ("since", "event", "counted"), [(1.0, EPOLLIN, True), (0.0, EPOLLIN, False), (1.0, EPOLLOUT, False)]
)
def test_the_first_octet_of_an_answer(ends: Ends, since: float, event: int, counted: bool) -> None:
    """Destinations are measured by when they answer, once."""
    way = Way(ends, False)
    ends.connection.awaiting_since = since
    assert way.event(event) == ["first octet"] * counted


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


def test_another_gate_goes_on_before_there_is_a_destination(way: Way) -> None:
    """There is a client alone to be watched."""
    server, way.connection.server = way.connection.server, None
    way.relay.resume(way.connection)
    way.connection.server = server
    assert (way.relay.done, list(way.loop.bulk)) == (["listen"], [])


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
