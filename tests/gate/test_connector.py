"""How verdicts are carried out, step by step: what each side of a connection sees, and what is counted."""

import socket
from select import EPOLLIN
from typing import Any

import pytest

from labs.gate_lab import broken_off
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from labs.waiting import DEADLINE, readable
from tokgate.gate import connector
from tokgate.gate.connection import CLOSED, CONNECTING, OPEN, PARTING, WAITING, Greeting, Tunnel
from tokgate.gate.sockets import NoDestinationError
from tokgate.policy.membership import Identity
from tokgate.traffic.counting.upstream import ConnectError
from tokgate.traffic.refusal_texts import UNREACHABLE
from tokgate.traffic.second_words import AfterHello
from tokgate.wire.hello_reader import read_client_hello
from tokgate.wire.tls_alert import Alert

HELLO = hello_for("www.example.net")
REFUSED = Alert.UNRECOGNIZED_NAME.record


def test_other_descriptors(steps: Steps) -> None:
    """They are called for as long as they are to be."""
    called: list[str] = []
    one, two = socket.socketpair()
    with one, two:
        steps.gate.call_back(one.fileno(), lambda: called.append("called"))
        two.sendall(b"x")
        steps.gate.once(1)
        assert called == ["called"]
        for _ in range(2):
            steps.gate.call_no_more(one.fileno())
            assert steps.gate.epoll.poll(0) == []
        assert called == ["called"]


def test_words(steps: Steps) -> None:
    """A client that has gone is closed."""
    assert steps.gate.say(steps.connection, b"words")
    assert steps.client.recv(10) == b"words"
    steps.connection.client.shutdown(socket.SHUT_WR)
    assert not steps.gate.say(steps.connection, b"words")
    assert steps.connection.state is CLOSED


def test_waiting_for_something_else(steps: Steps) -> None:
    """Not for ever; a client that breaks off meanwhile is noticed."""
    steps.gate.suspend(steps.connection, 7.0)
    assert (steps.connection.state, steps.connection.deadline) == (WAITING, 1007.0)
    assert steps.connection.client_fd in steps.gate.connections


@pytest.mark.parametrize(("seconds", "deadline"), [(7.0, 1007.0), (0.0, 0.0)])
def test_hearing_a_client(steps: Steps, seconds: float, deadline: float) -> None:
    """Within a time, or whenever it comes; what has come meanwhile is told."""
    steps.client.sendall(b"said")
    assert steps.gate.listen(steps.connection, seconds) is steps.connection.state
    assert isinstance(steps.connection.state, Greeting)
    assert steps.connection.deadline == deadline
    assert (steps.connection.client_fd, EPOLLIN) in steps.gate.epoll.poll(1)


@pytest.mark.parametrize(("destination", "explicit"), [(("198.51.100.7", 443), False), (None, True)])
def test_an_opener_takes_a_client(steps: Steps, destination: Any, explicit: bool) -> None:
    """With all that it said; the gate keeps nothing of it, and nothing is told of it any more."""
    steps.connection.destination, steps.connection.held = destination, bytearray(b"said")
    steps.gate.watch_client(steps.connection)
    arrival = steps.gate.arrival(steps.connection)
    steps.opener.willing = False
    assert not steps.gate.hand_over(steps.connection, arrival, tls=True)
    assert steps.connection.state is not CLOSED
    steps.opener.willing = True
    assert steps.gate.hand_over(steps.connection, arrival, tls=True)
    assert steps.opener.adopted[0][1:] == (arrival, b"said", True, explicit)
    assert (steps.connection.state, steps.gate.open_connections) == (CLOSED, 0)
    steps.gate.release_closed()
    steps.client.sendall(b"more")
    adopted = steps.opener.adopted[0][0]
    assert readable(adopted, DEADLINE)
    assert steps.gate.epoll.poll(0) == [], "the gate would be told for ever of what is another's"
    assert adopted.recv(10) == b"more"


@pytest.mark.parametrize("words", [REFUSED, b""])
def test_a_refusal(steps: Steps, words: bytes) -> None:
    """It is heard whole, whatever the client has said meanwhile; its destination is left at once."""
    steps.connects()
    steps.client.sendall(b"unread")
    steps.gate.refuse(steps.connection, words)
    assert (steps.connection.state, steps.connection.deadline) == (PARTING, 1003.0)
    assert steps.heard() == words
    assert steps.heard("server") == b""
    steps.client.shutdown(socket.SHUT_WR)
    steps.gate.once(1)
    assert (steps.connection.state, steps.gate.open_connections) == (CLOSED, 0)


def test_a_refusal_of_a_client_that_has_gone(steps: Steps) -> None:
    """It is closed at once."""
    steps.connection.client.shutdown(socket.SHUT_WR)
    steps.gate.refuse(steps.connection, REFUSED)
    assert steps.connection.state is CLOSED


@pytest.mark.parametrize(
    ("held", "connected", "state"),
    [(HELLO, False, CLOSED), (HELLO + b"more", False, PARTING), (HELLO, True, PARTING)],
)
def test_a_hello_is_refused(steps: Steps, held: bytes, connected: bool, state: Any) -> None:
    """At once where nothing unread could turn the end into a reset; else the client's rest is heard."""
    if connected:
        steps.connects()
    hello = read_client_hello(HELLO)
    assert hello is not None
    steps.connection.held = held
    steps.gate._refuse_at_once(steps.connection, hello)
    assert steps.connection.state is state
    assert steps.heard() == REFUSED


