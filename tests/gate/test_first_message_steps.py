"""What a gate does about what a client says first, step by step."""

import socket
import sys
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Any

import pytest

from labs.gate_lab import broken_off
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from labs.relay_ends import Ends, Exchange, Way, fill
from tokgate.gate import context
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import CLOSED, Connection, State, Tunnel
from tokgate.gate.first_message import FirstExchange, FirstMessage
from tokgate.policy.observation import Visibility
from tokgate.traffic.client_messages import AfterHello, AfterProxyRequest, UnreadLineReader
from tokgate.traffic.seen import Shown
from tokgate.wire.http_detection import LinePart, UnreadLine

HELLO = hello_for("www.example.net")


@pytest.mark.parametrize(
    ("held", "explicit", "connected", "deadline"),
    [
        (b"half", False, False, 1010.0),
        (b"half", False, True, 1010.0),
        (b"", True, False, 1010.0),
        (b"", False, True, 0.0),
    ],
)
def test_how_long_a_client_may_take(
    steps: Steps, held: bytes, explicit: bool, connected: bool, deadline: float
) -> None:
    """Who has begun has to end; who only listens to its server may do so for as long as it likes."""
    connection = steps.connection
    if connected:
        steps.connects()
    state = steps.gate.explicit.request if explicit else steps.message
    connection.received = held
    for now in (1000.0, 1003.0):
        steps.gate.loop.now = now
        state.wait(connection)
        assert connection.deadline == deadline, "it counts from the first octet"
    assert connection.client_fd in steps.gate.loop.connections


@pytest.mark.parametrize("reached", [True, False])
def test_a_client_that_says_nothing(steps: Steps, monkeypatch: pytest.MonkeyPatch, reached: bool) -> None:
    """Its server may speak first: it is connected, and heard meanwhile; counted once it says something or ends."""

    def connect(_: FirstMessage, connection: Connection, __: Any, then: State) -> None:
        if reached:
            connection.state = Connecting(steps.context, then)
        else:
            steps.loop.close(connection)

    monkeypatch.setattr(FirstMessage, "connect", connect)
    steps.hears()
    assert (steps.connection.client_fd in steps.gate.loop.connections) is reached
    assert (steps.connection.silent, steps.connection.deadline) == (True, 0.0)
    assert steps.connection.shown == Shown(visibility=Visibility.ADDRESS), "by that a ban that begins ends it"


