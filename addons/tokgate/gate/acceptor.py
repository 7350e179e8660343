"""Accepts connections within the limits of a gate and of each client, and counts those that are open."""

import errno
import mmap
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from socket import SocketType
from typing import Final

from tokgate.gate.connection import Connection
from tokgate.gate.context import Context, Reading
from tokgate.gate.sockets import STREAM, Address, Entry, Listener, acceptor, reset_on_close, waiting
from tokgate.policy.settings import Settings
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import IPNetwork
from tokgate.traffic.limits import Limits, client_key
from tokgate.wire import proxy_protocol

_RESERVED: Final = 512
"""Descriptors for pipes and what else a gate has open."""
ACCEPTS: Final = 32
"""Connections taken from a listener at a time."""


def limits_of(limits: Limits, settings: Settings) -> Limits:
    """Limits with those that the policy states, as far as descriptors allow: a connection takes two."""
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED) // 2
    stated, connecting = settings.limits, float(settings.egress.connect_seconds)
    connections = max(1, min(stated.connections, most))
    return replace(limits, connections=connections, per_client=stated.per_client, connecting=connecting)


class Acceptor:
    """The listeners of a gate, whose connections are limited in all and by client."""

    def __init__(self, context: Context, first: Mapping[Entry, Reading]) -> None:
        """`first`: the state in which connections begin, by how they come."""
        self.context: Final = context
        self.first: Final = first
        self.others_accept: Callable[[], bool] = lambda: False
        """Whether another gate accepts what this one leaves in the queue of the listeners."""
        self.clients: Final[dict[str, int]] = {}
        """Open connections by client, as limits know it."""
        self.open_connections = 0
        self.listeners: Final[dict[int, Listener]] = {}
        self._paused = False

    def add_listener(self, listener: Listener) -> None:
        """Accept its connections from now on."""
        descriptor = listener.socket.fileno()
        self.listeners[descriptor] = listener
        self.context.listens_at.add(listener.socket.getsockname()[:2])
        self.context.loop.accept_from(descriptor, partial(self.accept, listener))

    @property
    def full(self) -> bool:
        """Whether it has as many connections as it may."""
        return self.open_connections >= self.context.limits.connections

    def try_again(self) -> None:
        """Accept if this gate may, or if no other does: excess connections are then reset, and not left waiting.

        To be called each second: the kernel wakes one gate for a new connection (EPOLLEXCLUSIVE), and wakes no other if
        that one is full and does not accept it.
        """
        if self._pauses():
            self._go_on()
        else:
            for listener in self.listeners.values():
                self.accept(listener)

    def _pauses(self) -> bool:
        """Whether new connections are left to other gates: this one stops accepting as long as it is full."""
        if not self._paused and self.full and self.others_accept():
            self._pause()
        return self._paused

    def _pause(self) -> None:
        self._paused = True
        for descriptor in self.listeners:
            self.context.loop.call_no_more(descriptor)

    def _go_on(self) -> None:
        """Accept again if this gate is not full any more, or if all others are."""
        if not (self.full and self.others_accept()):
            self._paused = False
            for descriptor, listener in self.listeners.items():
                self.context.loop.accept_from(descriptor, partial(self.accept, listener))

    def become(self, connection: Connection, source: Address) -> bool:
        """Count a connection as that of the client that a load balancer named; False, and closed, at its limit."""
        who = client_key(source[0])
        if self.clients.get(who, 0) >= self.context.limits.per_client:
            self.context.enforcer.counters.at_limit += 1
            self.context.relay.reset(connection, connection.client)
            return False
        self._count_out(connection.peer)
        connection.peer, connection.port = source
        self.clients[who] = self.clients.get(who, 0) + 1
        return True

    def accept(self, listener: Listener) -> None:
        """Accept what waits, up to ACCEPTS connections, then read each: mostly its first bytes have arrived."""
        take = acceptor(listener.socket)
        clients, loop, limits, first = self.clients, self.context.loop, self.context.limits, self.first[listener.entry]
        balancers = self.context.enforcer.snapshot.settings.load_balancers if listener.entry is Entry.EXPLICIT else ()
        accepted: list[Connection] = []
        for _ in range(min(ACCEPTS, waiting(listener.socket))):
            if self.open_connections >= limits.connections and self._pauses():
                break
            try:
                descriptor, address = take()
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                if error.errno in (errno.EMFILE, errno.ENFILE):  # else epoll tells of the client without end
                    self._pause()
                break
            client = SocketType(listener.family, STREAM, 0, descriptor)
            peer = address[0]
            who = client_key(peer)
            count = clients.get(who, 0)
            balanced = bool(balancers) and _is_in(balancers, peer)
            if (count >= limits.per_client and not balanced) or self.open_connections >= limits.connections:
                self.context.enforcer.counters.at_limit += 1
                reset_on_close(client)
                client.close()
                continue
            clients[who] = count + 1
            self.open_connections += 1
            state = ProxyHeader(self) if balanced else first
            accepted.append(Connection(client, descriptor, peer, address[1], listener, loop.now, state))
        loop.read_together(accepted)

    def adopt(self, connection: Connection) -> None:
        """Serve a connection that another gate has passed on."""
        connection.adopted = True
        self.open_connections += 1
        who = client_key(connection.peer)
        self.clients[who] = self.clients.get(who, 0) + 1
        self.context.relay.resume(connection)

    def closed(self, connection: Connection) -> None:
        """Take a closed connection out of the count; accept again if it was at its limit."""
        self.open_connections -= 1
        if self._paused:
            self._go_on()
        self._count_out(connection.peer)

    def _count_out(self, peer: str) -> None:
        who = client_key(peer)
        self.clients[who] -= 1
        if not self.clients[who]:
            del self.clients[who]

    def stop_accepting(self) -> None:
        """Close the listeners; what is open goes on."""
        for descriptor, listener in self.listeners.items():
            self.context.loop.call_no_more(descriptor)
            listener.socket.close()
        self.listeners.clear()


