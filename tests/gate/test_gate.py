"""The gate with redirected connections: what passes, what is refused, what is handed over."""

import socket

import pytest

from labs.gate_lab import (
    ALLOWED,
    StartGate,
    StartOrigin,
    dial,
    read_all,
    until,
)
from tokgate.gate.sockets import Entry, listen
from tokgate.traffic.limits import Limits


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


def test_an_ipv6_host_has_the_limit_of_its_subnet(start_gate: StartGate) -> None:
    """A host that takes a new IPv6 address for each connection would have a new limit each time."""
    gate = start_gate()
    listener = listen("::1", 0, Entry.EXPLICIT)
    gate.gate.acceptor.add_listener(listener)
    with dial(("::1", listener.port)):
        until(lambda: gate.gate.acceptor.clients == {"::/64": 1})
    gate.settled()
    assert gate.gate.acceptor.clients == {}
