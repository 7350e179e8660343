"""Explicit clients that don't say in time what their tunnel carries."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest

from labs.gate_lab import Sink, policy
from labs.records import Holder
from tokgate.blocklog.records.record import Observer
from tokgate.gate.connection import Connection, Greeting, Tunnel
from tokgate.gate.explicit_clients.front import ExplicitFront
from tokgate.gate.explicit_clients.loop import Loop
from tokgate.gate.sockets import Entry, Listener
from tokgate.traffic.enforcer import Enforcer

GREETING = 20.0


@pytest.fixture
def loop() -> Any:
    """An event loop that does nothing."""
    return create_autospec(Loop, instance=True)


@pytest.fixture
def front(loop: Any) -> Iterator[ExplicitFront]:
    """The reader of explicit clients in that loop."""
    enforcer = Enforcer(Holder(policy()), Sink(), Observer(hostname="gate.example.org", version="test"))
    made = ExplicitFront(loop, enforcer, greeting=GREETING, connecting=10.0)
    yield made
    made.close()


def established(held: bytes) -> tuple[Connection, Tunnel]:
    """A tunnel to an address that is not connected yet; the client has said `held` through it."""
    tunnel = Tunnel("198.51.100.7", 443, socks=False, addresses=("198.51.100.7",), established=True)
    listener = Listener(None, Entry.EXPLICIT, 8080, 0)
    connection = Connection(None, 7, "192.0.2.7", 40000, listener, 0.0, Greeting(), held=held, tunnel=tunnel)
    connection.deadline = 100.0
    return connection, tunnel


def test_a_silent_client_gets_to_hear_its_server(front: ExplicitFront, loop: Any) -> None:
    """Mail and SSH work through a tunnel to an address: the server is connected, so that it can speak first."""
    connection, tunnel = established(b"")
    assert front.lose_patience(connection, tunnel)
    loop.dial.assert_called_once_with(connection, ("198.51.100.7", 443))


def test_a_client_that_has_begun_gets_more_time_once(front: ExplicitFront, loop: Any) -> None:
    """A hello in pieces over a slow line is waited for as any other; who never ends it is not waited for for ever."""
    connection, tunnel = established(b"\x16\3\1")
    assert front.lose_patience(connection, tunnel)
    assert connection.deadline == 100.0 + GREETING
    assert not front.lose_patience(connection, tunnel)
    assert connection.deadline == 100.0 + GREETING
    loop.dial.assert_not_called()
