"""A relay's decisions about single connections: when it closes, breaks off, waits, or goes on."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Any

import pytest

from tokgate.gate.connection import Connection, State
from tokgate.gate.sockets import Entry, Listener
from tokgate.gate.splice import Relay
from tokgate.traffic.second_words import AfterHello

HANDSHAKE = b"\x16\3"
"""What a second ClientHello may begin with."""


class Noting(Relay):
    """A relay that notes what it would do with a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def close(self, connection: Connection) -> None:
        self.done.append("close")

    def watch_client(self, connection: Connection) -> None:
        self.done.append("listen")

    def asked_again(self, connection: Connection) -> None:
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


@pytest.fixture
def ends() -> Iterator[Ends]:
    """An open connection."""
    (client, inside), (server, outside) = socket.socketpair(), socket.socketpair()
    inside.setblocking(False)
    listener = Listener(None, Entry.REDIRECT, 8080, 0)
    connection = Connection(inside, inside.fileno(), "192.0.2.7", 40000, listener, seen=0.0)
    connection.server, connection.server_fd = outside, outside.fileno()
    outside.setblocking(False)
    made = Ends(client, server, connection)
    yield made
    made.close()


@pytest.mark.parametrize(("is_up", "told"), [(True, "server"), (False, "client")])
def test_the_end_of_one_direction(ends: Ends, is_up: bool, told: str) -> None:
    """A client that has sent its request and closes its side still gets the answer, and the other way round."""
    ends.relay._end(ends.connection, is_up)
    assert (ends.connection.up_done, ends.connection.down_done) == (is_up, not is_up)
    assert (ends.ended, ends.relay.done) == ([told], [])


@pytest.mark.parametrize("is_up", [True, False])
def test_the_end_of_both_directions(ends: Ends, is_up: bool) -> None:
    """A connection that is over holds no descriptors: nobody would ever close it otherwise."""
    ends.relay._end(ends.connection, not is_up)
    assert len(ends.ended) == 1
    ends.relay._end(ends.connection, is_up)
    assert ends.relay.done == ["close"]
    assert len(ends.ended) == 1


def test_an_end_that_nobody_can_be_told(ends: Ends) -> None:
    """Nor does one whose other side has gone already."""
    ends.connection.server.close()
    ends.relay._end(ends.connection, True)
    assert ends.relay.done == ["close"]


@pytest.mark.parametrize(
    ("said", "done"), [(HANDSHAKE, []), (b"", []), (b"GET", ["listen"])], ids=["handshake", "nothing", "data"]
)
def test_what_a_watched_client_says_meanwhile(ends: Ends, said: bytes, done: list[str]) -> None:
    """What may be a second hello waits for the server's answer; all else passes, and nothing of it is lost."""
    ends.connection.held, ends.connection.watched = b"early", AfterHello("www.example.net", early_data=False, begun=b"")
    ends.client.sendall(said)
    ends.relay.goes_on(ends.connection, EPOLLIN)
    assert ends.relay.done == done
    assert (ends.connection.watched is None) is bool(done)
    assert (ends.connection.client.recv(10) if said else b"") == said


def test_what_was_held_back_passes_first(ends: Ends) -> None:
    """Octets behind the first hello are sent on before what comes later."""
    ends.connection.held, ends.connection.watched = (
        b"hello",
        _Indifferent("www.example.net", early_data=False, begun=b"", rest=b"rest"),
    )
    ends.client.sendall(b"more")
    ends.relay.goes_on(ends.connection, EPOLLIN)
    assert (ends.server.recv(20), ends.connection.held) == (b"hellorest", b"")
    assert (ends.connection.state, ends.relay.done) == (State.OPEN, ["listen"])


class _Indifferent(AfterHello):
    """Nothing that is said makes a difference any more."""

    def waits(self, said: bytes | bytearray) -> bool:
        return False


