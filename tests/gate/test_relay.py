"""Bulk that ends badly: whose bytes go to whom, what shows of a broken transfer, and who has to wait for whom."""

import hashlib
import os
import socket
from collections.abc import Callable

from labs.gate_lab import (
    ALLOWED,
    RunningGate,
    StartGate,
    StartOrigin,
    dial,
    exactly,
    read_all,
    reset,
    until,
)


def sends(body: bytes) -> Callable[[socket.socket], None]:
    """An origin that sends something to whoever says hello."""

    def serve(client: socket.socket) -> None:
        exactly(client, len(ALLOWED))
        client.sendall(body)

    return serve


def stalled(gate: RunningGate, number: int = 1) -> bool:
    """Whether that many downloads hold bytes for clients that don't read."""

    def holding() -> bool:
        found = {c for c in list(gate.gate.loop.connections.values()) if c.down is not None and c.down.in_pipe}
        return len(found) == number

    return bool(until(holding))


def test_nobody_gets_another_clients_bytes(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A download that is broken off leaves bytes in its pipe: the next download has a pipe without them."""
    theirs, ours = b"A" * (12 << 20), b"B" * (4 << 20)
    turns = iter((theirs, ours))
    gate = start_gate(start_origin(lambda client: sends(next(turns))(client)))
    with dial(gate.redirected, ALLOWED) as leaver:
        assert stalled(gate)
        reset(leaver)
    assert gate.settled()
    with dial(gate.redirected, ALLOWED) as client:
        received = read_all(client)
    assert (len(received), received.strip(b"B")) == (len(ours), b"")


def test_a_client_that_takes_little_at_a_time_gets_everything(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """What a full socket does not take of a piece follows later, in order."""
    body = os.urandom(1 << 20)
    gate = start_gate(start_origin(sends(body)))
    gate.listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # inherited by who is accepted
    with dial(gate.redirected, ALLOWED, room=4096) as client:
        assert until(lambda: any(c.down and c.down.blocked for c in list(gate.gate.loop.connections.values())))
        received = read_all(client)
    assert hashlib.sha256(received).digest() == hashlib.sha256(body).digest()
