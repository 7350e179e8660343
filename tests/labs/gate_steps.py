"""A gate that nobody runs: its steps are taken one by one, and both sides of its one connection are looked at."""

import socket
from collections.abc import Iterator

import pytest

from labs.builders import ban, network, service, snapshot
from labs.gate_lab import Adopter
from labs.proxy_lab import NOW
from labs.records import Holder, Sink, enforcer_of
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import Connection, State
from tokgate.gate.explicit_clients.front import TunnelMessage
from tokgate.gate.first_message import FirstMessage
from tokgate.gate.gate import Gate
from tokgate.gate.sockets import Entry, Listener
from tokgate.policy.networks import Network
from tokgate.traffic.counters import CONNECT_ERROR, ConnectError
from tokgate.traffic.limits import Limits

POLICY = snapshot(
    ban(networks=("all", "people")),
    services=(service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",)),),
    networks=(network("all", "192.0.2.0/24"), Network("people", (), users=("ada",))),
)


def pair(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection; the second is the gate's."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        outer = socket.create_connection(server.getsockname()[:2], timeout=20)
        inner, _ = server.accept()
    inner.setblocking(False)
    return outer, inner


class Steps:
    """A gate that nobody runs, with one connection: what its client and its destination have in hand."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        """`host`: where the client has come to."""
        self.holder, self.sink = Holder(POLICY), Sink()
        enforcer = enforcer_of(self.holder, self.sink, now=lambda: NOW)
        self.opener, self.counters = Adopter(), enforcer.counters
        self.gate = Gate(enforcer, self.opener, Limits(greeting=10.0, parting=3.0, connecting=20.0))
        self.loop, self.context = self.gate.loop, self.gate.context
        self.loop.now = 1000.0
        self.message = FirstMessage(self.context)
        self.tunnel_message = TunnelMessage(self.gate.explicit)
        (self.client, inside), (self.server, outside) = pair(host), pair()
        listener = Listener(None, Entry.REDIRECT, 8080, socket.AF_INET)
        self.connection = Connection(inside, inside.fileno(), "192.0.2.7", 40000, listener, 0.0, self.message)
        self.connection.destination = ("198.51.100.7", 443)
        self.outside = outside
        self.gate.acceptor.open_connections, self.gate.acceptor.clients["192.0.2.7"] = 1, 1

    def connects(self, then: State | None = None) -> None:
        """A destination is being connected to."""
        self.connection.server, self.connection.server_fd = self.outside, self.outside.fileno()
        self.connection.state = Connecting(self.context, then or self.gate.relay)
        self.loop.watch_server(self.connection)

    def hears(self, said: bytes = b"") -> None:
        """The client says something, or has; what it said is read once."""
        if said:
            self.client.sendall(said)
        self.connection.state.on_client(self.connection, 0)

    def answers(self, event: int) -> None:
        """The destination has an event."""
        self.connection.state.on_server(self.connection, event)

    @property
    def open_connections(self) -> int:
        """How many the gate has."""
        return self.gate.acceptor.open_connections

    @property
    def is_open(self) -> bool:
        """Whether the connection is relayed."""
        return self.connection.state is self.gate.relay

    def close(self) -> None:
        """Close everything."""
        self.gate.close()
        adopted = [each[0] for each in self.opener.adopted]
        for sock in (self.client, self.server, self.outside, self.connection.client, *adopted):
            sock.close()

    def heard(self, side: str = "client") -> bytes:
        """All that a side receives up to an end, which has to come."""
        self.loop.release_closed()
        data = b""
        while piece := getattr(self, side).recv(4096):
            data += piece
        return data

    def errors(self, kind: ConnectError) -> int:
        """How many destinations failed so."""
        return self.counters.shared.read().get((CONNECT_ERROR, kind), 0)


@pytest.fixture
def steps() -> Iterator[Steps]:
    """A connection that has said nothing."""
    made = Steps()
    yield made
    made.close()