def _is_in(prefixes: Sequence[IPNetwork], peer: str) -> bool:
    address = parse_address(peer)
    return address is not None and any(address in each for each in prefixes)


class ProxyHeader(Reading):
    """A load balancer has to say whose connection it is, before anything of its client."""

    __slots__ = ("_acceptor", "_data")

    def __init__(self, acceptor: Acceptor) -> None:
        super().__init__(acceptor.context)
        self._acceptor: Final = acceptor
        self._data = b""

    def read(self, connection: Connection, data: bytes) -> None:
        """Learn from a load balancer who the client is, and go on with what follows its header."""
        data = self._data + data
        try:
            header = proxy_protocol.read(data)
        except ValueError:
            self.context.enforcer.counters.unfinished += 1
            self.context.relay.reset(connection, connection.client)
            return
        if header is None:
            self._data = data
            self.wait(connection)
        elif header.source is None or self._acceptor.become(connection, header.source):
            request = connection.state = self._acceptor.first[connection.listener.entry]
            if len(data) > header.length:
                request.read(connection, data[header.length :])
            else:
                request.wait(connection)


class AcceptingGates:
    """Which gates of a generation are not full, in memory that all of them share.

    One octet a gate, made before the gates are forked. Each writes its own; the supervisor, those of dead ones.
    """

    def __init__(self, gates: int) -> None:
        self._memory: Final = mmap.mmap(-1, gates)

    def tell(self, slot: int, accepts: bool) -> None:
        """Note whether a gate accepts connections."""
        self._memory[slot] = accepts

    def others(self, slot: int) -> bool:
        """Whether another gate than `slot` accepts connections."""
        return any(accepts for number, accepts in enumerate(self._memory[:]) if number != slot)
