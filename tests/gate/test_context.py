"""How verdicts are carried out, step by step: what each side of a connection sees, and what is counted."""

import socket
from collections.abc import Callable
from select import EPOLLERR, EPOLLIN, EPOLLRDHUP
from typing import Any

import pytest

from labs.builders import present
from labs.gate_lab import REFUSED, broken_off, reset
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from labs.waiting import DEADLINE, readable
from tokgate.evasion.hello import EARLY_DATA
from tokgate.gate import context
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import CLOSED, State, Tunnel
from tokgate.gate.context import Parting, Waiting
from tokgate.gate.explicit_clients.front import ExplicitRequest
from tokgate.gate.first_message import FirstExchange, FirstMessage
from tokgate.gate.sockets import NoDestinationError
from tokgate.policy.membership import Identity
from tokgate.traffic.client_messages import AfterProxyRequest, FirstBytesReader
from tokgate.traffic.counters import ConnectError
from tokgate.wire.hello_reader import read_client_hello

HELLO = hello_for("www.example.net")


def test_waiting_for_something_else(steps: Steps) -> None:
    """Not for ever; a client that breaks off meanwhile is noticed."""
    waiting = Waiting(steps.context)
    steps.context.wait(steps.connection, waiting, 7.0)
    assert (steps.connection.state, steps.connection.deadline) == (waiting, 1007.0)
    steps.client.sendall(b"more")
    steps.client.shutdown(socket.SHUT_WR)
    steps.loop.once(1)
    assert steps.open_connections == 1
    reset(steps.client)
    steps.loop.once(1)
    assert steps.open_connections == 0


@pytest.mark.parametrize(("seconds", "deadline"), [(7.0, 1007.0), (0.0, 0.0)])
def test_hearing_a_client(steps: Steps, seconds: float, deadline: float) -> None:
    """Within a time, or whenever it comes; what has come meanwhile is told."""
    steps.client.sendall(b"said")
    steps.context.listen(steps.connection, steps.tunnel_message, seconds)
    assert steps.connection.state is steps.tunnel_message
    assert steps.connection.deadline == deadline
    assert (steps.connection.client_fd, EPOLLIN) in steps.gate.loop.epoll.poll(1)


@pytest.mark.parametrize(("destination", "explicit"), [(("198.51.100.7", 443), False), (None, True)])
def test_an_opener_takes_a_client(steps: Steps, destination: Any, explicit: bool) -> None:
    """With all that it said; the gate keeps nothing of it, and nothing is told of it any more."""
    steps.connection.destination, steps.connection.received = destination, bytearray(b"said")
    steps.gate.loop.watch_client(steps.connection)
    arrival = steps.gate.context.arrival(steps.connection)
    steps.opener.willing = False
    assert not steps.gate.context.hand_over(steps.connection, arrival, tls=True)
    assert steps.connection.state is not CLOSED
    steps.opener.willing = True
    assert steps.gate.context.hand_over(steps.connection, arrival, tls=True)
    assert steps.opener.adopted[0][1:] == (arrival, b"said", True, explicit)
    assert (steps.connection.state, steps.gate.acceptor.open_connections) == (CLOSED, 0)
    steps.gate.loop.release_closed()
    steps.client.sendall(b"more")
    adopted = steps.opener.adopted[0][0]
    assert readable(adopted, DEADLINE)
    assert steps.gate.loop.epoll.poll(0) == [], "the gate would be told for ever of what is another's"
    assert adopted.recv(10) == b"more"


@pytest.mark.parametrize("words", [REFUSED, b""])
def test_a_refusal(steps: Steps, words: bytes) -> None:
    """It is heard whole, whatever the client has said meanwhile; its destination is left at once."""
    steps.connects()
    steps.client.sendall(b"unread")
    steps.gate.context.refuse(steps.connection, words)
    assert (type(steps.connection.state), steps.connection.deadline) == (Parting, 1003.0)
    assert steps.heard() == words
    assert steps.heard("server") == b""
    steps.client.shutdown(socket.SHUT_WR)
    steps.gate.loop.once(1)
    assert (steps.connection.state, steps.gate.acceptor.open_connections) == (CLOSED, 0)


def test_a_refusal_of_a_client_that_has_gone(steps: Steps) -> None:
    steps.connection.client.shutdown(socket.SHUT_WR)
    steps.gate.context.refuse(steps.connection, REFUSED)
    assert steps.connection.state is CLOSED


@pytest.mark.parametrize(
    ("said", "watched", "over", "closed"),
    [
        (HELLO, False, True, True),
        (HELLO, True, True, False),
        (HELLO + b"\x17\3\3", False, False, False),
        (hello_for("www.example.net", (EARLY_DATA, b"")), False, False, False),
    ],
    ids=["whole", "watched", "more", "early-data"],
)
def test_when_a_refusal_goes_out(steps: Steps, said: bytes, watched: bool, over: bool, closed: bool) -> None:
    """At once, and not after all that came with it; unless events of this batch may still be for its descriptor.

    Who has said more, or is about to, is heard out: a reset would overtake the alert.
    """
    steps.connection.received = said
    if watched:
        steps.loop.keep_watching_client(steps.connection)
    steps.message.refuse_hello(steps.connection, present(read_client_hello(said)))
    assert (steps.connection.state is CLOSED, steps.connection.client.fileno() == -1) == (over, closed)
    assert steps.heard() == REFUSED


