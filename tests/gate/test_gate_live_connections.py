"""Which connections a policy ends that begins while they last, and how they end."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from labs.builders import ban, network, service, snapshot
from labs.gate_lab import Adopter, Clock, Origin, RunningGate, broken_off, dial, exactly, policy, until
from labs.hello_builder import hello_for
from labs.proxy_lab import NOW
from labs.records import enforcer_of
from labs.relay_ends import NotingLoop
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import CLOSED, Connection, Tunnel
from tokgate.gate.context import Context, Parting
from tokgate.gate.first_message import FirstMessage
from tokgate.gate.gate import GateConnections
from tokgate.gate.identification import Identification
from tokgate.gate.sockets import Entry, Listener
from tokgate.policy.networks import Network
from tokgate.traffic.limits import Limits

POLICY = snapshot(
    ban(networks=("all",)),
    services=(service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",)),),
    networks=(network("all", "192.0.2.0/24"),),
)
OTHER, BANNED = ("198.51.100.7", 443), ("203.0.113.7", 443)


class Told(NotingLoop):
    """A loop that also notes when sockets are closed."""

    def release_closed(self) -> None:
        self.done.append("release")


class Judge:
    """A gate's connections, without the gate."""

    def __init__(self) -> None:
        self.loop = Told()
        self.done = self.loop.done
        enforcer = enforcer_of(POLICY, now=lambda: NOW)
        parts: Any = (Limits(), self.loop, None, None, Identification(enforcer), set())
        self.context = Context(enforcer, Adopter(), *parts)
        self.connections = GateConnections(self.context)
        self.loop.epoll.close()


CONTEXT = Judge().context
"""What states refer to; nothing is done with it."""
CONNECTING, PARTING = Connecting(CONTEXT, CLOSED), Parting(CONTEXT, b"")


def connection(**fields: Any) -> Connection:
    """A connection that is open, to a place that nothing is said about."""
    ours, theirs = socket.socketpair()
    with theirs:
        listener = Listener(None, Entry.REDIRECT, 8080, 0)
        made = Connection(ours, ours.fileno(), "192.0.2.7", 40000, listener, 0.0, CONNECTING, destination=OTHER)
    ours.close()
    return replace(made, **fields)


TUNNEL = Tunnel("www.example.net", 443, socks=False)
BANNED_TUNNEL = Tunnel("clips.example.org", 443, socks=False)


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        ({"shown": "www.example.net"}, False),
        ({"shown": "clips.example.org"}, True),
        ({"shown": "clips.example.org", "state": PARTING}, False),
        ({"shown": "clips.example.org", "state": CLOSED}, False),
        ({"shown": "clips.example.org", "destination": None}, False),
        ({"shown": "www.example.net", "destination": BANNED}, True),
        ({"shown": "clips.example.org", "peer": "198.51.100.1"}, False),
        ({"shown": "clips.example.org", "state": FirstMessage(CONTEXT)}, False),
        ({"shown": "clips.example.org", "state": FirstMessage(CONTEXT), "server": object()}, True),
        ({"shown": "www.example.net", "tunnel": TUNNEL}, False),
        ({"shown": "www.example.net", "tunnel": BANNED_TUNNEL}, True),
        ({"shown": "clips.example.org", "tunnel": TUNNEL}, True),
        ({"tunnel": BANNED_TUNNEL, "state": FirstMessage(CONTEXT)}, True),
        ({"tunnel": TUNNEL, "state": FirstMessage(CONTEXT)}, False),
        ({}, False),
    ],
)
def test_which_connections_end(fields: dict[str, Any], ends: bool) -> None:
    """Those that would be refused now: by their name, their tunnel's or their address; not what is undecided yet."""
    cut = Judge().connections.judge(connection(**fields), POLICY, NOW)
    assert (cut is not None) is ends
    assert cut is None or cut[0].blocks


def test_each_is_met_once() -> None:
    """A connection stands in the table by both of its sockets; one that has ended meanwhile is not met."""
    judge = Judge()
    for client_fd, server_fd in ((1, 2), (3, 4), (5, -1)):
        one = connection(client_fd=client_fd, server_fd=server_fd)
        judge.loop.connections.update({client_fd: one} | ({server_fd: one} if server_fd > 0 else {}))
    del judge.loop.connections[3]  # its client is given to somebody else
    met = judge.connections.open_now()
    assert next(met).client_fd == 1
    del judge.loop.connections[5]
    assert [one.client_fd for one in met] == [3]


@pytest.mark.parametrize("connected", [True, False])
def test_both_sides_are_broken_off(connected: bool) -> None:
    """A plain end would look like a transfer that is whole."""
    judge = Judge()
    with socket.create_server(("127.0.0.1", 0)) as server:
        pairs = [(socket.create_connection(server.getsockname()), server.accept()[0]) for _ in range(2)]
    (client, ours), (origin, theirs) = pairs
    judge.connections.cut(connection(client=ours, server=theirs if connected else None))
    ours.close()
    theirs.close()
    assert (broken_off(client), broken_off(origin)) == (True, connected)
    assert judge.done == ["close", "release"]
    client.close()
    origin.close()


# -- live connections of clients that are told apart by their link, when a ban of theirs begins


def test_a_ban_by_interface_cuts_what_came_by_it(
    start_gate: Callable[..., RunningGate], start_origin: Callable[..., Origin]
) -> None:
    """A policy that begins to ban everyone behind an interface ends their connections, though no address is named."""
    before, after = (
        policy(
            ban(networks=("guests",)),
            networks=(network("loop", "127.0.0.0/8"), Network("guests", (), interfaces=(interface,))),
        )
        for interface in ("guests0", "lo")
    )
    gate = start_gate(start_origin(), before, now=Clock("2023-06-01T00:00:00Z"))
    said = hello_for("www.clips.example.org")
    with dial(gate.redirected, said) as client:
        assert exactly(client, len(said)) == said
        gate.holder.snapshot = after
        assert broken_off(client)
    (record,) = until(lambda: gate.sink.records)
    assert (record["event"]["action"], record["tokgate"]["network"]) == ("connection-cut", "guests")
