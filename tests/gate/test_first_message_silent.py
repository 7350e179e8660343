"""What a gate counts and ends of redirected clients that wait for the server to speak first."""

import socket

import pytest

from labs.builders import ban, network
from labs.gate_lab import (
    DEADLINE,
    Origin,
    StartGate,
    StartOrigin,
    dial,
    exactly,
    policy,
    read_all,
    reset,
    until,
)
from labs.records import Monotonic
from tokgate.gate import handoff
from tokgate.gate.first_message import FirstMessage
from tokgate.gate.takeover import ConnectionTransfer
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.policy.settings import UnknownClients
from tokgate.traffic.counters import DecisionKey

BANNER = b"220 mail.example.net ESMTP\r\n"
BY_ADDRESS = DecisionKey("loop", Visibility.ADDRESS, Verdict.ALLOW)


@pytest.fixture(autouse=True)
def _soon(monotonic: Monotonic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells a gate of a client that says nothing."""
    monkeypatch.setattr("tokgate.gate.sockets.DEFER_SECONDS", 1)


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def banner_origin(start_origin: StartOrigin, heard: list[bytes]) -> Origin:
    """A server that speaks first, and then sends back what it hears."""

    def serve(client: socket.socket) -> None:
        client.sendall(BANNER)
        while data := client.recv(65536):
            heard.append(data)
            client.sendall(data)

    return start_origin(serve)


def test_one_that_moves_is_counted_once(start_gate: StartGate, banner_origin: Origin) -> None:
    """A connection that the next gate takes over has not ended: that gate counts it."""
    old, new = start_gate(banner_origin), start_gate()
    write, read = handoff.channel()
    with write, read, dial(old.redirected) as client:
        assert exactly(client, len(BANNER)) == BANNER
        new.transfer = ConnectionTransfer(new.gate, new.listeners, write, read)
        old.transfer = ConnectionTransfer(old.gate, old.listeners, write, read)
        old.retired = True
        assert until(lambda: old.gate.acceptor.open_connections == 0 and new.gate.acceptor.open_connections == 1)
        client.close()
        assert new.settled()
        new.pause()
    assert old.gate.enforcer.counters.decisions == {}
    assert new.gate.enforcer.counters.decisions == {BY_ADDRESS: 1}


def test_a_client_of_no_network_is_refused_in_silence(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """`unknown_clients: block` refuses also who waits for the server."""
    networks = (network("other", "192.0.2.0/24"),)
    settings = {"networks": networks, "unknown_clients": UnknownClients.BLOCK}
    gate = start_gate(origin := start_origin(), policy(ban(networks=("other",)), **settings))
    with dial(gate.redirected) as client:
        assert read_all(client) == b""
    assert gate.settled()
    assert origin.accepted == 0
    (record,) = gate.sink.records
    assert record["event"]["action"] == "connection-refused"


def test_a_late_request_is_judged(start_gate: StartGate, banner_origin: Origin, heard: list[bytes]) -> None:
    """So is HTTP: an opener reads the request, and the server nothing."""
    gate = start_gate(banner_origin)
    with dial(gate.redirected) as client:
        assert exactly(client, len(BANNER)) == BANNER
        client.sendall(b"GET / HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n")
        assert until(lambda: gate.opener.adopted)
    assert heard == []


def test_a_client_that_breaks_off(start_gate: StartGate, banner_origin: Origin) -> None:
    gate = start_gate(banner_origin)
    with dial(gate.redirected) as client:
        assert exactly(client, len(BANNER)) == BANNER
        reset(client)
    assert gate.settled()
    counters = gate.gate.enforcer.counters
    assert (counters.decisions, counters.unfinished) == ({BY_ADDRESS: 1}, 0)


def test_a_ban_that_begins_ends_it(start_gate: StartGate, banner_origin: Origin) -> None:
    """An open connection whose client has said nothing is judged again like the others, by its address."""
    gate = start_gate(banner_origin)
    with dial(gate.redirected) as client:
        assert exactly(client, len(BANNER)) == BANNER
        assert until(
            lambda: [c for c in list(gate.gate.loop.connections.values()) if isinstance(c.state, FirstMessage)]
        )
        networks = (network("other", "192.0.2.0/24"),)
        settings = {"networks": networks, "unknown_clients": UnknownClients.BLOCK}
        gate.holder.snapshot = policy(ban(networks=("other",)), **settings)
        client.settimeout(DEADLINE)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert gate.settled()
    assert until(lambda: gate.gate.enforcer.counters.cuts == 1)