def test_a_connection_that_nobody_watches_any_more(ends: Ends) -> None:
    """It is relayed as any other."""
    ends.client.sendall(HANDSHAKE)
    ends.relay.goes_on(ends.connection, EPOLLIN)
    assert (ends.connection.state, ends.relay.done) == (State.OPEN, ["listen"])


def test_a_watched_client_that_breaks_off(ends: Ends) -> None:
    """Its server is told, and not taken for one that may go on."""
    ends.connection.watched = AfterHello("www.example.net", early_data=False, begun=b"")
    ends.client.sendall(b"GET")
    ends.relay.goes_on(ends.connection, EPOLLIN | EPOLLERR)
    assert ends.relay.done == ["reset server"]


def test_a_watched_client_that_can_not_be_read_from(ends: Ends) -> None:
    """The same when reading is what tells."""
    ends.connection.watched = AfterHello("www.example.net", early_data=False, begun=b"")
    ends.connection.client.close()
    ends.relay.goes_on(ends.connection, EPOLLIN)
    assert ends.relay.done == ["reset server"]


class Stated(AfterHello):
    """A watched connection of which a test says whether the server's answer makes the client say more."""

    says: bool | None = None

    def asked(self, answer: bytes | bytearray) -> bool | None:
        return self.says


def watched(says: bool | None) -> AfterHello:
    """A connection that waits for its server's answer."""
    made = Stated("www.example.net", early_data=False, begun=b"")
    object.__setattr__(made, "says", says)
    return made


@pytest.mark.parametrize(
    ("says", "event", "done", "state", "heard"),
    [
        (True, EPOLLIN, ["asked again"], State.ANSWERING, b"answer"),
        (False, EPOLLIN, [], State.OPEN, b"answer"),
        (None, EPOLLIN, [], State.ANSWERING, b""),
        (None, EPOLLIN | EPOLLRDHUP, [], State.OPEN, b"answer"),
        (True, EPOLLIN | EPOLLERR, ["reset client"], State.ANSWERING, b""),
        (True, EPOLLOUT, [], State.ANSWERING, b""),
    ],
    ids=["retry", "other", "too_little", "the_end", "broken_off", "writable_only"],
)
def test_what_a_watched_server_answers(
    ends: Ends, says: bool | None, event: int, done: list[str], state: State, heard: bytes
) -> None:
    """After a HelloRetryRequest it is the client's turn; after any other answer all passes, at once."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, watched(says)
    ends.server.sendall(b"answer")
    ends.relay.answered(ends.connection, event)
    assert (ends.relay.done, ends.connection.state, ends.heard) == (done, state, heard)
    assert (ends.connection.watched is None) is (state is State.OPEN)
    assert ends.ended == (["client"] if state is State.OPEN and event & EPOLLRDHUP else [])


def test_an_answer_in_pieces(ends: Ends) -> None:
    """What makes no sense alone is kept until the rest of it has come, and passed on whole."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, Pieces("www.example.net", False, b"")
    for piece in (b"an", b"sw"):
        ends.server.sendall(piece)
        ends.relay.answered(ends.connection, EPOLLIN)
    assert (ends.connection.said, ends.heard, ends.connection.state) == (b"answ", b"", State.ANSWERING)
    ends.server.sendall(b"er")
    ends.relay.answered(ends.connection, EPOLLIN)
    assert (ends.connection.said, ends.heard, ends.connection.state) == (b"", b"answer", State.OPEN)


class Pieces(AfterHello):
    """An answer can be judged once six octets are there."""

    def asked(self, answer: bytes | bytearray) -> bool | None:
        return None if len(answer) < 6 else False


