"""Bulk that ends badly: whose bytes go to whom, what shows of a broken transfer, and who has to wait for whom."""

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.gate_lab import (
    ALLOWED,
    BANNED,
    DEADLINE,
    RunningGate,
    StartGate,
    StartOrigin,
    broken_off,
    dial,
    exactly,
    read_all,
    reset,
    until,
)
from tokgate.traffic.limits import Limits


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


def test_a_closed_connection_is_not_read_from(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its numbers may be somebody else's by the time at which its turn would have come."""
    go_on = threading.Event()

    def serve(client: socket.socket) -> None:
        exactly(client, len(ALLOWED))
        client.sendall(b"ready")
        go_on.wait(DEADLINE)
        client.sendall(bytes(1 << 17))
        read_all(client)

    gate = start_gate(start_origin(serve))
    touched: list[int] = []

    def splice(source: int, sink: int, count: int, **_: int) -> int:
        touched.append(source)
        return 1  # whoever has the turn has more to do

    with dial(gate.redirected, ALLOWED) as leaver, dial(gate.redirected, ALLOWED) as stayer:
        for client in (leaver, stayer):
            assert exactly(client, 5) == b"ready"
        gate.pause()
        monkeypatch.setattr(os, "splice", splice)
        go_on.set()
        assert gate.serves(lambda: len(gate.gate.loop.bulk) == 2)
        dead = next(c for c in gate.gate.loop.connections.values() if c.port == leaver.getsockname()[1])
        numbers = {dead.client_fd, dead.server_fd}
        reset(leaver)
        assert gate.serves(lambda: gate.gate.acceptor.open_connections == 1)
        touched.clear()
        for _ in range(50):
            gate.gate.loop.once(0)
    assert touched
    assert numbers.isdisjoint(touched)


def test_one_download_leaves_the_others_their_turns(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that always have something to move, neither waits until the other is through."""
    gate = start_gate(start_origin(sends(bytes(1 << 17))))
    gate.pause()
    sources: list[int] = []

    def splice(source: int, sink: int, count: int, **_: int) -> int:
        sources.append(source)
        return 1

    monkeypatch.setattr(os, "splice", splice)
    with dial(gate.redirected, ALLOWED), dial(gate.redirected, ALLOWED):
        assert gate.serves(lambda: len(gate.gate.loop.bulk) == 2)
        servers = {c.server_fd for c in gate.gate.loop.connections.values()}
        sources.clear()
        for _ in range(100):
            gate.gate.loop.once(0)
    assert len(servers) == 2
    assert servers <= set(sources)


def test_a_transfer_that_breaks_does_not_look_whole(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download that fails half way ends with a reset: a plain end would pass for the whole file."""
    gate = start_gate(start_origin(sends(bytes(12 << 20))))
    with dial(gate.redirected, ALLOWED) as client:
        assert stalled(gate)

        def broken(*_: object, **__: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "splice", broken)
        assert broken_off(client)
    assert gate.settled()


def test_a_client_that_takes_little_at_a_time_gets_everything(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """What a full socket does not take of a piece follows later, in order."""
    body = os.urandom(1 << 20)
    gate = start_gate(start_origin(sends(body)))
    gate.listeners[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # inherited by who is accepted
    with socket.socket() as client:
        client.settimeout(DEADLINE)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(gate.redirected)
        client.sendall(ALLOWED)
        assert until(lambda: any(c.down and c.down.blocked for c in list(gate.gate.loop.connections.values())))
        received = read_all(client)
    assert hashlib.sha256(received).digest() == hashlib.sha256(body).digest()


def pipes() -> int:
    """The ends of pipes that this process has open."""
    number = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            number += str(entry.readlink()).startswith("pipe:")
    return number


def test_after_a_rush_few_pipes_are_kept(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes two descriptors and up to a megabyte of the kernel's: one busy evening must not cost them for ever."""
    monkeypatch.setattr("tokgate.gate.relay.MAX_POOLED", 1)
    body = bytes(12 << 20)
    gate = start_gate(start_origin(sends(body)))
    before = pipes()
    with dial(gate.redirected, ALLOWED) as one, dial(gate.redirected, ALLOWED) as two, dial(gate.redirected) as three:
        three.sendall(ALLOWED)
        assert stalled(gate, 3)
        assert pipes() == before + 6
        for client in (one, two, three):
            assert read_all(client) == body
    assert gate.settled()
    assert pipes() == before + 2


def test_a_refused_client_may_not_send_for_ever(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Who goes on sending megabytes after a refusal, without reading it, is closed and not listened to."""
    gate = start_gate(start_origin(), limits=Limits(parting=3600.0))
    gate.pause()
    with dial(gate.redirected, BANNED) as client:
        client.setblocking(False)

        def sent_all_that_fits() -> bool:
            try:
                client.send(bytes(1 << 20))
            except BlockingIOError:
                return True
            return False

        assert until(sent_all_that_fits)
        assert gate.serves(lambda: gate.gate.acceptor.open_connections == 0)