def test_what_connections_share(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names and addresses that many connections are for are in memory once, as long as one of them is open."""
    monkeypatch.setattr(FirstMessage, "connect", lambda *_: None)
    monkeypatch.setattr(context, "original_destination", lambda *_: ("198.51.100." + str(7), 443))
    steps.connection.destination = None
    steps.message.read(steps.connection, HELLO)
    assert steps.connection.shown is sys.intern("www.example.net")
    assert steps.connection.destination is not None
    assert steps.connection.destination[0] is sys.intern("198.51.100.7")


@pytest.mark.parametrize(
    ("connected", "reader", "tunnel", "unfinished"),
    [
        (False, None, None, 1),
        (True, None, None, 1),
        (True, UnreadLineReader(UnreadLine(LinePart.BEFORE_TARGET, b"")), None, 0),
        (False, None, Tunnel("www.example.net", 443, socks=False), 0),
    ],
)
def test_a_client_that_breaks_off(
    steps: Steps, connected: bool, reader: Any, tunnel: Tunnel | None, unfinished: int
) -> None:
    """It is counted as one about which nothing was decided, if nothing was; and its destination is told."""
    if connected:
        steps.connects()
    steps.connection.state, steps.connection.tunnel = FirstMessage(steps.context, reader), tunnel
    steps.connection.client.close()
    steps.hears()
    assert (steps.open_connections, steps.counters.unfinished) == (0, unfinished)
    if connected:
        steps.gate.loop.release_closed()
        assert broken_off(steps.server)


def test_a_hello_that_fills_the_buffer(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left in the socket is read without a further word of the client's."""
    dialled: list[Any] = []
    monkeypatch.setattr(FirstMessage, "connect", lambda _, connection, *__: dialled.append(bytes(connection.received)))
    narrow(steps, monkeypatch, 64)
    steps.loop.keep_watching_client(steps.connection)
    steps.client.sendall(HELLO)
    for _ in range(len(HELLO) // 64 + 1):
        steps.gate.loop.once(1)
    assert dialled == [HELLO]


def test_a_client_whose_last_words_fill_the_buffer(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is another's, nothing is told of it here."""
    narrow(steps, monkeypatch, len(HELLO))
    monkeypatch.setattr(FirstMessage, "connect", lambda _, connection, *__: steps.loop.close(connection))
    steps.hears(HELLO)
    assert steps.gate.loop.connections == {}


def narrow(steps: Steps, monkeypatch: pytest.MonkeyPatch, octets: int) -> None:
    """Have the gate read so many octets at once."""
    monkeypatch.setattr("tokgate.gate.context.BUFFER", octets)
    buffer = bytearray(octets)
    monkeypatch.setattr(steps.gate.relay, "buffer", buffer)
    monkeypatch.setattr(steps.gate.relay, "view", memoryview(buffer))


@pytest.mark.parametrize(
    ("watched", "deadline"),
    [
        (AfterHello("www.example.net", early_data=False, begun=b"", rest=b""), 1010.0),
        (AfterProxyRequest(b""), 0.0),
    ],
)
def test_how_long_a_client_may_take_that_is_asked_again(steps: Steps, watched: Any, deadline: float) -> None:
    """A second hello is owed at once; what a tunnel of another proxy carries may come whenever it does."""
    steps.connects()
    steps.connection.state = exchange = FirstExchange(steps.context, watched)
    exchange._read_again(steps.connection)
    assert steps.connection.deadline == deadline
    assert isinstance(steps.connection.state, FirstMessage)
    assert not steps.connection.state.movable
    assert isinstance(steps.connection.state.reader, type(watched.reader()))


# -- the first exchange: when it waits, asks again, goes on, or breaks off

HANDSHAKE = b"\x16\3"
"""What a second ClientHello may begin with."""


@pytest.mark.parametrize("rest", [b"rest", b""])
def test_a_watched_client_that_has_ended(ends: Ends, rest: bytes) -> None:
    """Its end waits behind what waits, for minutes as with others that have ended, and not for an hour."""
    ends.loop.now = 1000.0
    ends.watch(AfterHello("www.example.net", early_data=False, begun=b"", rest=rest))
    ends.client.shutdown(socket.SHUT_WR)
    ends.go_on(EPOLLIN | EPOLLRDHUP)
    assert (ends.is_open, ends.connection.deadline) == (not rest, 1300.0 if rest else 0.0)
    if rest:
        ends.server.sendall(b"HTTP/1.1 400")
        ends.answer(EPOLLIN)
        assert (ends.is_open, ends.connection.deadline) == (True, 0.0)
        assert ends.server.recv(10) == rest


class _Indifferent(AfterHello):
    """Nothing that is said makes a difference any more."""

    def waits(self, said: bytes | bytearray) -> bool:
        return False


@pytest.mark.parametrize("event", [EPOLLIN | EPOLLERR, EPOLLIN])
def test_a_watched_client_that_breaks_off(ends: Ends, event: int) -> None:
    """Its server is told, and not taken for one that may go on; also when reading is what tells."""
    ends.watch(AfterHello("www.example.net", early_data=False, begun=b""))
    ends.client.sendall(b"GET")
    if not event & EPOLLERR:
        ends.connection.client.close()
    ends.go_on(event)
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


def test_an_answer_in_pieces(ends: Ends) -> None:
    """What makes no sense alone is kept until the rest of it has come, and passed on whole."""
    answering = ends.watch(Pieces("www.example.net", False, b""))
    for piece in (b"an", b"sw"):
        ends.server.sendall(piece)
        ends.answer(EPOLLIN)
        ends.relay.buffer[:6] = b"others"  # the relay's one buffer serves all connections
    assert (answering.answer, ends.heard, ends.connection.state) == (b"answ", b"", answering)
    ends.server.sendall(b"er")
    ends.answer(EPOLLIN)
    assert (ends.heard, ends.is_open) == (b"answer", True)


def test_an_answer_that_is_broken_off(ends: Ends) -> None:
    """It reaches the client all the same, with what was kept of it; no second message is waited for."""
    way = Way(ends, False)
    answering = ends.watch(Pieces("www.example.net", False, b""))
    answering.answer = b"an"
    ends.server.sendall(b"swer")
    ends.answer(EPOLLIN | EPOLLERR)
    assert (ends.relay.done, ends.is_open, ends.connection.up_done) == ([], True, True)
    for _ in range(2):
        ends.relay.serve_bulk()
    assert way.heard == b"answer"
    ends.relay.close_pipes()


class Pieces(AfterHello):
    """An answer can be judged once six octets are there."""

    def asked(self, answer: bytes | bytearray) -> bool | None:
        return None if len(answer) < 6 else False


@pytest.mark.parametrize(("ends_with", "closed"), [(b"", False), (b"er", True)])
def test_an_unfinished_answer_that_ends(ends: Ends, ends_with: bytes, closed: bool) -> None:
    """A server that ends before its answer makes sense is heard as far as it came, whether or not its end was told."""
    ends.watch(Pieces("www.example.net", False, b""))
    ends.server.sendall(b"answ")
    ends.answer(EPOLLIN)
    ends.server.sendall(ends_with)
    ends.server.shutdown(socket.SHUT_WR)
    ends.answer(EPOLLIN | (EPOLLRDHUP if closed else 0))
    assert (ends.heard, ends.is_open, ends.ended) == (b"answ" + ends_with, True, ["client"])


@pytest.mark.parametrize("waits", [True, False])
def test_a_client_that_waited_still_receives(ends: Ends, waits: bool) -> None:
    """What a client has said meanwhile is told anew once the server has answered; epoll would not do so by itself."""
    ends.watch(watched(False))
    if waits:
        ends.client.sendall(HANDSHAKE)
        ends.go_on(EPOLLIN)
    ends.server.sendall(b"answer")
    ends.answer(EPOLLIN)
    assert (ends.is_open, ends.relay.done) == (True, ["listen"] if waits else [])


def test_a_watched_server_that_has_said_nothing(ends: Ends) -> None:
    """It is waited for; once it ends without a word, the client is served as any other."""
    ends.watch(watched(True))
    ends.answer(EPOLLIN)
    assert ends.relay.done == []
    ends.server.shutdown(socket.SHUT_WR)
    ends.answer(EPOLLIN | EPOLLRDHUP)
    assert (ends.relay.done, ends.is_open, ends.ended) == ([], True, ["client"])


def test_a_watched_server_that_can_not_be_read_from(ends: Ends) -> None:
    """Its client is told at once, instead of waiting for the end of its patience."""
    ends.watch(watched(True))
    ends.connection.server.close()
    ends.answer(EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_what_a_watched_server_takes_later(ends: Ends) -> None:
    """A hello that the server did not take at once is sent on as soon as it does, and not while it doesn't."""
    ends.watch(watched(True))
    ends.connection.received = b"hello"
    ends.answer(EPOLLOUT)
    assert (ends.server.recv(10), ends.connection.received, ends.relay.done) == (b"hello", b"", [])
    ends.connection.received = b"more"
    ends.server.close()
    ends.answer(EPOLLOUT | EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_what_a_watched_server_does_not_take_yet(ends: Ends) -> None:
    """It is kept where it is, in order, and not sent by the way of bulk behind the server's answer."""
    filled = fill(ends.connection.server)
    ends.connection.received = b"hello"
    ends.proceed(watched(None))
    assert (ends.connection.received, ends.connection.up) == (b"hello", None)
    while filled:
        filled -= len(ends.server.recv(filled))
    ends.answer(EPOLLIN)
    assert ends.connection.received == b"hello", "there is room when it is told so"
    ends.answer(EPOLLOUT)
    assert (ends.server.recv(10), ends.connection.received) == (b"hello", b"")


class Unread(AfterHello):
    """What the client says next is read at once, and not only when the server has answered."""

    for_answer = False

    def waits(self, said: bytes | bytearray) -> bool:
        return bool(said)


@pytest.mark.parametrize("held", [b"", b"hello"])
def test_a_client_that_does_not_wait_for_an_answer(ends: Ends, held: bytes) -> None:
    """What it says is decided about as soon as all before it was sent."""
    ends.connection.received = held
    ends.watch(Unread("", early_data=False, begun=b""))
    ends.client.sendall(b"more")
    ends.go_on(EPOLLIN)
    assert ends.relay.done == ["asked again"] * (not held)
    if held:
        ends.answer(EPOLLOUT)
        assert (ends.relay.done, ends.server.recv(10)) == (["asked again"], b"hello")


@pytest.mark.parametrize("gone", [{"state": CLOSED}, {"server": None}])
def test_a_second_message_that_ends_the_connection(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, gone: dict[str, object]
) -> None:
    """A refused client hears nothing of the server that it may not reach."""

    def refuse(*_: object) -> None:
        for name, value in gone.items():
            setattr(ends.connection, name, value)

    server = ends.connection.server
    monkeypatch.setattr(Exchange, "_read_again", refuse)
    ends.watch(watched(True))
    ends.server.sendall(b"answer")
    ends.answer(EPOLLIN)
    assert ends.heard == b""
    ends.connection.server = server


def test_what_was_held_back_finds_no_server(ends: Ends) -> None:
    """A client whose server went meanwhile is told once, and not heard any more."""
    ends.connection.received = b"hello"
    ends.watch(_Indifferent("www.example.net", early_data=False, begun=b""))
    ends.client.sendall(b"more")
    ends.server.close()
    ends.go_on(EPOLLIN)
    assert ends.relay.done == ["reset client"]


def test_opening_sends_what_was_held(ends: Ends) -> None:
    """The client's first words reach a server that takes them; its later ones come by the loop."""
    ends.connection.received, ends.connection.deadline = b"hello", 100.0
    ends.proceed()
    assert ends.relay.done == ["listen"]
    assert ends.server.recv(10) == b"hello"
    assert (ends.is_open, ends.connection.received, ends.connection.deadline) == (True, b"", 0.0)
    assert ends.connection.up is None


def test_opening_towards_a_server_that_takes_nothing_yet(ends: Ends) -> None:
    """What does not fit is kept for later, in its order, and the client is listened to meanwhile."""
    fill(ends.connection.server)
    ends.connection.received = b"hello"
    ends.proceed()
    direction = ends.connection.up
    assert direction is not None
    assert (direction.pending, direction.blocked, ends.connection.received) == (b"hello", True, b"")
    ends.answer(EPOLLOUT)
    assert (direction.blocked, list(ends.loop.bulk)) == (False, [direction])


def test_opening_towards_a_server_that_has_gone(ends: Ends) -> None:
    """A client whose destination has gone is told, and not left waiting."""
    ends.server.close()
    ends.connection.received = b"hello"
    ends.proceed()
    assert ends.relay.done == ["reset client"]


def test_opening_a_watched_connection(ends: Ends) -> None:
    """Nothing more passes before the server has answered."""
    ends.connection.received = b"hello"
    ends.proceed(watched(True))
    assert (ends.server.recv(10), ends.is_open) == (b"hello", False)
