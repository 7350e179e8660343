"""Which connections a policy ends that begins while they last, and how they end."""

from typing import Any

import pytest

from labs.gate_lab import broken_off
from labs.gate_steps import POLICY, Steps
from labs.proxy_lab import NOW
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import CLOSED, Connection, Tunnel
from tokgate.gate.context import Parting
from tokgate.gate.gate import GateConnections
from tokgate.policy.membership import Identity

BANNED = ("203.0.113.7", 443)
TUNNEL, BANNED_TUNNEL = (Tunnel(host, 443, socks=False) for host in ("www.example.net", "clips.example.org"))


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"shown": "www.example.net"}, False),
        ({"shown": "clips.example.org"}, True),
        ({"shown": "clips.example.org", "state": "parting"}, False),
        ({"shown": "clips.example.org", "state": "closed"}, False),
        ({"shown": "clips.example.org", "destination": None}, False),
        ({"shown": "www.example.net", "destination": BANNED}, True),
        ({"shown": "clips.example.org", "peer": "198.51.100.1"}, False),
        ({"shown": "clips.example.org", "peer": "198.51.100.1", "person": Identity("ada")}, True),
        ({"shown": "clips.example.org", "state": "first message"}, False),
        ({"shown": "clips.example.org", "state": "first message", "server": object()}, True),
        ({"shown": "www.example.net", "tunnel": TUNNEL}, False),
        ({"shown": "www.example.net", "tunnel": BANNED_TUNNEL}, True),
        ({"shown": "clips.example.org", "tunnel": TUNNEL}, True),
        ({"tunnel": BANNED_TUNNEL, "state": "first message"}, True),
        ({"tunnel": TUNNEL, "state": "first message"}, False),
        ({}, False),
    ],
)
def test_which_connections_end(steps: Steps, fields: dict[str, Any], ends: bool) -> None:
    """Those that would be refused now: by their name, their tunnel's or their address; not what is undecided yet."""
    states = {"parting": Parting(steps.context, b""), "closed": CLOSED, "first message": steps.message}
    steps.connection.state = Connecting(steps.context, CLOSED)
    for name, value in fields.items():
        setattr(steps.connection, name, states[value] if name == "state" else value)
    cut = GateConnections(steps.context).judge(steps.connection, POLICY, NOW)
    assert (cut is not None) is ends
    assert cut is None or cut[0].blocks


def test_each_is_met_once(steps: Steps) -> None:
    """A connection stands in the table by both of its sockets; one that has ended meanwhile is not met."""
    table = steps.loop.connections
    for client_fd, server_fd in ((1, 2), (3, 4), (5, -1)):
        one = Connection(None, client_fd, "192.0.2.7", 40000, steps.connection.listener, 0.0, CLOSED)
        one.server_fd = server_fd
        table.update({client_fd: one} | ({server_fd: one} if server_fd > 0 else {}))
    del table[3]  # its client is given to somebody else
    met = GateConnections(steps.context).open_now()
    assert next(met).client_fd == 1
    del table[5]
    assert [one.client_fd for one in met] == [3]


@pytest.mark.parametrize("connected", [True, False])
def test_both_sides_are_broken_off(steps: Steps, connected: bool) -> None:
    """A plain end would look like a transfer that is whole."""
    if connected:
        steps.connects()
    GateConnections(steps.context).cut(steps.connection)
    assert broken_off(steps.client)
    assert not connected or broken_off(steps.server)
