"""A site that is half down: of the addresses of a name those are reached that answer (RFC 8305), each decided first."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from labs.gate_lab import (
    ALLOWED,
    ESTABLISHED,
    Origin,
    RunningGate,
    StartGate,
    StartOrigin,
    broken_off,
    dial,
    exactly,
    pass_time,
    until,
)
from labs.ports import held_port
from labs.records import Monotonic
from tokgate.gate import background
from tokgate.gate.event_loop import SILENCE
from tokgate.gate.sockets import Address
from tokgate.traffic.counters import CONNECT_ERROR, ConnectError

REFUSES, SILENT, SERVES, ALSO = "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"
BANNED = "203.0.113.7"


@dataclass
class Site:
    """A port at which one address refuses, one never answers, and two serve."""

    port: int
    serves: Origin
    also: Origin

    @property
    def reached(self) -> int:
        return self.serves.accepted + self.also.accepted


@pytest.fixture
def site(start_origin: StartOrigin) -> Iterator[Site]:
    """Each answers as its address does."""
    with held_port() as port, contextlib.ExitStack() as opened:
        silent = opened.enter_context(socket.create_server((SILENT, port), backlog=0))
        for _ in range(2):  # its queue is full: what comes now is not answered
            one = opened.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        yield Site(port, *(start_origin(host=host, port=port) for host in (SERVES, ALSO)))


type Come = Callable[[RunningGate, int], contextlib.AbstractContextManager[socket.socket]]


@contextlib.contextmanager
def redirected(gate: RunningGate, port: int) -> Iterator[socket.socket]:
    with dial(gate.redirected, ALLOWED) as client:
        yield client


@contextlib.contextmanager
def by_connect(gate: RunningGate, port: int) -> Iterator[socket.socket]:
    with dial(gate.explicit, f"CONNECT www.example.net:{port} HTTP/1.1\r\nHost: a\r\n\r\n".encode()) as client:
        client.sendall(ALLOWED)
        yield client


ROADS = pytest.mark.parametrize("come", [redirected, by_connect])


def answer(client: socket.socket, come: Come) -> bytes:
    if come is by_connect:
        assert exactly(client, len(ESTABLISHED)) == ESTABLISHED
    return exactly(client, len(ALLOWED))


def errors(gate: RunningGate) -> dict[str, int]:
    """Destinations that failed, by why."""
    counted = gate.gate.enforcer.counters.shared.read()
    return {key[1]: number for key, number in counted.items() if key[0] == CONNECT_ERROR}


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return lambda *addresses: monkeypatch.setattr(background, "addresses_of", lambda _: addresses)


@ROADS
@pytest.mark.parametrize("first", [REFUSES, SILENT])
def test_the_next_address(
    start_gate: StartGate, monotonic: Monotonic, site: Site, resolves: Callable[..., None], come: Come, first: str
) -> None:
    """It is reached at once where the first refuses, after a quarter of a second where it is silent; then first."""
    gate = start_gate((first, site.port))
    resolves(first, SERVES)
    with come(gate, site.port) as client:
        if first == SILENT:
            assert until(lambda: gate.gate.loop.dialled)
            assert site.reached == 0
            monotonic.now += SILENCE
        assert answer(client, come) == ALLOWED
        (served,) = set(gate.gate.loop.connections.values())
        assert (served.destination, served.rivals, served.deadline) == ((SERVES, site.port), (), 0.0)
        client.sendall(b"more")
        assert exactly(client, 4) == b"more"
    with come(gate, site.port) as client:
        assert answer(client, come) == ALLOWED, "no time passed: that address is known to be bad"
    assert (site.serves.accepted, site.also.accepted) == (2, 0)
    assert set(errors(gate)) == {ConnectError.REFUSED if first == REFUSES else ConnectError.TIMEOUT}
    assert gate.settled()


@ROADS
def test_no_address_answers(
    start_gate: StartGate, monotonic: Monotonic, site: Site, resolves: Callable[..., None], come: Come
) -> None:
    """All are tried, beside one another, and it ends after the time that one may take."""
    gate = start_gate((SILENT, site.port))
    resolves(SILENT, REFUSES, "127.0.0.2")
    with come(gate, site.port) as client:
        assert until(lambda: gate.gate.loop.dialled)
        (connection,) = set(gate.gate.loop.connections.values())
        assert connection.deadline - monotonic.now > gate.gate.context.limits.connecting / 2
        monotonic.now += SILENCE
        assert until(lambda: errors(gate).get(ConnectError.REFUSED) == 2)
        pass_time(gate.gate, monotonic, gate.gate.context.limits.connecting)
        if come is by_connect:
            assert client.recv(100).startswith(b"HTTP/1.1 502 ")
        else:
            assert broken_off(client)
    assert errors(gate)[ConnectError.TIMEOUT] == 1
    assert gate.settled()


@ROADS
def test_each_is_decided_first(
    start_gate: StartGate, monotonic: Monotonic, site: Site, resolves: Callable[..., None], come: Come
) -> None:
    """What is banned by its address, or this machine's own, is not tried for a name that passes."""
    gate = start_gate((REFUSES, site.port))
    dialled: list[str] = []
    connect = gate.gate.dialler.connect

    def noted(place: Address, *more: Any) -> Any:
        dialled.append(place[0])
        return connect(place, *more)

    gate.gate.dialler.connect = noted  # type: ignore[assignment, method-assign]
    resolves(REFUSES, BANNED, ALSO)
    with come(gate, site.port) as client:
        assert answer(client, come) == ALLOWED
    assert dialled == [REFUSES, ALSO]