@pytest.mark.parametrize("watched", [False, True])
def test_when_a_refusal_goes_out(steps: Steps, watched: bool) -> None:
    """At once, and not after all that came with it; unless events of this batch may still be for its descriptor."""
    hello = read_client_hello(HELLO)
    assert hello is not None
    steps.connection.held = HELLO
    if watched:
        steps.gate.watch_greeting(steps.connection)
    steps.gate._refuse_at_once(steps.connection, hello)
    assert (steps.connection.client.fileno() == -1) is not watched
    assert steps.heard() == REFUSED


@pytest.mark.parametrize("error", [NoDestinationError(), OSError()])
def test_a_client_that_wanted_to_go_nowhere(steps: Steps, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Who dialled the gate itself is reset and counted; who is gone already is closed."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(connector, "original_destination", fail)
    steps.connection.destination = None
    assert steps.gate._destination(steps.connection) is None
    is_loop = isinstance(error, NoDestinationError)
    assert steps.counters.loops == is_loop
    steps.gate.release_closed()
    assert broken_off(steps.client) is is_loop


@pytest.mark.parametrize(
    ("state", "timeouts", "unreachable"),
    [(Greeting(), 1, 0), (CONNECTING, 0, 1), (WAITING, 0, 0), (OPEN, 0, 0), (PARTING, 0, 0)],
)
def test_who_has_waited_too_long(steps: Steps, state: Any, timeouts: int, unreachable: int) -> None:
    """It is closed, and counted as what it waited for."""
    steps.connects()
    steps.connection.state = state
    steps.gate.overdue(steps.connection)
    assert steps.connection.state is CLOSED
    assert (steps.counters.timeouts, steps.errors(ConnectError.TIMEOUT)) == (timeouts, unreachable)


@pytest.mark.parametrize(("held", "server", "closed"), [(b"half", False, False), (b"half", True, True)])
def test_a_tunnel_that_has_waited_too_long(steps: Steps, held: bytes, server: bool, closed: bool) -> None:
    """A client that has begun has its time again, as long as no destination waits with it."""
    if server:
        steps.connects()
    steps.connection.state, steps.connection.held, steps.connection.deadline = Greeting(), held, 1000.0
    steps.connection.tunnel = Tunnel("198.51.100.7", 443, socks=False, established=True)
    steps.gate.overdue(steps.connection)
    assert (steps.gate.open_connections, steps.counters.timeouts) == (int(not closed), int(closed))


def test_a_name_that_is_not_resolved_in_time(steps: Steps) -> None:
    """The client is told, and not left without a word."""
    steps.connection.tunnel, steps.connection.state = Tunnel("www.example.net", 443, socks=False), WAITING
    steps.gate.overdue(steps.connection)
    assert UNREACHABLE in steps.heard()


def test_the_id_of_a_connection(steps: Steps) -> None:
    """It is one as long as the connection lasts: its records are found by it."""
    steps.connection.person = Identity("ada")
    first = steps.gate.arrival(steps.connection)
    assert first.identity == Identity("ada")
    assert first.destination is not None
    assert (first.destination.ip, first.destination.port) == ("198.51.100.7", 443)
    assert first.connection is not None
    assert first.connection == steps.gate.arrival(steps.connection).connection
    assert first.client.port == 40000


def test_what_is_held_back(steps: Steps) -> None:
    """Of what was read, what is not decided about is not passed on."""
    steps.connection.held = HELLO + b"rest"
    for rest in (b"rest", b""):
        watched = AfterHello("www.example.net", early_data=False, begun=b"", rest=rest)
        steps.gate._watch(steps.connection, watched)
        assert (steps.connection.held, steps.connection.watched) == (HELLO, watched)


@pytest.mark.parametrize(
    ("tunnel", "asked"),
    [
        (None, None),
        (Tunnel("www.example.net", 443, socks=True), "www.example.net"),
        (Tunnel("198.51.100.7", 443, socks=True), None),
        (Tunnel("198.51.100.7", 443, socks=False), "198.51.100.7"),
    ],
)
def test_what_a_client_asked_for(steps: Steps, tunnel: Tunnel | None, asked: str | None) -> None:
    """A CONNECT names its host, be it an address; SOCKS names only names, and an address is a destination as any."""
    steps.connection.tunnel = tunnel
    assert steps.gate.arrival(steps.connection).connect == asked


@pytest.mark.parametrize(
    ("heard", "seconds", "closed"), [(True, 299.0, False), (True, 300.0, True), (False, 1.0, True)]
)
def test_who_has_yet_to_hear_what_came_before_a_reset(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, heard: bool, seconds: float, closed: bool
) -> None:
    """It is waited for, as long as for any side whose other has ended: it may be gone without a word."""
    monkeypatch.setattr(steps.gate, "still_receives", lambda _: heard)
    steps.connects()
    steps.connection.state, steps.connection.seen = OPEN, steps.gate.now - seconds
    steps.gate.reset(steps.connection, steps.connection.client)
    if heard:
        assert (steps.connection.deadline, steps.connection.up_done, steps.connection.down_done) == (1000.0, True, True)
        steps.gate.overdue(steps.connection)
    assert (steps.connection.state is CLOSED) is closed
