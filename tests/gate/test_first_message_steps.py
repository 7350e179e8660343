"""What a gate does about what a client says first, step by step."""

import socket
import sys
from typing import Any

import pytest

from labs.gate_lab import broken_off
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from tokgate.gate import context
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import Connection, State, Tunnel
from tokgate.gate.first_message import FirstExchange, FirstMessage
from tokgate.gate.sockets import NoDestinationError
from tokgate.gate.takeover import describe, read, write
from tokgate.traffic.client_messages import AfterHello, AfterProxyRequest, UnreadLineReader
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
    assert steps.connection.silent
    assert steps.connection.deadline == 0.0


def test_what_is_passed_on_of_a_hello_in_pieces(steps: Steps) -> None:
    """The next gate collects it again from what is held: half-read state of this process would not travel."""
    steps.hears(HELLO[:40])
    assert isinstance(steps.connection.state, FirstMessage)
    assert steps.connection.state.reader is not None
    assert steps.connection.state.movable
    said, descriptors = describe(steps.connection, [steps.connection.listener])
    there = Steps()
    read_there = read(there.gate, write(steps.gate, said), descriptors)
    there.close()
    assert (read_there.carried["state"].reader, read_there.carried["received"]) == (None, HELLO[:40])
    assert read_there.carried["state"].context is there.context
    assert descriptors == [steps.connection.client_fd]


def test_a_client_that_speaks_after_its_server(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted once, by its name, and not by its address as well when it ends."""
    monkeypatch.setattr(FirstMessage, "connect", lambda *_: None)
    steps.hears()
    assert steps.connection.silent
    steps.hears(HELLO)
    steps.loop.close(steps.connection)
    assert {key.visibility: number for key, number in steps.counters.decisions.items()} == {"sni": 1}


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_hello_is_decided_about(steps: Steps, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """Once it is whole, and not before: then its destination gets all of it."""
    dialled: list[Any] = []

    def connect(_: FirstMessage, connection: Connection, destination: Any, __: State) -> None:
        dialled.append((destination, bytes(connection.received), connection.shown))

    monkeypatch.setattr(FirstMessage, "connect", connect)
    cut = len(HELLO) // pieces
    for at in range(0, len(HELLO), cut):
        assert dialled == []
        steps.hears(HELLO[at : at + cut])
    assert dialled == [(("198.51.100.7", 443), HELLO, "www.example.net")]


def test_what_connections_share(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names and addresses that many connections are for are in memory once, as long as one of them is open."""
    monkeypatch.setattr(FirstMessage, "connect", lambda *_: None)
    monkeypatch.setattr(context, "original_destination", lambda *_: ("198.51.100." + str(7), 443))
    steps.connection.destination = None
    steps.message.read(steps.connection, HELLO)
    assert steps.connection.shown is sys.intern("www.example.net")
    assert steps.connection.destination is not None
    assert steps.connection.destination[0] is sys.intern("198.51.100.7")


def test_a_client_that_wanted_to_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dialled the gate itself is reset; about a destination that there is not, nothing is decided."""

    def fail(*_: object) -> None:
        raise NoDestinationError

    monkeypatch.setattr("tokgate.gate.context.original_destination", fail)
    for said in (HELLO, b"SSH-2.0-x\r\n", b""):
        other = Steps()
        other.connection.destination = None
        other.hears(said)
        counters = other.counters
        assert (other.open_connections, counters.loops) == (0, 1)
        assert (sum(counters.decisions.values()), sum(counters.errors.values()), other.opener.adopted) == (0, 0, [])
        other.close()


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


def test_a_server_that_is_there(steps: Steps) -> None:
    """A hello that comes late goes on to it; under a ban, nothing more does before it has answered."""
    steps.connects()
    steps.connection.state = steps.message
    steps.hears(HELLO)
    assert steps.server.recv(1000) == HELLO
    assert isinstance(steps.connection.state, FirstExchange)


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


@pytest.mark.parametrize("said", [b"", HELLO[:40]])
def test_a_client_that_ends_before_it_has_said_all(steps: Steps, said: bytes) -> None:
    """It is closed, and counted as one about which nothing was decided."""
    steps.client.sendall(said)
    steps.client.shutdown(socket.SHUT_WR)
    for _ in range(2 if said else 1):
        steps.hears()
    assert (steps.open_connections, steps.counters.unfinished) == (0, 1)


@pytest.mark.parametrize("rest", [b"rest", b""])
def test_what_is_not_passed_on_yet(steps: Steps, rest: bytes) -> None:
    """Of what was read, what is not decided about waits for the destination's answer."""
    steps.connects()
    steps.connection.state, steps.connection.received = steps.message, HELLO + rest
    watched = AfterHello("www.example.net", early_data=False, begun=b"", rest=rest)
    steps.message._pass(steps.connection, ("198.51.100.7", 443), watched)
    assert steps.server.recv(1000) == HELLO
    assert isinstance(steps.connection.state, FirstExchange)
    assert steps.connection.state.watched is watched
