"""Which connections a policy ends that begins while they last, and how they end."""

import socket
from dataclasses import replace
from typing import Any

import pytest

from labs.builders import ban, network, service, snapshot
from labs.gate_lab import Sink, broken_off
from labs.proxy_lab import NOW
from labs.records import Holder
from tokgate.blocklog.records.record import Observer
from tokgate.gate.connection import CLOSED, CONNECTING, OPEN, PARTING, Connection, Greeting, Tunnel
from tokgate.gate.live_connections import GateConnections
from tokgate.gate.sockets import Entry, Listener
from tokgate.policy.observation import Endpoint
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.enforcer import Enforcer

POLICY = snapshot(
    ban(networks=("all",)),
    services=(service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",)),),
    networks=(network("all", "192.0.2.0/24"),),
)
OTHER, BANNED = ("198.51.100.7", 443), ("203.0.113.7", 443)


class Gate:
    """What is needed of a gate."""

    def __init__(self) -> None:
        self.enforcer = Enforcer(Holder(POLICY), Sink(), Observer(hostname="gw", version="0"), now=lambda: NOW)
        self.connections: dict[int, Connection] = {}
        self.done: list[str] = []

    def identity(self, _: Connection) -> None:
        """Nobody is known."""

    def arrival(self, one: Connection) -> Arrival:
        """As a gate has it."""
        assert one.destination is not None
        to = Endpoint(*one.destination)
        asked = one.tunnel and one.tunnel.asked
        return Arrival(client=Endpoint(one.peer, one.port), destination=to, connect=asked or None, connection="id")

    def close(self, _: Connection) -> None:
        """Note it."""
        self.done.append("close")

    def release_closed(self) -> None:
        """Note it."""
        self.done.append("release")


def connection(**fields: Any) -> Connection:
    """A connection that is open, to a place that nothing is said about."""
    ours, theirs = socket.socketpair()
    with theirs:
        listener = Listener(None, Entry.REDIRECT, 8080, 0)
        made = Connection(ours, ours.fileno(), "192.0.2.7", 40000, listener, 0.0, OPEN, destination=OTHER)
    ours.close()
    return replace(made, **fields)


TUNNEL = Tunnel("www.example.net", 443, socks=False)
BANNED_TUNNEL = Tunnel("clips.example.org", 443, socks=False)


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"shown": "www.example.net"}, False),
        ({"shown": "clips.example.org"}, True),
        ({"shown": "clips.example.org", "state": CONNECTING}, True),
        ({"shown": "clips.example.org", "state": PARTING}, False),
        ({"shown": "clips.example.org", "state": CLOSED}, False),
        ({"shown": "clips.example.org", "destination": None}, False),
        ({"shown": "www.example.net", "destination": BANNED}, True),
        ({"shown": "clips.example.org", "peer": "198.51.100.1"}, False),
        ({"shown": "clips.example.org", "state": Greeting()}, False),
        ({"shown": "clips.example.org", "state": Greeting(), "server": object()}, True),
        ({"shown": "www.example.net", "tunnel": TUNNEL}, False),
        ({"shown": "www.example.net", "tunnel": BANNED_TUNNEL}, True),
        ({"shown": "clips.example.org", "tunnel": TUNNEL}, True),
        ({"tunnel": BANNED_TUNNEL, "state": Greeting()}, True),
        ({"tunnel": TUNNEL, "state": Greeting()}, False),
        ({}, False),
    ],
)
def test_which_connections_end(fields: dict[str, Any], ends: bool) -> None:
    """Those that would be refused now: by their name, their tunnel's or their address; not what is undecided yet."""
    cut = GateConnections(Gate()).judge(connection(**fields), POLICY, NOW)  # type: ignore[arg-type]
    assert (cut is not None) is ends
    assert cut is None or cut[0].blocks


def test_each_is_met_once() -> None:
    """A connection stands in the table by both of its sockets; one that has ended meanwhile is not met."""
    gate = Gate()
    for client_fd, server_fd in ((1, 2), (3, 4), (5, -1)):
        one = connection(client_fd=client_fd, server_fd=server_fd)
        gate.connections |= {client_fd: one} | ({server_fd: one} if server_fd > 0 else {})
    del gate.connections[3]  # its client is given to somebody else
    met = GateConnections(gate).open_now()  # type: ignore[arg-type]
    assert next(met).client_fd == 1
    del gate.connections[5]
    assert [one.client_fd for one in met] == [3]


@pytest.mark.parametrize("connected", [True, False])
def test_both_sides_are_broken_off(connected: bool) -> None:
    """A plain end would look like a transfer that is whole."""
    gate = Gate()
    with socket.create_server(("127.0.0.1", 0)) as server:
        pairs = [(socket.create_connection(server.getsockname()), server.accept()[0]) for _ in range(2)]
    (client, ours), (origin, theirs) = pairs
    GateConnections(gate).cut(connection(client=ours, server=theirs if connected else None))  # type: ignore[arg-type]
    ours.close()
    theirs.close()
    assert (broken_off(client), broken_off(origin)) == (True, connected)
    assert gate.done == ["close", "release"]
    client.close()
    origin.close()
