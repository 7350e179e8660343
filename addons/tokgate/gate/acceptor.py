"""Accepts connections within the limits of a gate and of each client, and counts those that are open."""

import contextlib
import errno
import os
import resource
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from select import EPOLLEXCLUSIVE, EPOLLIN
from socket import SocketType
from typing import Final

from tokgate.gate.connection import Connection, Greeting
from tokgate.gate.first_exchange import FirstExchange
from tokgate.gate.sockets import STREAM, Address, Entry, Listener, acceptor, reset_on_close
from tokgate.policy.settings import LimitSettings
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import IPNetwork
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits, client_key

_RESERVED: Final = 512
"""Descriptors for pipes and what else a gate has open."""
ACCEPTS: Final = 32
"""Connections taken from a listener at a time."""


class Acceptor(FirstExchange):
    """A relay with listeners, whose connections are limited in all and by client."""

    def __init__(self, enforcer: Enforcer, limits: Limits) -> None:
        super().__init__()
        self.enforcer: Final = enforcer
        self.limits = limits
        self.others_have_room: Callable[[], bool] = lambda: False
        """Whether another gate accepts what this one leaves in the queue of the listeners."""
        self._paused = False
        self.clients: Final[dict[str, int]] = {}
        """Open connections by client, as limits know it."""
        self.listens_at: Final[set[Address]] = set()
        """Where clients come in: no tunnel may lead there. It stays when the listeners are closed."""
        self.open_connections = 0
        self._spare: int | None = _spare()

    def add_listener(self, listener: Listener) -> None:
        descriptor = listener.socket.fileno()
        self.listeners[descriptor] = listener
        self.listens_at.add(listener.socket.getsockname()[:2])
        # Level, so that what is left over is told again; exclusive, so that of several gates one is woken.
        self.epoll.register(descriptor, EPOLLIN | EPOLLEXCLUSIVE)

    @property
    def full(self) -> bool:
        """Whether it has as many connections as it may."""
        return self.open_connections >= self.limits.connections

    def limit(self, stated: LimitSettings) -> None:
        """Set the limits that the policy states, as far as descriptors allow: a connection takes two."""
        most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED) // 2
        number = max(1, min(stated.connections, most))
        self.limits = replace(self.limits, connections=number, per_client=stated.per_client)

    def look_for_room(self) -> None:
        """Accept if this gate has room, or if none has: excess connections are then reset, and not left waiting.

        To be called each second: the kernel wakes one gate for a new connection (EPOLLEXCLUSIVE), and wakes no other if
        that one is full and does not accept it.
        """
        if self._leaves_it():
            self._go_on()
        else:
            for listener in self.listeners.values():
                self.accept(listener)

    def _leaves_it(self) -> bool:
        """Whether new connections are left to other gates: this one is full, and stops accepting until it has room."""
        if not self._paused and self.full and self.others_have_room():
            self._paused = True
            for descriptor in self.listeners:
                self.epoll.unregister(descriptor)
        return self._paused

    def _go_on(self) -> None:
        """Accept again if this gate has room, or if no other has."""
        if not (self.full and self.others_have_room()):
            self._paused = False
            for descriptor in self.listeners:
                self.epoll.register(descriptor, EPOLLIN | EPOLLEXCLUSIVE)

    @property
    def _balanced(self) -> tuple[IPNetwork, ...]:
        return self.enforcer.snapshot.settings.load_balancers

    def _is_balancer(self, peer: str) -> bool:
        """Whether an address is that of a load balancer that the policy names."""
        address = parse_address(peer)
        return address is not None and any(address in each for each in self._balanced)

    def become(self, connection: Connection, source: Address) -> bool:
        """Count a connection as that of the client that a load balancer named; False, and closed, at its limit."""
        who = client_key(source[0])
        if self.clients.get(who, 0) >= self.limits.per_client:
            self.enforcer.counters.at_limit += 1
            self.reset(connection, connection.client)
            return False
        self._count_out(connection.peer)
        connection.peer, connection.port = source
        self.clients[who] = self.clients.get(who, 0) + 1
        return True

    def accept(self, listener: Listener) -> None:
        """Accept up to ACCEPTS connections, and read each at once: mostly its first bytes have arrived."""
        take = acceptor(listener.socket)
        clients, limits = self.clients, self.limits
        behind_balancers = listener.entry is Entry.EXPLICIT and bool(self._balanced)
        for _ in range(ACCEPTS):
            if self.open_connections >= limits.connections and self._leaves_it():
                return
            try:
                descriptor, address = take()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away(listener)
                elif error.errno in (errno.ECONNABORTED, errno.EINTR):
                    continue
                return
            client = SocketType(listener.family, STREAM, 0, descriptor)
            peer = address[0]
            who = client_key(peer)
            count = clients.get(who, 0)
            balanced = behind_balancers and self._is_balancer(peer)
            if (count >= limits.per_client and not balanced) or self.open_connections >= limits.connections:
                self.enforcer.counters.at_limit += 1
                reset_on_close(client)
                client.close()
                continue
            clients[who] = count + 1
            self.open_connections += 1
            greeting = Greeting(None, b"" if balanced else None)
            connection = Connection(client, descriptor, peer, address[1], listener, self.now, greeting)
            try:
                self.greet(connection, greeting)
            except Exception as error:
                self.broken(connection, error)

    def _turn_away(self, listener: Listener) -> None:
        """No descriptor is left: accept a connection with the spare one and close it, or epoll reports it for ever."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with contextlib.suppress(OSError):
            descriptor, _ = acceptor(listener.socket)()
            os.close(descriptor)
            self.enforcer.counters.at_limit += 1
        with contextlib.suppress(OSError):  # a thread was quicker: the next time then
            self._spare = _spare()

    def failed(self, error: Exception) -> None:
        self.enforcer.failed("gate", error)

    def adopt(self, connection: Connection) -> None:
        """Serve a connection that another gate has passed on."""
        connection.adopted = True
        self.open_connections += 1
        who = client_key(connection.peer)
        self.clients[who] = self.clients.get(who, 0) + 1
        self.resume(connection)

    @abstractmethod
    def closed_silent(self, connection: Connection) -> None:
        """Called when a connection was closed whose client never said anything."""

    def closed(self, connection: Connection) -> None:
        """Take a closed connection out of the count; accept again if it was at its limit."""
        if connection.silent:
            self.closed_silent(connection)
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
            if not self._paused:
                self.epoll.unregister(descriptor)
            listener.socket.close()
        self.listeners.clear()

    def close_all(self) -> None:
        """Close the listeners, all connections and what the loop holds."""
        self.stop_accepting()
        for connection in list(self.connections.values()):
            self.close(connection)
        self.release_closed()
        self.close_pipes()
        self.epoll.close()
        if self._spare is not None:
            os.close(self._spare)


def _spare() -> int:
    """A descriptor in reserve, which is closed when no other is left."""
    return os.open(os.devnull, os.O_RDONLY)
