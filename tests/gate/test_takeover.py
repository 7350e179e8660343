"""Connections that go from one gate to the next in the middle of whatever they are doing."""

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labs.builders import ban
from labs.gate_lab import (
    ALLOWED,
    BANNED,
    DEADLINE,
    REFUSED,
    Clock,
    RunningGate,
    StartGate,
    StartOrigin,
    broken_off,
    dial,
    echo,
    exactly,
    policy,
    read_all,
    reset,
    until,
)
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from tokgate.evasion.hello import records, vector
from tokgate.gate import handoff
from tokgate.gate.connection import Connection
from tokgate.gate.first_message import FirstExchange
from tokgate.gate.takeover import RETRY, ConnectionTransfer, read, write
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.traffic.counters import DecisionKey
from tokgate.wire.hello_reader import HELLO_RETRY

ASKS_AGAIN = records(b"\2" + vector(3, b"\3\3" + HELLO_RETRY + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0"))


type Channel = tuple[socket.socket, socket.socket]


@pytest.fixture
def channel() -> Iterator[Channel]:
    """Both ends of the way from one gate to the next."""
    write, read = handoff.channel()
    with write, read:
        yield write, read


def succeed(old: RunningGate, new: RunningGate, channel: Channel) -> tuple[ConnectionTransfer, ConnectionTransfer]:
    """Have one gate pass everything on to the other, each by its end of the way."""
    there = new.transfer = ConnectionTransfer(new.gate, new.listeners, *channel)
    here = old.transfer = ConnectionTransfer(old.gate, old.listeners, *channel)
    new.retired, old.retired = False, True
    return here, there


def moved(old: RunningGate, new: RunningGate, number: int = 1) -> bool:
    """Whether the new gate has that many connections, and the old one none."""
    return bool(until(lambda: old.gate.acceptor.open_connections == 0 and new.gate.acceptor.open_connections == number))


def test_the_gate_before_is_slow_to_let_go(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """While it has sockets open still, the next gate, which has closed its own, is told of them no more.

    A number may be another client's by then, which would be taken for the one whose connection has ended.
    """
    old, new = start_gate(start_origin()), start_gate()
    with dial(old.redirected, ALLOWED) as client:
        assert client.recv(65536) == ALLOWED
        old.pause()
        new.pause()
        (connection,) = set(old.gate.loop.connections.values())
        said, descriptors = write(old.gate, connection, old.listeners)
        moved_on = read(new.gate, said, [os.dup(each) for each in descriptors], new.listeners)
        new.gate.acceptor.adopt(moved_on)
        for end in (new.gate.relay.drop_server, new.gate.loop.close):
            end(moved_on)
            new.gate.loop.once(0)
        for still_open in (connection.client, connection.server):
            still_open.shutdown(socket.SHUT_RDWR)
        assert new.gate.loop.epoll.poll(0) == []


def test_a_watched_connection_moves(start_gate: StartGate, start_origin: StartOrigin, channel: Channel) -> None:
    """While a server has yet to answer, the next gate knows what the first hello said, should it ask for another."""
    asks, heard = threading.Event(), []

    def serve(client: socket.socket) -> None:
        client.recv(65536)
        asks.wait(DEADLINE)
        client.sendall(ASKS_AGAIN)
        heard.append(client.recv(65536))

    old, new = start_gate(start_origin(serve)), start_gate()
    with dial(old.redirected, ALLOWED) as client:
        assert until(lambda: any(isinstance(c.state, FirstExchange) for c in list(old.gate.loop.connections.values())))
        succeed(old, new, channel)
        assert moved(old, new)
        asks.set()
        assert exactly(client, len(ASKS_AGAIN)) == ASKS_AGAIN
        client.sendall(hello_for("www.example.com"))
        assert read_all(client) == REFUSED
    assert new.settled()
    assert until(lambda: heard) == [b""]
    assert [record["tokgate"]["reason"] for record in new.sink.records] == ["name-changed"]


def test_one_that_waits_for_its_server_is_counted_once(
    start_gate: StartGate,
    start_origin: StartOrigin,
    channel: Channel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that the next gate takes over has not ended: that gate counts it, however it ends."""

    def serve(client: socket.socket) -> None:
        client.sendall(b"220 ")
        client.recv(1)

    monkeypatch.setattr("tokgate.gate.sockets.DEFER_SECONDS", 1)  # then the kernel tells of who says nothing
    old, new = start_gate(start_origin(serve)), start_gate()
    with dial(old.redirected) as client:
        assert exactly(client, 4) == b"220 "
        succeed(old, new, channel)
        assert moved(old, new)
        reset(client)
        assert new.settled()
        new.pause()
    before, counters = old.gate.enforcer.counters, new.gate.enforcer.counters
    assert (before.decisions, counters.unfinished) == ({}, 0)
    assert counters.decisions == {DecisionKey("loop", Visibility.ADDRESS, Verdict.ALLOW): 1}


def test_bulk_moves_back_and_forth(start_gate: StartGate, start_origin: StartOrigin, channel: Channel) -> None:
    """Transfers both ways, with full pipes, arrive whole over many moves."""
    gates = [start_gate(start_origin(echo)), start_gate()]
    body = os.urandom(24 << 20)
    done = threading.Event()

    def send(client: socket.socket) -> None:
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)

    def shuffle() -> None:
        while not done.is_set():
            succeed(gates[0], gates[1], channel)
            until(lambda: gates[0].gate.acceptor.open_connections == 0 or done.is_set())
            gates.reverse()

    with dial(gates[0].redirected, ALLOWED) as client:
        threads = [threading.Thread(target=send, args=(client,)), threading.Thread(target=shuffle)]
        for thread in threads:
            thread.start()
        received = bytearray()
        while piece := client.recv(1 << 16):
            received += piece
            if len(received) % 7 == 0:
                done.wait(0.002)  # a reader that is slow at times fills the pipes
        done.set()
        for thread in threads:
            thread.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(ALLOWED + body).digest()
    assert sum(gate.gate.acceptor.open_connections for gate in gates) == 0
    assert all(record["event"]["action"] != "internal-error" for gate in gates for record in gate.sink.records)


@pytest.mark.parametrize("said", [1, 100])
def test_a_greeting_moves(start_gate: StartGate, start_origin: StartOrigin, channel: Channel, said: int) -> None:
    """A client in the middle of its first words is decided about by the gate, and the policy, that hears the last."""
    old, new = start_gate(start_origin(), policy()), start_gate(None, policy(ban(networks=("loop",))))
    with dial(old.redirected, BANNED[:said]) as client:
        assert until(lambda: old.gate.acceptor.open_connections == 1)
        succeed(old, new, channel)
        assert moved(old, new)
        client.sendall(BANNED[said:])
        assert client.recv(7)[:1] == b"\x15"


@pytest.mark.parametrize("early", [b"", b"\x05", b"\x05\x01\x00", b"\x05\x01\x00\x05\x01"])
def test_a_socks_greeting_moves(
    start_gate: StartGate, start_origin: StartOrigin, channel: Channel, early: bytes
) -> None:
    """A SOCKS client gets each answer once, whichever gate it comes from."""
    old, new, origin = start_gate(), start_gate(), start_origin()
    request = b"\x05\x01\x00" + b"\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.address[1].to_bytes(2)
    with dial(old.explicit, early) as client:
        assert until(lambda: old.gate.acceptor.open_connections == 1)
        if len(early) >= 3:
            assert client.recv(2) == b"\x05\x00"
        succeed(old, new, channel)
        assert moved(old, new)
        client.sendall(request[len(early) :])
        if len(early) < 3:
            assert client.recv(2) == b"\x05\x00"
        assert client.recv(2) == b"\x05\x00"
        client.recv(8)
        client.sendall(ALLOWED)
        assert client.recv(65536) == ALLOWED


def test_the_next_policy_cuts_what_arrives(
    start_gate: StartGate,
    start_origin: StartOrigin,
    channel: Channel,
    valid_record: Callable[[Any], Any],
) -> None:
    """A connection of the policy before ends in the gate of the one that bans it; another one goes on there."""
    clock = Clock("2023-06-01T00:00:00Z")
    old = start_gate(start_origin(), policy(), now=clock)
    new = start_gate(None, policy(ban(networks=("loop",))), now=clock)
    with dial(old.redirected, BANNED) as banned, dial(old.redirected, ALLOWED) as other:
        assert banned.recv(65536) == BANNED
        assert other.recv(65536) == ALLOWED
        here, there = succeed(old, new, channel)
        assert broken_off(banned)
        assert moved(old, new)
        assert (here.passed_on, there.taken_over) == (2, 2)
        assert (old.gate.acceptor.clients, new.gate.acceptor.clients) == ({}, {"127.0.0.1": 1})
        other.sendall(b"on")
        assert other.recv(2) == b"on"
    (record,) = until(lambda: new.sink.records)
    assert valid_record(record)["event"]["action"] == "connection-cut"
    assert old.sink.records == []


def test_a_gate_takes_over_what_it_has_descriptors_for(
    start_gate: StartGate,
    start_origin: StartOrigin,
    channel: Channel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that arrived without its descriptors would be lost: it waits for who has room."""
    old, full, roomy = start_gate(start_origin()), start_gate(), start_gate()
    with dial(old.redirected, ALLOWED) as client:
        assert client.recv(65536) == ALLOWED
        limits = (513, 1 << 20)
        with monkeypatch.context() as small:
            small.setattr("resource.getrlimit", lambda _: limits)
            transfer = ConnectionTransfer(full.gate, full.listeners, *channel)
        assert not transfer.takes_more
        full.transfer = transfer
        old.transfer, old.retired = ConnectionTransfer(old.gate, old.listeners, *channel), True
        assert until(lambda: old.gate.acceptor.open_connections == 0)
        assert full.gate.acceptor.open_connections == 0
        roomy.transfer = ConnectionTransfer(roomy.gate, roomy.listeners, *channel)
        client.sendall(b"there")
        assert client.recv(5) == b"there"
    assert (full.gate.acceptor.open_connections, transfer.taken_over) == (0, 0)


def test_what_is_mangled_is_told_and_closed(start_gate: StartGate, channel: Channel) -> None:
    """A datagram that is no connection costs nothing but itself."""
    new = start_gate()
    ours, theirs = socket.socketpair()
    socket.send_fds(channel[0], [b"nonsense"], [theirs.fileno()])
    theirs.close()
    new.transfer = ConnectionTransfer(new.gate, new.listeners, *channel)
    assert until(lambda: new.sink.records)[0]["tokgate"]["where"] == "succession"
    assert ours.recv(1) == b""
    ours.close()


def test_all_of_a_connection_is_carried(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Every attribute arrives, but for those that mean something in one process only."""
    old = start_gate(start_origin())
    with dial(old.redirected, ALLOWED) as client:
        assert client.recv(65536) == ALLOWED
        old.pause()
        (connection,) = set(old.gate.loop.connections.values())
        said, descriptors = write(old.gate, connection, old.listeners)
        revived = read(old.gate, said, [os.dup(descriptor) for descriptor in descriptors], old.listeners)
        for name in set(Connection.__slots__) - {"client", "client_fd", "server", "server_fd"}:
            assert getattr(revived, name) == getattr(connection, name), name
        revived.client.close()
        revived.server.close()


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
    listeners = [steps.connection.listener]
    said, descriptors = write(steps.gate, steps.connection, listeners)
    with pytest.raises(ValueError, match="can't be read"):
        read(steps.gate, said, descriptors * times, listeners)
    os.fstat(descriptors[0])
    steps.close()


def test_the_channel_has_ended(steps: Steps) -> None:
    """What tells of an end for ever is heard once, and counts as no error."""
    write, read = handoff.channel()
    with write, read:
        transfer = ConnectionTransfer(steps.gate, [], write, read)
        assert transfer.takes_more
        write.shutdown(socket.SHUT_WR)
        assert transfer.take() == []
        assert (transfer.takes_more, sum(steps.counters.errors.values())) == (False, 0)
