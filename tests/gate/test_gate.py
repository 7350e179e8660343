"""The gate with redirected connections: what passes, what is refused, what is handed over."""

import socket
import struct
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.builders import ban
from labs.gate_lab import (
    ALLOWED,
    BANNED,
    DEADLINE,
    NOBODY,
    StartGate,
    StartOrigin,
    dial,
    echo,
    exactly,
    pass_time,
    policy,
    read_all,
    until,
)
from labs.records import Monotonic
from tokgate.gate.sockets import Entry, NoDestinationError, listen, original_destination
from tokgate.policy.decision import Response
from tokgate.traffic.limits import Limits


def page_policy() -> object:
    return policy(ban(networks=("loop",), response=Response.PAGE))


def test_an_unreachable_origin(start_gate: StartGate) -> None:
    """A destination that refuses looks to the client like one that refuses."""
    gate = start_gate(NOBODY)
    with dial(gate.redirected, ALLOWED) as client, pytest.raises(ConnectionResetError):
        read_all(client)
    assert gate.settled()


def test_pages_are_handed_over(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """What must be opened goes to the opener with every byte read, and the gate keeps nothing of it."""
    gate = start_gate(origin := start_origin(), page_policy())
    with dial(gate.redirected, BANNED[:200], BANNED[200:]) as client:
        (adopted,) = until(lambda: gate.opener.adopted)
        sock, arrival, received, tls, explicit = adopted
        assert (received, tls, explicit) == (BANNED, True, False)
        assert (arrival.destination.ip, arrival.destination.port) == origin.address  # type: ignore[union-attr]
        assert gate.settled()
        with sock:
            sock.sendall(b"page")
        assert read_all(client) == b"page"
    assert gate.sink.records == []  # the opener writes it


def test_original_destination_of_an_untranslated_connection() -> None:
    """Without a translation there is no destination, over IPv4 and IPv6."""
    for host in ("127.0.0.1", "::1"):
        for entry in (Entry.REDIRECT, Entry.TPROXY):
            try:
                listener = listen(host, 0, entry)
            except PermissionError:
                pytest.skip("TPROXY needs CAP_NET_ADMIN")
            with socket.create_connection((host, listener.port), DEADLINE) as client:
                client.sendall(b"x")
                descriptor = until(partial(_accepted, listener.socket))
                accepted = socket.SocketType(listener.family, socket.SOCK_STREAM, 0, descriptor)
                with pytest.raises(NoDestinationError):
                    original_destination(accepted, listener)
                accepted.close()
            listener.socket.close()


def _accepted(sock: Any) -> int:
    try:
        return int(sock._accept()[0])
    except BlockingIOError:
        return 0


def test_a_bug_costs_one_connection(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expected is recorded and closes its connection; the next one is served."""
    gate = start_gate(start_origin())
    broken = monkeypatch.context()
    with broken as patch, dial(gate.redirected) as client:
        patch.setattr("tokgate.traffic.client_messages.FirstBytesReader.feed", lambda reader, data: 1 / 0)
        client.sendall(b"\x00")
        assert read_all(client) == b""
    assert [r["event"]["action"] for r in gate.sink.records] == ["internal-error"]
    with dial(gate.redirected, ALLOWED) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == ALLOWED
    assert gate.settled()


def test_idle_connections_are_closed(start_gate: StartGate, start_origin: StartOrigin, monotonic: Monotonic) -> None:
    """Nothing in either direction for longer than the bound; a connection with traffic stays."""
    gate = start_gate(start_origin())
    with dial(gate.redirected, ALLOWED) as idle, dial(gate.redirected, ALLOWED) as busy:
        assert exactly(idle, len(ALLOWED)) == exactly(busy, len(ALLOWED)) == ALLOWED
        for _ in range(2):
            busy.sendall(b"x")
            assert busy.recv(10) == b"x"
            pass_time(gate.gate, monotonic, gate.gate.context.limits.idle / 2)
        assert idle.recv(1) == b""
        busy.sendall(b"x")
        assert busy.recv(10) == b"x"


def test_caps(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A client over its cap is reset; once another connection of its ends, it may come again."""
    gate = start_gate(start_origin(), limits=Limits(per_client=2))
    with dial(gate.redirected, ALLOWED) as first, dial(gate.redirected, ALLOWED) as second:
        assert first.recv(10)
        assert second.recv(10)
        with pytest.raises(ConnectionError), dial(gate.redirected, ALLOWED) as third:  # reset before it says anything
            read_all(third)
    assert gate.settled()
    assert gate.gate.acceptor.clients == {}
    with dial(gate.redirected, ALLOWED) as again:
        assert again.recv(10)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_storms_leave_nothing_behind(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Thousands of connections that end in every way leave no descriptor, no pipe and no count."""
    gate = start_gate(start_origin(echo))
    descriptors = open_descriptors()

    def storm(seed: int) -> None:
        for number in range(150):
            kind = (seed + number) % 6
            said = (ALLOWED, BANNED, ALLOWED[:60], ALLOWED + bytes(200_000), b"junk", ALLOWED)[kind]
            try:
                with dial(gate.redirected, said) as client:
                    if kind == 0:
                        client.recv(65536)
                    elif kind == 5:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    elif kind == 3:
                        client.shutdown(socket.SHUT_WR)
                        assert len(read_all(client)) == len(said)
            except ConnectionError:
                continue

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gate.settled()
    gate.gate.relay.close_pipes()
    assert until(lambda: open_descriptors() <= descriptors)
    assert gate.gate.acceptor.clients == {}


def test_an_ipv6_host_has_the_limit_of_its_subnet(start_gate: StartGate) -> None:
    """A host that takes a new IPv6 address for each connection would have a new limit each time."""
    gate = start_gate()
    listener = listen("::1", 0, Entry.EXPLICIT)
    gate.gate.acceptor.add_listener(listener)
    with dial(("::1", listener.port)):
        until(lambda: gate.gate.acceptor.clients == {"::/64": 1})
    gate.settled()
    assert gate.gate.acceptor.clients == {}
