"""Explicit clients: CONNECT and SOCKS 5 through the gate, and what goes to an opener instead."""

import contextlib
import socket

import pytest

from labs.builders import ban, network
from labs.gate_lab import (
    ALLOWED,
    ESTABLISHED,
    REFUSED,
    StartGate,
    StartOrigin,
    connect_request,
    dial,
    exactly,
    pass_time,
    policy,
    read_all,
    until,
)
from labs.records import Monotonic
from tokgate.gate.context import Parting
from tokgate.gate.explicit_clients.front import PATIENCE, pac_file
from tokgate.gate.sockets import connect, leads_to
from tokgate.traffic.refusal_texts import pac_answer


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_that_speaks_first(
    start_gate: StartGate, start_origin: StartOrigin, monotonic: Monotonic, host: str
) -> None:
    """A tunnel carries protocols in which the client waits for the server's greeting."""

    def greeter(client: socket.socket) -> None:
        client.sendall(b"220 mail.example.net\r\n")
        client.sendall(read_all(client))

    gate = start_gate()
    origin = start_origin(greeter)
    with dial(gate.explicit, connect_request(host, origin.address[1])) as client:
        assert exactly(client, len(ESTABLISHED)) == ESTABLISHED
        pass_time(gate.gate, monotonic, PATIENCE)
        assert exactly(client, 22) == b"220 mail.example.net\r\n"
        client.sendall(b"EHLO client.example.net\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"EHLO client.example.net\r\n"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("said", [b"", b"hel", ALLOWED[:20]])
def test_a_client_that_ends_at_once(start_gate: StartGate, start_origin: StartOrigin, host: str, said: bytes) -> None:
    """Whoever ends their side with little or nothing said still hears the server out, unless it could be a name."""

    def greeter(client: socket.socket) -> None:
        client.sendall(b"220 ")
        client.sendall(read_all(client))

    gate = start_gate()
    with dial(gate.explicit, connect_request(host, start_origin(greeter).address[1])) as client:
        exactly(client, len(ESTABLISHED))
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    assert answer.removeprefix(b"220 ") == (REFUSED if said == ALLOWED[:20] else said)
    assert gate.settled()


@pytest.mark.parametrize(
    ("destination", "place", "leads"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.9", "0.0.0.0", True),
        ("127.0.0.9", "127.0.0.1", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("::1", "::", True),
        ("::1", "0.0.0.0", False),
        ("::", "::1", True),
    ],
)
def test_what_leads_to_a_listener(destination: str, place: str, leads: bool) -> None:
    """By whichever address of this machine, and only at the listener's port."""
    sock = connect((destination, 9))
    with contextlib.closing(sock):
        assert leads_to(sock, (destination, 9), [(place, 9)]) is leads
        assert not leads_to(sock, (destination, 9), [(place, 10)])


@pytest.mark.parametrize("ended", [False, True])
def test_a_long_pac_file(start_gate: StartGate, ended: bool) -> None:
    """It comes whole to a client that takes little at a time, also to one that has ended its side already."""
    networks = tuple(f"10.{number // 256}.{number % 256}.0/24" for number in range(10_000))
    gate = start_gate(snapshot=policy(ban(networks=("loop",)), networks=(network("loop", "127.0.0.0/8", *networks),)))
    gate.listeners[1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # inherited by who is accepted
    request = b"GET /proxy.pac HTTP/1.1\r\nHost: gw1.example.org:8080\r\n\r\n"
    with dial(gate.explicit, request, room=4096) as client:
        if ended:
            client.shutdown(socket.SHUT_WR)
        served = gate.gate.loop.connections
        assert until(lambda: [c for c in list(served.values()) if isinstance(c.state, Parting) and c.state.unsent])
        received = read_all(client)
    assert received == pac_answer(pac_file(gate.holder.snapshot.policy, "gw1.example.org:8080"))
    assert ended or gate.settled()