@pytest.mark.parametrize(("ends_with", "closed"), [(b"", False), (b"er", True)])
def test_an_unfinished_answer_that_ends(ends: Ends, ends_with: bytes, closed: bool) -> None:
    """A server that ends before its answer makes sense is heard as far as it came, whether or not its end was told."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, Pieces("www.example.net", False, b"")
    ends.server.sendall(b"answ")
    ends.relay.answered(ends.connection, EPOLLIN)
    ends.server.sendall(ends_with)
    ends.server.shutdown(socket.SHUT_WR)
    ends.relay.answered(ends.connection, EPOLLIN | (EPOLLRDHUP if closed else 0))
    assert (ends.heard, ends.connection.state, ends.ended) == (b"answ" + ends_with, State.OPEN, ["client"])


@pytest.mark.parametrize("waits", [True, False])
def test_a_client_that_waited_is_heard(ends: Ends, waits: bool) -> None:
    """What a client has said meanwhile is told anew once the server has answered; epoll would not do so by itself."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, watched(False)
    if waits:
        ends.client.sendall(HANDSHAKE)
        ends.relay.goes_on(ends.connection, EPOLLIN)
    ends.server.sendall(b"answer")
    ends.relay.answered(ends.connection, EPOLLIN)
    assert (ends.connection.state, ends.relay.done) == (State.OPEN, ["listen"] if waits else [])


def test_a_watched_server_that_has_said_nothing(ends: Ends) -> None:
    """It is waited for; once it ends without a word, the client is served as any other."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, watched(True)
    ends.relay.answered(ends.connection, EPOLLIN)
    assert ends.relay.done == []
    ends.server.shutdown(socket.SHUT_WR)
    ends.relay.answered(ends.connection, EPOLLIN | EPOLLRDHUP)
    assert (ends.relay.done, ends.connection.state, ends.ended) == ([], State.OPEN, ["client"])


def test_a_watched_server_that_can_not_be_read_from(ends: Ends) -> None:
    """Its client is told at once, instead of waiting for the end of its patience."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, watched(True)
    ends.connection.server.close()
    ends.relay.answered(ends.connection, EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_what_a_watched_server_takes_later(ends: Ends) -> None:
    """A hello that the server did not take at once is sent on as soon as it does, and not while it doesn't."""
    ends.connection.state, ends.connection.watched = State.ANSWERING, watched(True)
    ends.connection.held = b"hello"
    ends.relay.answered(ends.connection, EPOLLOUT)
    assert (ends.server.recv(10), ends.connection.held, ends.relay.done) == (b"hello", b"", [])
    ends.connection.held = b"more"
    ends.server.close()
    ends.relay.answered(ends.connection, EPOLLOUT)
    assert ends.relay.done == ["reset client"]


def test_opening_sends_what_was_held(ends: Ends) -> None:
    """The client's first words reach a server that takes them; its later ones come by the loop."""
    ends.connection.held, ends.connection.deadline = b"hello", 100.0
    Relay.open(ends.relay, ends.connection)
    assert ends.server.recv(10) == b"hello"
    assert (ends.connection.state, ends.connection.held, ends.connection.deadline) == (State.OPEN, b"", 0.0)
    assert ends.connection.up is None


def test_opening_towards_a_server_that_takes_nothing_yet(ends: Ends) -> None:
    """What does not fit is kept for later, in its order, and the client is listened to meanwhile."""
    ends.connection.server.setblocking(False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += ends.connection.server.send(bytes(1 << 16))
    ends.connection.held = b"hello"
    Relay.open(ends.relay, ends.connection)
    half = ends.connection.up
    assert half is not None
    assert (half.pending, half.blocked, ends.connection.held) == (b"hello", True, b"")
    ends.relay.server_event(ends.connection, EPOLLOUT)
    assert (half.blocked, list(ends.relay.bulk)) == (False, [half])


def test_opening_towards_a_server_that_has_gone(ends: Ends) -> None:
    """A client whose destination has gone is told, and not left waiting."""
    ends.server.close()
    ends.connection.held = b"hello"
    Relay.open(ends.relay, ends.connection)
    assert ends.relay.done == ["reset client"]


def test_opening_a_watched_connection(ends: Ends) -> None:
    """Nothing more passes before the server has answered."""
    ends.connection.held, ends.connection.watched = b"hello", watched(True)
    Relay.open(ends.relay, ends.connection)
    assert (ends.server.recv(10), ends.connection.state) == (b"hello", State.ANSWERING)
