"""How destinations are dialled, step by step: by which way, what each side sees, and what is measured."""

from dataclasses import replace
from ipaddress import ip_network
from select import EPOLLIN, EPOLLOUT
from typing import Any

import pytest

from labs.builders import ban, service, snapshot
from labs.gate_lab import broken_off
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from tokgate.gate.connecting import AskingParent, Connecting, dial, parent
from tokgate.gate.connection import State, Tunnel
from tokgate.gate.egress.parents import AskedParent
from tokgate.gate.sockets import Entry, NoDestinationError, listen
from tokgate.policy.observation import Visibility
from tokgate.policy.settings import Upstream
from tokgate.traffic.counters import CONNECT_SECONDS, ConnectError
from tokgate.traffic.refusal_texts import UNREACHABLE
from tokgate.traffic.seen import Shown

HELLO = hello_for("www.example.net")


@pytest.mark.parametrize(("error", "loops"), [(NoDestinationError(), 1), (OSError(), 0)])
@pytest.mark.parametrize("tunnel", [False, True])
def test_a_destination_that_can_not_be_dialled(
    steps: Steps, monkeypatch: pytest.MonkeyPatch, error: OSError, loops: int, tunnel: bool
) -> None:
    """The client sees it as it would see it from the destination; a way back to the gate is counted."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(steps.gate.dialler, "connect", fail)
    if tunnel:
        steps.connection.tunnel = Tunnel("198.51.100.7", 443, socks=False, addresses=("198.51.100.7",))
    words = steps.tunnel_message if tunnel else steps.message
    words.connect(steps.connection, ("198.51.100.7", 443), steps.gate.relay)
    assert steps.counters.loops == loops
    if tunnel:
        assert (UNREACHABLE in steps.heard()) is (loops == 0)
    else:
        steps.gate.loop.release_closed()
        assert broken_off(steps.client)


def test_a_tunnel_back_to_a_listener_in_ipv6(steps: Steps) -> None:
    """It is known by address and port, whatever else the kernel says of the listener: no gate calls itself for ever."""
    listener = listen("::1", 0, Entry.EXPLICIT)
    steps.gate.acceptor.add_listener(listener)
    steps.connection.tunnel = Tunnel("localhost", listener.port, socks=False, established=True)
    with pytest.raises(NoDestinationError):
        dial(steps.context, steps.connection, ("::1", listener.port), Connecting(steps.context, steps.gate.relay))
    steps.gate.acceptor.stop_accepting()


def test_what_is_measured(steps: Steps) -> None:
    """How long a destination takes to answer."""
    steps.connects()
    steps.loop.now += 10
    steps.answers(EPOLLOUT)
    assert steps.counters.shared.read()[CONNECT_SECONDS, "sum"] == 10_000_000


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
    """What is excluded is reached directly: by its address, the name asked for, or else the one in the hello."""
    excluded = ("direct.example.org", ip_network("203.0.113.0/24"))
    upstream = Upstream(host="192.0.2.1", port=3128, exclusions=excluded)
    steps.holder.snapshot = snapshot(ban(), upstream=(upstream,))
    steps.connection.tunnel, steps.connection.shown = tunnel, shown
    assert parent(steps.context, steps.connection, ("198.51.100.7", 443)) == (None if direct else upstream)
    assert parent(steps.context, steps.connection, ("203.0.113.7", 443)) is None


@pytest.mark.parametrize("held", [HELLO, b""])
@pytest.mark.parametrize("event", [EPOLLOUT, EPOLLOUT | EPOLLIN])
def test_a_destination_that_is_there(steps: Steps, held: bytes, event: int) -> None:
    """It gets what the client said, and its own first words pass; without any, the client is heard."""
    steps.connects(None if held else steps.message)
    steps.connection.received = held
    steps.server.sendall(b"220 words")
    steps.answers(event)
    assert steps.is_open is bool(held)
    if held:
        assert steps.server.recv(1000) == HELLO
    if event & EPOLLIN:
        assert steps.client.recv(100) == b"220 words"


WITHOUT_NAME = Shown(visibility=Visibility.ADDRESS)
UPSTREAM = Upstream(host="192.0.2.1", port=3128)


@pytest.mark.parametrize(
    ("shown", "kind", "refused", "entry", "policy"),
    [
        (WITHOUT_NAME, ConnectError.REFUSED, True, Entry.TPROXY, {}),
        (WITHOUT_NAME, ConnectError.TIMEOUT, False, Entry.TPROXY, {}),
        (WITHOUT_NAME, ConnectError.UNREACHABLE, False, Entry.TPROXY, {}),
        ("198.51.100.7", ConnectError.REFUSED, True, Entry.TPROXY, {}),
        ("www.example.net", ConnectError.REFUSED, None, Entry.TPROXY, {}),
        (WITHOUT_NAME, ConnectError.NO_PORT, None, Entry.TPROXY, {}),
        (WITHOUT_NAME, ConnectError.FORBIDDEN, None, Entry.TPROXY, {}),
        (WITHOUT_NAME, ConnectError.REFUSED, None, Entry.REDIRECT, {}),
        (WITHOUT_NAME, ConnectError.REFUSED, None, Entry.TPROXY, {"upstream": (UPSTREAM,)}),
        (
            WITHOUT_NAME,
            ConnectError.REFUSED,
            None,
            Entry.TPROXY,
            {"services": (service("a", addresses=("198.51.100.0/24",)),)},
        ),
    ],
)
def test_what_the_kernel_is_told(
    steps: Steps, shown: Any, kind: ConnectError, refused: bool | None, entry: Entry, policy: dict[str, Any]
) -> None:
    """Of what failed for a client of TPROXY's without a name, in which way; not of this machine's or a parent's faults.

    Nor of addresses of services: who asks for these is logged.
    """
    told: list[Any] = []
    steps.gate.dialler.tell_failed = lambda *what: told.append(what)
    steps.holder.snapshot = snapshot(ban(), **policy)
    steps.connection.listener = replace(steps.connection.listener, entry=entry)
    steps.connection.shown = shown
    steps.connects()
    connecting = steps.connection.state = Connecting(steps.context, steps.gate.relay, untried=())
    connecting.unreachable(steps.connection, kind)
    assert told == ([] if refused is None else [("192.0.2.7", ("198.51.100.7", 443), refused)])


def asks(steps: Steps, then: State) -> None:
    asked = AskedParent(steps.gate.dialler.parents, b"CONNECT")
    steps.connection.state = AskingParent(Connecting(steps.context, then), asked)


@pytest.mark.parametrize("held", [HELLO, b""])
def test_words_behind_a_parents_answer(steps: Steps, held: bytes) -> None:
    """They are the destination's, and pass although nothing more is told of them."""
    steps.connects()
    steps.connection.received = held
    asks(steps, steps.gate.relay if held else steps.message)
    steps.server.sendall(b"HTTP/1.1 200 OK\r\n\r\n220 words")
    steps.answers(EPOLLOUT)
    assert steps.client.recv(100) == b"220 words"
