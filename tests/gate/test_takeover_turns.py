"""Whose turn it is when the gates of the next policy had no room for a connection."""

import contextlib
import socket
from collections.abc import Callable

from labs.gate_lab import RunningGate, dial, until
from labs.hello_builder import hello_for
from tokgate.gate import handoff
from tokgate.gate.takeover import ConnectionTransfer

HALF = hello_for("www.example.net")[:40]


def test_who_found_no_room_goes_first(start_gate: Callable[..., RunningGate]) -> None:
    """A connection that met a full queue moves with the first room there is, and doesn't wait a round for it."""
    old = start_gate()
    write, read = handoff.channel()
    with write, read, dial(old.redirected, HALF):
        assert until(lambda: old.gate.connections)
        old.pause()
        transfer = ConnectionTransfer(old.gate, old.listeners, write, read)
        transfer.pass_on()  # sees who there is
        with contextlib.suppress(BlockingIOError):
            while write.send(bytes(1000)):
                pass
        assert transfer.pass_on() > 0.0
        assert transfer.passed_on == 0
        with contextlib.suppress(BlockingIOError):
            while read.recv(65536):
                pass
        transfer.pass_on()
        assert transfer.passed_on == 1
        _, descriptors, _, _ = socket.recv_fds(read, 1 << 20, 8)
        for descriptor in descriptors:
            socket.close(descriptor)
