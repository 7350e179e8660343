"""Who is accepted: as many as there may be, in all and of a client, and those whom a load balancer passes on."""

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from types import SimpleNamespace

import pytest

from labs.builders import ban
from labs.gate_lab import NOBODY, RunningGate, broken_off, policy
from labs.gate_steps import Steps
from labs.hello_builder import hello_for
from tokgate.gate.acceptor import AcceptingGates, limits_of
from tokgate.gate.sockets import Entry, acceptor
from tokgate.policy.settings import EgressSettings, LimitSettings, Settings
from tokgate.traffic.limits import Limits
from tokgate.wire.client_hello import REFUSAL

BALANCED = policy(ban(networks=("loop",)), load_balancers=(ip_network("127.0.0.1/32"),))


class PausedGate:
    """A gate that runs while a test waits for something, and the clients that it has."""

    def __init__(self, running: RunningGate) -> None:
        running.pause()
        self.running, self.gate = running, running.gate
        self.counters = self.gate.enforcer.counters
        self.clients: list[socket.socket] = []

    def dial(self, said: bytes = b"x") -> socket.socket:
        client = socket.create_connection(self.running.explicit)
        self.clients.append(client)
        client.sendall(said)
        return client

    def ports(self) -> list[int]:
        return [connection.port for connection in self.gate.loop.connections.values()]

    def serves(self, *clients: socket.socket) -> bool:
        return self.running.serves(lambda: self.ports() == [client.getsockname()[1] for client in clients])


@pytest.fixture
def make(start_gate: Callable[..., RunningGate]) -> Iterator[Callable[..., PausedGate]]:
    made: list[PausedGate] = []

    def start(**options: object) -> PausedGate:
        made.append(PausedGate(start_gate(**options)))
        return made[-1]

    yield start
    for client in (client for one in made for client in one.clients):
        client.close()


def test_a_full_gate_leaves_clients_to_others(make: Callable[..., PausedGate]) -> None:
    """While another gate has room nobody is turned away, who came with the last one neither.

    Who still waits when there is room here, is served.
    """
    one = make(limits=Limits(connections=1))
    one.gate.acceptor.others_accept = lambda: True
    first, second = one.dial(), one.dial()
    assert one.serves(first)
    assert one.gate.acceptor.full
    one.gate.acceptor.try_again()
    assert one.gate.acceptor._paused
    assert (one.ports(), one.counters.at_limit) == ([first.getsockname()[1]], 0)
    first.close()
    assert one.serves(second)


def test_a_client_that_a_full_gate_was_told_of(make: Callable[..., PausedGate]) -> None:
    """The kernel tells one gate of a client. If that one leaves it, another one with room finds it all the same."""
    one = make()
    for descriptor in one.gate.acceptor.listeners:
        one.gate.loop.call_no_more(descriptor)
    client = one.dial()
    one.gate.acceptor.try_again()
    assert one.serves(client)


