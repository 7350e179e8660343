"""How verdicts are carried out, step by step: what each side of a connection sees, and what is counted."""

import errno
import socket
from collections.abc import Iterator
from select import EPOLLERR, EPOLLIN, EPOLLOUT
from typing import Any

import pytest

from labs.builders import ban, snapshot
from labs.gate_lab import broken_off
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from tokgate.gate import connector
from tokgate.gate.connection import CLOSED, CONNECTING, OPEN, PARTING, WAITING, Greeting, Tunnel
from tokgate.gate.sockets import NoDestinationError
from tokgate.policy.identity import Identity
from tokgate.policy.upstream import Upstream, UpstreamKind
from tokgate.traffic.counting.upstream import CONNECT_SECONDS, FIRST_BYTE_SECONDS, ConnectError
from tokgate.traffic.refusal_texts import UNREACHABLE
from tokgate.traffic.second_words import AfterHello
from tokgate.wire.hello_reader import read_client_hello
from tokgate.wire.tls_alert import Alert

HELLO = hello_for("www.example.net")
REFUSED = Alert.UNRECOGNIZED_NAME.record


@pytest.fixture
def steps() -> Iterator[Steps]:
    """A connection that has said nothing."""
    made = Steps()
    yield made
    made.close()


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
    steps.gate.once(0.05)
    assert steps.opener.adopted[0][0].recv(10) == b"more"


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


@pytest.mark.parametrize(("error", "loops"), [(NoDestinationError(), 1), (OSError(), 0)])
@pytest.mark.parametrize("tunnel", [False, True])
def test_a_destination_that_can_not_be_dialled(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, error: OSError, loops: int, tunnel: bool
) -> None:
    """The client sees it as it would see it from the destination; a way back to the gate is counted."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(connector.Connector, "_dial", fail)
    if tunnel:
        steps.connection.tunnel = Tunnel("198.51.100.7", 443, socks=False, addresses=("198.51.100.7",))
    steps.gate.connect(steps.connection, ("198.51.100.7", 443))
    assert steps.counters.loops == loops
    if tunnel:
        assert (UNREACHABLE in steps.heard()) is (loops == 0)
    else:
        steps.gate.release_closed()
        assert broken_off(steps.client)


def test_what_is_connected_already(steps: Steps) -> None:
    """A tunnel that was connected before its client spoke goes on with what it says."""
    steps.connects()
    steps.connection.held = HELLO
    steps.gate.connect(steps.connection, ("198.51.100.7", 443))
    assert (steps.connection.state, steps.server.recv(1000)) == (OPEN, HELLO)


@pytest.mark.parametrize(("tunnel", "leads_back"), [(False, False), (True, False), (True, True)])
def test_dialling(steps: Steps, tunnel: bool, leads_back: bool) -> None:
    """A destination gets what was held; a tunnel that would come in here again would call the gate for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        if leads_back or not tunnel:
            steps.gate.listens_at.add(address)
        if tunnel:
            steps.connection.tunnel = Tunnel("localhost", address[1], socks=False, established=True)
            assert steps.gate.dial(steps.connection, address) is not leads_back
        else:
            steps.gate.connect(steps.connection, address)
        assert steps.counters.loops == leads_back
        if leads_back:
            assert (steps.connection.server, steps.connection.destination) == (None, ("198.51.100.7", 443))
            return
        assert (steps.connection.owing, steps.connection.deadline) == (1000.0, 1020.0)
        assert steps.connection.destination == (address if tunnel else ("198.51.100.7", 443))
        steps.connection.held = HELLO
        steps.gate.once(20)
        taken, _ = server.accept()
        with taken:
            assert (steps.connection.state, taken.recv(1000)) == (OPEN, HELLO)


def test_what_is_measured(steps: Steps) -> None:
    """How long a destination takes to answer, and then to say something."""
    steps.connects()
    steps.gate.connected(steps.connection, EPOLLOUT)
    steps.connection.owing = 999.5
    steps.gate.first_octet(steps.connection)
    counted = steps.counters.shared.read()
    assert [counted[name, "sum"] for name in (CONNECT_SECONDS, FIRST_BYTE_SECONDS)] == [10_000_000, 500_000]
    assert steps.connection.owing == 0.0


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
    ("tunnel", "shown", "direct"),
    [
        (None, "direct.example.org", True),
        (None, "www.example.org", False),
        (Tunnel("direct.example.org", 443, socks=False), "www.example.org", True),
        (Tunnel("www.example.org", 443, socks=False), "direct.example.org", False),
        (None, None, False),
    ],
)
def test_which_destinations_have_a_parent(steps: Steps, tunnel: Tunnel | None, shown: Any, direct: bool) -> None:
    """What is excluded by name is reached directly: by the name asked for, or else the one in the hello."""
    upstream = Upstream(kind=UpstreamKind.HTTP, host="192.0.2.1", port=3128, exclusions=("direct.example.org",))
    steps.holder.snapshot = snapshot(ban(), upstream=(upstream,))
    steps.connection.tunnel, steps.connection.shown = tunnel, shown
    assert steps.gate.parent(steps.connection, ("198.51.100.7", 443)) == (None if direct else upstream)


@pytest.mark.parametrize("held", [HELLO, b""])
@pytest.mark.parametrize("event", [EPOLLOUT, EPOLLOUT | EPOLLIN])
def test_a_destination_that_is_there(steps: Steps, held: bytes, event: int) -> None:
    """It gets what the client said, and its own first words pass; without any, the client is heard."""
    steps.connects()
    steps.connection.held = held
    steps.server.sendall(b"220 words")
    steps.gate.connected(steps.connection, event)
    assert steps.connection.owing == (1000.0 if held and event == EPOLLOUT else 0.0)
    assert (steps.connection.state is OPEN) is bool(held)
    if held:
        assert steps.server.recv(1000) == HELLO
    if event & EPOLLIN:
        assert steps.client.recv(100) == b"220 words"


@pytest.mark.parametrize("tunnel", [False, True])
def test_a_destination_that_refuses(steps: Steps, monkeypatch: pytest.MonkeyPatch, tunnel: bool) -> None:
    """The client is reset as by the destination, or told in its proxy's words; and it is counted why."""
    steps.connects()
    if tunnel:
        steps.connection.tunnel = Tunnel("198.51.100.7", 443, socks=False)

    class Refusing:
        """A socket with an error."""

        def getsockopt(self, *_: int) -> int:
            return errno.ECONNREFUSED

        def close(self) -> None:
            """Nothing is open."""

        setsockopt = getsockopt

    steps.connection.server = Refusing()
    steps.gate.connected(steps.connection, EPOLLOUT | EPOLLERR)
    assert steps.errors(ConnectError.REFUSED) == 1
    if tunnel:
        assert UNREACHABLE in steps.heard()
    else:
        steps.gate.release_closed()
        assert broken_off(steps.client)


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
