"""Whose turn it is when the gates of the next policy had no room for a connection."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable

import pytest

from labs.gate_lab import RunningGate, dial, until
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from tokgate.gate import handoff
from tokgate.gate.connection import Connection
from tokgate.gate.takeover import RETRY, ConnectionTransfer, describe, read, write

HALF = hello_for("www.example.net")[:40]


def test_who_found_no_room_goes_first(start_gate: Callable[..., RunningGate]) -> None:
    """A connection that met a full queue moves with the first room there is, and doesn't wait a round for it."""
    old = start_gate()
    write, read = handoff.channel()
    with write, read, dial(old.redirected, HALF):
        assert until(lambda: old.gate.loop.connections)
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


@pytest.mark.parametrize(
    ("number", "tried", "passed"), [(errno.EMSGSIZE, 2, 1), (errno.EAGAIN, 1, 0), (errno.ENOBUFS, 1, 0)]
)
def test_what_can_not_be_sent(monkeypatch: pytest.MonkeyPatch, number: int, tried: int, passed: int) -> None:
    """One that is too large stays here and holds up no other; where there is no room, none is lost."""
    steps, sent = Steps(), []

    def send(_: socket.socket, data: list[bytes], descriptors: list[int]) -> int:
        sent.append(descriptors)
        if len(sent) == 1:
            raise OSError(number, os.strerror(number))
        return len(data[0])

    monkeypatch.setattr(socket, "send_fds", send)
    steps.gate.acceptor.listeners.clear()
    other = Connection(
        *(steps.outside, steps.outside.fileno(), "192.0.2.8", 40001, steps.connection.listener, 0.0, steps.message)
    )
    steps.gate.acceptor.adopt(other)
    steps.loop.keep_watching_client(steps.connection)
    write, read = handoff.channel()
    with write, read:
        transfer = ConnectionTransfer(steps.gate, [steps.connection.listener], write, read, monotonic=lambda: 0.0)
        assert (transfer.passed_on, transfer.taken_over) == (0, 0)
        assert transfer.pass_on() == RETRY, "it sees who there is"
        assert transfer.pass_on() == RETRY
        assert (len(sent), transfer.passed_on, steps.gate.acceptor.open_connections) == (tried, passed, 2 - passed)
        while transfer.passed_on < 2 - (number == errno.EMSGSIZE):
            transfer.pass_on()
        assert (sent[0] == sent[1]) is (passed == 0), "who found no room goes first"
    steps.close()


@pytest.mark.parametrize("times", [0, 2])
def test_a_connection_with_other_descriptors_than_it_says(times: int) -> None:
    """None of them is taken for another."""
    steps = Steps()
    serialized, descriptors = describe(steps.connection, [steps.connection.listener])
    with pytest.raises(ValueError, match=f"came with {times} descriptors"):
        read(steps.gate, write(steps.gate, serialized), descriptors * times)
    steps.close()


def test_the_channel_has_ended(steps: Steps) -> None:
    """What tells of an end for ever is heard once, and counts as no error."""
    write, read = handoff.channel()
    with write, read:
        transfer = ConnectionTransfer(steps.gate, [], write, read)
        assert transfer.has_room
        write.shutdown(socket.SHUT_WR)
        assert transfer.take() == []
        assert (transfer.has_room, sum(steps.counters.errors.values())) == (False, 0)