def test_where_no_name_is(start_gate: StartGate, site: Site, resolves: Callable[..., None]) -> None:
    """A client that names nothing is reset, as by the destination itself, and asks for the next by itself."""
    gate = start_gate((REFUSES, site.port))
    resolves(SERVES)
    with dial(gate.redirected, b"SSH-2.0-x\r\n") as client:
        assert broken_off(client)
    assert site.reached == 0


def test_a_client_that_leaves(start_gate: StartGate, site: Site, resolves: Callable[..., None]) -> None:
    """When it ends, nothing is left of the addresses that were tried beside one another."""
    gate = start_gate((SILENT, site.port))
    resolves(SILENT, SILENT.replace("4", "40"), SERVES)
    with dial(gate.redirected, ALLOWED) as client:
        assert until(lambda: gate.gate.loop.dialled)
        gate.pause()
        (connection,) = set(gate.gate.loop.connections.values())
        first = connection.server
        connection.state.untried = (SILENT,)  # type: ignore[attr-defined]
        connection.state.silent(connection)
        assert (len(connection.rivals), connection.rivals[0][0]) == (1, first)
        gate.gate.loop.close(connection)
        gate.gate.loop.release_closed()
        assert (first.fileno(), connection.server.fileno(), gate.gate.loop.connections) == (-1, -1, {})
        assert client.recv(1) == b""


def test_how_addresses_are_ordered(start_gate: StartGate) -> None:
    """Families by turns, the one that the system prefers first; those that failed of late behind all."""
    dialler = start_gate().gate.dialler
    now = 10.0**9
    for _ in range(2):
        dialler.failed(ConnectError.REFUSED, now, ("::2", 443))
    found = dialler.in_order(("::1", "::2", "::3", "192.0.2.1", "192.0.2.2"), 443)
    assert found == ("::1", "192.0.2.1", "::3", "192.0.2.2", "::2")
    assert dialler.in_order(("::2", "192.0.2.1"), 80) == ("::2", "192.0.2.1")
    assert not dialler.is_bad(("::2", 443), now + 30)
    assert dialler.bad == {}
    for number in range(2000):
        dialler.failed(ConnectError.REFUSED, now, ("::2", number))
    assert len(dialler.bad) == 1024
    dialler.failed(ConnectError.NO_PORT, now, ("::9", 1))
    assert not dialler.is_bad(("::9", 1), now)
