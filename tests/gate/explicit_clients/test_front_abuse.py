"""Explicit clients that say too much, too little, nonsense, or leave while somebody works for them."""

import base64

import pytest

from labs.gate_lab import (
    ALLOWED,
    ESTABLISHED,
    StartGate,
    StartOrigin,
    dial,
    exactly,
    pass_time,
    read_all,
    until,
)
from labs.records import Monotonic
from tokgate.gate.connection import CLOSED
from tokgate.gate.explicit_clients.front import PATIENCE
from tokgate.gate.first_message import FirstMessage


def test_a_first_line_without_an_end_is_not_kept(start_gate: StartGate) -> None:
    """A client can't fill the gate's memory with a request line: it is told so after 64 KiB."""
    gate = start_gate()
    gate.opener.willing = False
    with dial(gate.explicit, b"A" * 70_000) as client:
        assert read_all(client).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("target", ["www.example.net", "a@b:443", "/", "www.example.net:https"])
def test_a_connect_to_nowhere_ends_there(start_gate: StartGate, target: str) -> None:
    """One answer, and nothing is resolved, dialled or raised for it."""
    gate = start_gate()
    with dial(gate.explicit, f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) as client:
        answer = read_all(client)
    assert (answer[:13], answer.count(b"HTTP/1.1")) == (b"HTTP/1.1 400 ", 1)
    assert gate.settled()
    assert gate.sink.records == []
    assert not gate.gate.enforcer.counters.errors


def test_nobody_may_dribble_for_ever(start_gate: StartGate, start_origin: StartOrigin, monotonic: Monotonic) -> None:
    """Half a hello in a tunnel to an address gets the time that others have once, and not again and again."""
    gate = start_gate()
    with dial(gate.explicit, connect(start_origin().address[1], host="127.0.0.1")) as client:
        exactly(client, len(ESTABLISHED))
        client.sendall(ALLOWED[:20])
        assert until(lambda: any(c.received for c in list(gate.gate.loop.connections.values())))
        pass_time(gate.gate, monotonic, PATIENCE)
        assert gate.gate.acceptor.open_connections == 1
        pass_time(gate.gate, monotonic, gate.gate.context.limits.greeting)
        assert read_all(client) == b""
    assert gate.gate.enforcer.counters.timeouts == 1


def test_nobody_may_dribble_once_the_server_is_there(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Who was silent, so that its server could speak first, and then begins, gets no time beyond the others'."""
    gate = start_gate()
    with dial(gate.explicit, connect(start_origin().address[1], host="127.0.0.1")) as client:
        exactly(client, len(ESTABLISHED))
        gate.pause()
        (connection,) = gate.gate.loop.connections.values()
        connection.state.overdue(connection)
        assert gate.serves(lambda: connection.server is not None and isinstance(connection.state, FirstMessage))
        client.sendall(ALLOWED[:20])
        assert gate.serves(lambda: connection.received)
        connection.state.overdue(connection)
        assert connection.state is CLOSED
        assert gate.gate.enforcer.counters.timeouts == 1


# -- while a password is checked --------------------------------------------------------------------------------------


def connect(port: int, said: str | None = None, host: str = "localhost") -> bytes:
    """A CONNECT request, by `user:password` if somebody is said to ask."""
    who = "" if said is None else f"Proxy-Authorization: Basic {base64.b64encode(said.encode()).decode()}\r\n"
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{who}\r\n".encode()