@pytest.mark.parametrize("error", [NoDestinationError(), OSError()])
def test_a_client_that_wanted_to_go_nowhere(steps: Steps, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Who dialled the gate itself is reset and counted; who is gone already is closed."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(context, "original_destination", fail)
    steps.connection.destination = None
    assert steps.context.destination(steps.connection) is None
    is_loop = isinstance(error, NoDestinationError)
    assert steps.counters.loops == is_loop
    steps.gate.loop.release_closed()
    assert broken_off(steps.client) is is_loop


STATES: dict[str, Callable[[Steps], State]] = {
    "words": lambda steps: steps.message,
    "request": lambda steps: ExplicitRequest(steps.gate.explicit),
    "connecting": lambda steps: Connecting(steps.context, steps.gate.relay),
    "waiting": lambda steps: Waiting(steps.context),
    "open": lambda steps: steps.gate.relay,
    "exchange": lambda steps: FirstExchange(steps.context, AfterProxyRequest(b"")),
    "parting": lambda steps: Parting(steps.context, b""),
}


@pytest.mark.parametrize(
    ("state", "timeouts", "unreachable"),
    [
        *(("words", 1, 0), ("request", 1, 0), ("connecting", 0, 1), ("waiting", 0, 0)),
        *(("open", 0, 0), ("exchange", 0, 0), ("parting", 0, 0)),
    ],
)
def test_who_has_waited_too_long(steps: Steps, state: str, timeouts: int, unreachable: int) -> None:
    """It is closed, and counted as what it waited for."""
    steps.connects()
    steps.connection.state = STATES[state](steps)
    steps.connection.state.overdue(steps.connection)
    assert steps.connection.state is CLOSED
    assert (steps.counters.timeouts, steps.errors(ConnectError.TIMEOUT)) == (timeouts, unreachable)


@pytest.mark.parametrize(
    ("state", "event", "closed"),
    [
        *(("connecting", EPOLLIN | EPOLLRDHUP, False), ("connecting", EPOLLIN | EPOLLERR, True)),
        *(("waiting", EPOLLIN | EPOLLRDHUP, False), ("waiting", EPOLLERR, True), ("parting", EPOLLIN, False)),
    ],
)
def test_a_client_that_nothing_is_read_from(steps: Steps, state: str, event: int, closed: bool) -> None:
    """One that has ended in order still gets its answer; one that broke off is closed, and not connected for."""
    steps.connection.state = STATES[state](steps)
    steps.connection.state.on_client(steps.connection, event)
    assert (steps.connection.state is CLOSED) is closed


@pytest.mark.parametrize(("event", "again"), [(EPOLLIN, False), (EPOLLIN | EPOLLRDHUP, True)])
def test_an_end_behind_half_a_message(steps: Steps, event: int, again: bool) -> None:
    """The end of a client that has not said enough is told once more, when what stands before it was read."""
    steps.loop.keep_watching_client(steps.connection)
    steps.client.sendall(HELLO[:40])
    steps.client.shutdown(socket.SHUT_WR)
    steps.loop.epoll.poll(1)
    steps.connection.silent = True
    steps.connection.state.on_client(steps.connection, event)
    assert bool(steps.loop.epoll.poll(0)) is again
    assert not steps.connection.silent, "it would be counted by its address as well"
    assert isinstance(steps.connection.state, FirstMessage)
    assert isinstance(steps.connection.state.reader, FirstBytesReader)
    assert steps.connection.received is steps.connection.state.reader.received, "what was said is held once"


@pytest.mark.parametrize(
    ("said", "ends", "closed"),
    [(b"", False, False), (b"x" * 9000, False, False), (b"x", True, True), (b"x" * (1 << 20), False, True)],
    ids=["silent", "goes-on", "ends", "endless"],
)
def test_after_a_refusal(steps: Steps, said: bytes, ends: bool, closed: bool) -> None:
    """What a refused client still says is thrown away until it ends, but not for ever."""
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

    real, steps.connection.client = steps.connection.client, Client()
    Parting(steps.context, b"").on_client(steps.connection, EPOLLIN)
    assert (steps.connection.state is CLOSED) is closed
    steps.loop.release_closed()
    steps.connection.client = real


def test_the_id_of_a_connection(steps: Steps) -> None:
    """It is one as long as the connection lasts: its records are found by it."""
    steps.connection.person = Identity("ada")
    first = steps.gate.context.arrival(steps.connection)
    assert first.identity == Identity("ada")
    assert first.destination is not None
    assert (first.destination.ip, first.destination.port) == ("198.51.100.7", 443)
    assert first.connection is not None
    assert first.connection == steps.gate.context.arrival(steps.connection).connection
    assert first.client.port == 40000


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
    assert steps.gate.context.arrival(steps.connection).connect == asked


@pytest.mark.parametrize(
    ("heard", "seconds", "closed"), [(True, 299.0, False), (True, 300.0, True), (False, 1.0, True)]
)
def test_who_has_yet_to_hear_what_came_before_a_reset(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, heard: bool, seconds: float, closed: bool
) -> None:
    """It is waited for, as long as for any side whose other has ended: it may be gone without a word."""
    monkeypatch.setattr(steps.gate.relay, "still_receives", lambda _: heard)
    steps.connects()
    steps.connection.state, steps.connection.seen = steps.gate.relay, steps.loop.now - seconds
    steps.gate.relay.reset(steps.connection, steps.connection.client)
    if heard:
        assert (steps.connection.deadline, steps.connection.up_done, steps.connection.down_done) == (1000.0, True, True)
        steps.connection.state.overdue(steps.connection)
    assert (steps.open_connections == 0) is closed