def test_a_refusal_between_two_batches(make: Callable[..., PausedGate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end goes out before the gate waits for others; without it the kernel holds the alert back (MSG_MORE)."""
    one = make(origin=NOBODY, snapshot=policy(ban(networks=("loop",))))
    for descriptor in one.gate.acceptor.listeners:
        one.gate.loop.call_no_more(descriptor)
    client = socket.create_connection(one.running.redirected)
    one.clients.append(client)
    client.sendall(hello_for("www.clips.example.org"))
    one.gate.acceptor.try_again()
    heard: list[bytes] = []

    def listen(*_: object, **__: object) -> list[object]:
        heard.extend(client.recv(64, socket.MSG_DONTWAIT) for _ in range(2))
        return []

    with monkeypatch.context() as patch:
        patch.setattr(one.gate.loop, "_polling", SimpleNamespace(wait=listen))
        one.gate.loop.once(60)
    assert heard == [REFUSAL, b""]


def test_when_all_gates_are_full_clients_are_told(make: Callable[..., PausedGate]) -> None:
    """Whoever waits in the queue learns it once there is no room anywhere, and those who come later at once."""
    one = make(limits=Limits(connections=1))
    room = [True]
    one.gate.acceptor.others_accept = lambda: room[0]
    first = one.dial()
    assert one.serves(first)
    second = one.dial()
    assert one.running.serves(lambda: one.gate.acceptor._paused)
    one.gate.acceptor.try_again()
    assert one.gate.acceptor._paused
    room[0] = False
    one.gate.acceptor.try_again()
    assert one.running.serves(lambda: one.counters.at_limit == 1)
    third = one.dial()
    assert one.running.serves(lambda: one.counters.at_limit == 2)
    assert broken_off(second)
    assert broken_off(third)
    assert one.ports() == [first.getsockname()[1]]


@pytest.mark.parametrize(("stated", "descriptors", "most"), [(50_000, 1024, 256), (10, 1024, 10), (10, 100, 1)])
def test_limits_fit_the_descriptors(monkeypatch: pytest.MonkeyPatch, stated: int, descriptors: int, most: int) -> None:
    """A connection takes two, and some are kept for all else; there is always room for one."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, 1 << 20))
    stated_limits = LimitSettings(connections=stated, per_client=7)
    settings = Settings(limits=stated_limits, egress=EgressSettings(connect_seconds=3))
    limits = limits_of(Limits(idle=7.0), settings)
    assert limits.connecting == 3.0
    assert (limits.connections, limits.per_client, limits.idle) == (most, 7, 7.0)


def test_clients_of_a_load_balancer(make: Callable[..., PausedGate]) -> None:
    """Each has the share of a client of its own, under its own address, however its header comes."""
    one = make(snapshot=BALANCED, limits=Limits(per_client=1))
    header = b"PROXY TCP4 192.0.2.%d 198.51.100.1 40000 8080\r\n"
    first, second = one.dial((header % 7)[:9]), one.dial(header % 8 + b"CONN")
    assert one.running.serves(lambda: len(one.ports()) == 2)
    first.sendall((header % 7)[9:])
    assert one.running.serves(lambda: set(one.gate.acceptor.clients) == {"192.0.2.7", "192.0.2.8"})
    connections = one.gate.loop.connections.values()
    assert one.running.serves(lambda: sorted(bytes(each.received) for each in connections) == [b"", b"CONN"])
    third = one.dial(header % 8)
    assert one.running.serves(lambda: one.counters.at_limit == 1)
    assert broken_off(third)
    assert one.gate.acceptor.clients == {"192.0.2.7": 1, "192.0.2.8": 1}
    assert set(one.ports()) == {40000}
    assert len(one.ports()) == 2, "what is over is not watched"
    second.close()
    assert one.running.serves(lambda: one.gate.acceptor.clients == {"192.0.2.7": 1})


@pytest.mark.parametrize(
    ("balancers", "awaits"),
    [(("192.0.2.0/24",), False), (("192.0.2.0/24", "127.0.0.1/32"), True), ((), False)],
)
def test_whose_header_is_awaited(make: Callable[..., PausedGate], balancers: tuple[str, ...], awaits: bool) -> None:
    """That of a load balancer that the policy names: without it nothing is read. Others speak for themselves."""
    one = make(snapshot=policy(ban(networks=("loop",)), load_balancers=tuple(map(ip_network, balancers))))
    client = one.dial(b"GET http://www.example.net/ HTTP/1.1\r\n\r\n")
    assert one.running.serves(lambda: one.counters.unfinished if awaits else one.running.opener.adopted)
    assert (one.counters.unfinished, len(one.running.opener.adopted)) == (int(awaits), int(not awaits))
    assert one.gate.acceptor.clients == {}
    assert not awaits or broken_off(client)


@pytest.mark.parametrize(
    ("numbers", "tries"),
    [((errno.ECONNABORTED, errno.EINTR, errno.EAGAIN), 3), ((errno.EPROTO,), 1), ((errno.EAGAIN,), 1)],
)
def test_accepting_fails(
    make: Callable[..., PausedGate], monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...], tries: int
) -> None:
    """A client that has gone costs no other its place, nor one that came before; what fails is not tried for ever."""
    one, left = make(), list(numbers)
    client = one.dial()
    (listener,) = (each for each in one.gate.acceptor.listeners.values() if each.entry is Entry.EXPLICIT)
    take = acceptor(listener.socket)

    def fail_behind_it() -> tuple[int, object]:
        if not one.gate.acceptor.open_connections:
            return take()
        number = left.pop(0)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tokgate.gate.acceptor.acceptor", lambda _: fail_behind_it)
    monkeypatch.setattr("tokgate.gate.acceptor.waiting", lambda _: 9)
    one.gate.acceptor.accept(listener)
    assert (len(numbers) - len(left), one.ports()) == (tries, [client.getsockname()[1]])


@pytest.mark.parametrize(("number", "ends"), [(errno.EMFILE, False), (errno.ENFILE, True)])
def test_out_of_descriptors(
    make: Callable[..., PausedGate], monkeypatch: pytest.MonkeyPatch, number: int, ends: bool
) -> None:
    """Clients wait instead of being told of for ever; with the next try, or the next that ends, they are served."""
    one, tries = make(), list[int]()
    first = one.dial()
    assert one.serves(first)

    def fail() -> None:
        tries.append(number)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("tokgate.gate.acceptor.acceptor", lambda _: fail)
        second = one.dial()
        assert one.running.serves(lambda: tries)
        for _ in range(3):
            one.gate.loop.once(0)
    assert (len(tries), one.counters.at_limit) == (1, 0)
    if ends:
        first.close()
        assert one.serves(second)
    else:
        one.gate.acceptor.try_again()
        assert one.serves(first, second)


def test_a_gate_that_accepts_no_more(make: Callable[..., PausedGate]) -> None:
    """Its listeners are nobody's any more, also while it was full; what is open goes on."""
    for full in (False, True):
        one = make(limits=Limits(connections=1))
        one.gate.acceptor.others_accept = lambda: True
        client = one.dial()
        assert one.serves(client)
        if full:
            one.gate.acceptor.try_again()
        sockets = [listener.socket for listener in one.gate.acceptor.listeners.values()]
        one.gate.acceptor.stop_accepting()
        assert (one.gate.acceptor.listeners, {sock.fileno() for sock in sockets}) == ({}, {-1})
        assert one.serves(client)


def test_a_gate_that_is_closed_holds_no_descriptor() -> None:
    """Gates come and go in one process: what a transfer had, or left for the next, goes with each."""
    steps = Steps()
    direction = steps.gate.relay.direction(steps.connection, True, b"")
    pipe = steps.gate.relay._take_pipe(direction)
    steps.loop.close(steps.connection)
    steps.close()
    assert steps.gate.loop.epoll.closed
    for descriptor in pipe:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)


def test_which_gates_accept() -> None:
    """Gates that share the memory learn of each other, and not of themselves."""
    gates = AcceptingGates(3)
    assert not gates.others(0)
    if (child := os.fork()) == 0:
        gates.tell(1, True)
        os._exit(0)
    os.waitpid(child, 0)
    assert [gates.others(slot) for slot in range(3)] == [True, False, True]
    gates.tell(1, False)
    assert not gates.others(0)
