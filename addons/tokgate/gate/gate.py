"""The gate: accepts, reads the first bytes once, decides, and connects, refuses or hands over.

What decides is `admission`, the same as behind mitmproxy. Here is only what must be quick: the one short way that an
allowed name takes without building anything, and everything that carries a decision out.
"""

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from select import EPOLLEXCLUSIVE, EPOLLIN
from socket import SHUT_WR, SO_ERROR, SOL_SOCKET, SocketType
from typing import Final, Protocol

from whenever import Instant

from tokgate.blocklog.observation import Endpoint, Stage
from tokgate.blocklog.stamp import new_event_id
from tokgate.gate.admission import (
    Admission,
    Arrival,
    Passage,
    admit_bytes,
    admit_tls,
    admit_unreadable,
    needs_certificate,
    observe,
)
from tokgate.gate.connection import CONNECTING, GREETING, OPEN, PARTING, WAITING, Connection
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.explicit import ExplicitFront
from tokgate.gate.relay import DONT_WAIT, LAST_WORDS, Relay
from tokgate.gate.sockets import (
    Address,
    Entry,
    Listener,
    NoDestinationError,
    Socket,
    acceptor,
    connect,
    original_destination,
    reset_on_close,
)
from tokgate.policy.decide import decide
from tokgate.policy.decision import Reason, Response, Signal, Verdict
from tokgate.policy.identity import Identity
from tokgate.policy.services import NO_MATCH
from tokgate.wire.alert import Alert
from tokgate.wire.client_hello import ClientHello, ClientHelloError, HelloBuffer, looks_like_tls, read_client_hello
from tokgate.wire.ech import is_ech_outer
from tokgate.wire.http_start import looks_like_http

ACCEPTS: Final = 32
"""Connections taken from a listener at a time."""
_HANDSHAKE: Final = 22
"""The content type with which a TLS connection begins (RFC 8446 §5.1)."""
_HANDSHAKE_OCTET: Final = bytes((_HANDSHAKE,))
_REFUSED: Final = Alert.UNRECOGNIZED_NAME.record


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gate bounds. Times in seconds."""

    connections: int = 50_000
    per_client: int = 4_096
    greeting: float = 10.0
    """For a client to say what it wants."""
    connecting: float = 10.0
    """For a destination to answer."""
    idle: float = 3_600.0
    """Without a byte in either direction, before a connection is given up."""
    parting: float = 2.0
    """For a client to hear a refusal out."""


class Opener(Protocol):
    """Whoever opens what must be opened."""

    def adopt(self, client: Socket, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Take over a client's socket, with the bytes read so far; False if nobody can."""
        ...


class Gate(Relay):
    """One gate: an epoll loop over its listeners and all their connections."""

    def __init__(
        self, enforcer: Enforcer, opener: Opener, limits: Limits | None = None, mark: int | None = None
    ) -> None:
        """`mark` is set on sockets towards destinations, for firewalls that tell the proxy's own traffic by it."""
        super().__init__()
        self.enforcer: Final = enforcer
        self.limits: Final = limits or Limits()
        self.idle_seconds = self.limits.idle
        self._cells: Final = enforcer.counters.cells
        self._passed: Final = enforcer.counters.plain
        self.clients: Final[dict[str, int]] = {}
        """Open connections by client."""
        self.listens_at: Final[set[Address]] = set()
        """Where clients come in: no tunnel may lead there. It stays when the listeners are closed."""
        self.open_connections = 0
        self.refused_at_limit = 0
        self.explicit: Final = ExplicitFront(self)
        self._opener: Final = opener
        self.mark: Final = mark
        self._spare: int | None = _spare()
        self._now: Final[Callable[[], Instant]] = enforcer.now

    # -- accepting

    def add_listener(self, listener: Listener) -> None:
        """Accept from a listener from now on."""
        descriptor = listener.socket.fileno()
        self.listeners[descriptor] = listener
        self.listens_at.add(listener.socket.getsockname()[:2])
        # Level, so that what is left over is told again; exclusive, so that of several gates one is woken.
        self.epoll.register(descriptor, EPOLLIN | EPOLLEXCLUSIVE)

    def accept(self, listener: Listener) -> None:
        """Take what has come, up to a bound, and look at each at once: mostly its first bytes are there."""
        take = acceptor(listener.socket)
        clients, limits = self.clients, self.limits
        for _ in range(ACCEPTS):
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
            client = SocketType(listener.family, 1, 0, descriptor)
            peer = address[0]
            count = clients.get(peer, 0)
            if count >= limits.per_client or self.open_connections >= limits.connections:
                self.refused_at_limit += 1
                reset_on_close(client)
                client.close()
                continue
            clients[peer] = count + 1
            self.open_connections += 1
            connection = Connection(client, descriptor, peer, address[1], listener, self.now)
            try:
                self.greet(connection)
            except Exception as error:
                self.broken(connection, error)

    def failed(self, error: Exception) -> None:
        """Record what was raised."""
        self.enforcer.failed("gate", error)

    def broken(self, connection: Connection, error: Exception) -> None:
        """Record what was raised, and give the connection up: nothing of it passes undecided."""
        self.failed(error)
        self.close(connection)

    def _turn_away(self, listener: Listener) -> None:
        """Out of descriptors: give up the spare one to take a client and let it go, instead of spinning."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with contextlib.suppress(OSError):
            descriptor, _ = acceptor(listener.socket)()
            os.close(descriptor)
            self.refused_at_limit += 1
        with contextlib.suppress(OSError):  # a thread was quicker: the next time then
            self._spare = _spare()

    # -- the first bytes

    def greet(self, connection: Connection) -> None:
        """Read what the client says first, and decide as soon as it says enough."""
        try:
            received: int = connection.client.recv_into(self._buffer, 0, DONT_WAIT)
        except BlockingIOError:
            self.wait_for_greeting(connection)
            return
        except OSError:
            self.reset(connection, connection.server)
            return
        if not received:
            self._said_all(connection)
            return
        data = bytes(self._view[:received])
        connection.held = connection.held + data if connection.held else data
        if connection.listener.entry is Entry.EXPLICIT and connection.tunnel is None:
            self.explicit.greet(connection)
        else:
            self.read_greeting(connection, data)

    def read_greeting(self, connection: Connection, data: bytes) -> None:
        """Look for a ClientHello in what is held, of which `data` is new."""
        if connection.held[0] != _HANDSHAKE:
            self._no_hello(connection)
            return
        buffer: HelloBuffer | None = connection.greeting
        try:
            hello = read_client_hello(connection.held) if buffer is None else buffer.feed(data)
        except ClientHelloError:
            self._no_hello(connection)
            return
        if hello is not None:
            self._decide(connection, hello)
            return
        if buffer is None:
            connection.greeting = buffer = HelloBuffer()
            buffer.feed(connection.held)
        self.wait_for_greeting(connection)

    def _said_all(self, connection: Connection) -> None:
        """The client has ended its side. In a tunnel it may have nothing to say, and much to hear."""
        if connection.tunnel is None:
            self.close(connection)
            return
        if connection.server is None and not connection.held:
            self.explicit.try_next(connection)  # it is asked again when the destination is there
            return
        arrival = self.arrival(connection)
        admit = admit_unreadable if connection.held[:1] == _HANDSHAKE_OCTET else admit_bytes
        self._carry_out(connection, arrival, admit(self.enforcer, arrival), None)

    def wait_for_greeting(self, connection: Connection) -> None:
        """The client has to say more. In a tunnel it need not begin: there are protocols in which the server does."""
        if not connection.deadline and (connection.tunnel is None or connection.held):
            connection.deadline = self.now + self.limits.greeting
        self.watch_greeting(connection)

    def _decide(self, connection: Connection, hello: ClientHello) -> None:
        destination = self._destination(connection)
        if destination is None:
            return
        name = hello.name
        if name is not None:
            try:
                if self._takes_short_way(connection, name, destination, hello):
                    return
            except Exception as error:  # the long way asks again, and answers for it
                self.enforcer.failed("gate", error)
        arrival = self.arrival(connection)
        if needs_certificate(self.enforcer, arrival, hello) and self.hand_over(connection, arrival, tls=True):
            return  # to who has the time to ask the destination; without anyone, its address decides
        self._carry_out(connection, arrival, admit_tls(self.enforcer, arrival, hello), hello)

    def _takes_short_way(self, connection: Connection, name: str, destination: Address, hello: ClientHello) -> bool:
        """Do at once what `admit_tls` would come to where nothing need be built: a plain pass, a repeated refusal."""
        snapshot, at, peer = self.enforcer.snapshot, self._now(), connection.peer
        decision = decide(snapshot, peer, name, at)
        if decision.verdict is Verdict.ALLOW:
            if decision.response is not None or decision.exemption is not None or is_ech_outer(hello):
                return False
            if snapshot.services.match_unusual(destination[0]) is not NO_MATCH:
                return False  # an address of somebody's own may be under a ban whatever the name says
            tunnel = connection.tunnel
            if tunnel is not None:
                asked = decide(snapshot, peer, tunnel.host, at, Signal.HTTP_HOST)
                if asked.verdict is not Verdict.ALLOW:
                    return False
            self._cells[self._passed[decision.network]] += 1
            near = self.enforcer.near
            if near is not None and name not in near.ordinary and decision.reason is Reason.NO_SERVICE:
                near.meet(name)
            connection.shown = name
            self.connect(connection, destination)
            return True
        if decision.response is not Response.REFUSE or not self.enforcer.repeats(peer, name, decision, Stage.TLS, at):
            return False
        self._refuse_at_once(connection, hello)
        return True

    def _no_hello(self, connection: Connection) -> None:
        """What came can never become a ClientHello."""
        if self._destination(connection) is None:
            return
        if looks_like_tls(connection.held) is False:
            self._plain(connection)
            return
        arrival = self.arrival(connection)
        self._carry_out(connection, arrival, admit_unreadable(self.enforcer, arrival), None)

    def _plain(self, connection: Connection) -> None:
        """Bytes that aren't TLS: HTTP is read request by request, elsewhere; the rest is decided by address."""
        http = looks_like_http(connection.held)
        if http is None:
            self.wait_for_greeting(connection)
            return
        arrival = self.arrival(connection)
        if not http:
            self._carry_out(connection, arrival, admit_bytes(self.enforcer, arrival), None)
        elif not self.hand_over(connection, arrival, tls=False):
            self.close(connection)

    def _destination(self, connection: Connection) -> Address | None:
        """Where the client wants to go; None, and the connection closed, if that can't be."""
        if connection.destination is None:
            try:
                connection.destination = original_destination(connection.client, connection.listener)
            except NoDestinationError:
                self.enforcer.counters.loops += 1
                self.reset(connection, connection.client)
            except OSError:
                self.close(connection)
        return connection.destination

    def identity(self, connection: Connection) -> Identity | None:
        """Who the client is besides its address: nothing, where the policy has no use for it."""
        return None

    def arrival(self, connection: Connection) -> Arrival:
        """The connection in the words of admission."""
        if connection.id is None:
            connection.id = new_event_id(self._now())
        destination = connection.destination
        return Arrival(
            client=Endpoint(connection.peer, connection.port),
            destination=None if destination is None else Endpoint(destination[0], destination[1]),
            connect=None if connection.tunnel is None else connection.tunnel.asked,
            connection=connection.id,
        )

    # -- carrying out

    def _carry_out(
        self, connection: Connection, arrival: Arrival, admission: Admission, hello: ClientHello | None
    ) -> None:
        if admission.passage is Passage.OPEN:
            if self.hand_over(connection, arrival, tls=True):
                return  # the opener decides again, and writes the record
            admission = admission.unopened
        self.enforcer.enter(admission.ruling, admission.visibility, lambda: observe(arrival, admission, hello))
        if admission.passage is Passage.PASS:
            destination = connection.destination
            if destination is not None:
                connection.shown = admission.shown
                self.connect(connection, destination)
            return
        if hello is not None:
            self._refuse_at_once(connection, hello)
        else:
            self.refuse(connection, _REFUSED if connection.held[:1] == _HANDSHAKE_OCTET else b"")

    def hand_over(self, connection: Connection, arrival: Arrival, *, tls: bool) -> bool:
        """Give the client to an opener; False, and nothing done, if there is none."""
        explicit = connection.destination is None
        if not self._opener.adopt(connection.client, arrival, connection.held, tls=tls, explicit=explicit):
            return False
        self.unwatch_client(connection)
        self.close(connection)  # our descriptor; the opener has its own
        return True

    def connect(self, connection: Connection, destination: Address) -> None:
        """Begin to connect to the destination; a tunnel may be connected already."""
        if connection.server is not None:
            self.open(connection)
            return
        if connection.tunnel is not None:
            self.explicit.try_next(connection)
            return
        try:
            server, _ = connect(destination, self.mark)
        except OSError:
            self.reset(connection, connection.client)
            return
        self.await_server(connection, server)

    def await_server(self, connection: Connection, server: Socket) -> None:
        """Wait for the destination to answer."""
        connection.server = server
        connection.server_fd = server.fileno()
        connection.state = CONNECTING
        connection.deadline = self.now + self.limits.connecting
        self.watch_server(connection)

    def connected(self, connection: Connection, event: int) -> None:
        """The destination answered, or can't be reached."""
        if event & 24 and connection.server.getsockopt(SOL_SOCKET, SO_ERROR):  # EPOLLERR, EPOLLHUP
            self._unreachable(connection)
            return
        if connection.tunnel is not None:
            self.explicit.connected(connection)
        else:
            self.open(connection)
        if event & ~4 and connection.state in (OPEN, GREETING):  # it spoke first, or ended at once
            self.server_event(connection, event)

    def _unreachable(self, connection: Connection) -> None:
        """Show the client of a destination that refuses the same: a reset, or the answer that its protocol has."""
        if connection.tunnel is None:
            self.reset(connection, connection.client)
            return
        self.drop_server(connection)
        self.explicit.try_next(connection)

    def refuse(self, connection: Connection, last_words: bytes) -> None:
        """Say no and half-close; listen on for a moment, so that the kernel sends no reset before that was read."""
        try:
            if last_words:
                connection.client.send(last_words, LAST_WORDS)
            connection.client.shutdown(SHUT_WR)
        except OSError:
            self.close(connection)
            return
        self.drop_server(connection)
        connection.state = PARTING
        connection.deadline = self.now + self.limits.parting
        self.watch_greeting(connection)
        self.epoll.modify(connection.client_fd, 1 | 0x2000 | 1 << 31)  # an edge anew

    def _refuse_at_once(self, connection: Connection, hello: ClientHello) -> None:
        """Refuse and close, where the hello is all there is: nothing unread could turn the end into a reset."""
        whole = len(connection.held) == len(hello.message) + 5
        if not whole or connection.server is not None or hello.early_data:
            self.refuse(connection, _REFUSED)
            return
        with contextlib.suppress(OSError):  # the client is gone
            connection.client.send(_REFUSED, LAST_WORDS)
        self.close(connection)

    def overdue(self, connection: Connection) -> None:
        """A deadline has passed, or nothing has moved for too long."""
        if connection.state is GREETING and connection.tunnel is not None and connection.deadline:
            self.explicit.lose_patience(connection)
            return
        if connection.state is GREETING:
            self.enforcer.counters.timeouts += 1
        if connection.state is CONNECTING:
            self._unreachable(connection)
        elif connection.state is WAITING and connection.tunnel is not None:
            self.explicit.try_next(connection)  # no address has come
        else:
            self.close(connection)

    # -- ends

    def adopt(self, connection: Connection) -> None:
        """Go on with a connection that another gate has begun to serve."""
        self.open_connections += 1
        self.clients[connection.peer] = self.clients.get(connection.peer, 0) + 1
        self.resume(connection)

    def closed(self, connection: Connection) -> None:
        """Count a connection out."""
        self.open_connections -= 1
        left = self.clients.get(connection.peer, 1) - 1
        if left > 0:
            self.clients[connection.peer] = left
        else:
            self.clients.pop(connection.peer, None)

    def stop_accepting(self) -> None:
        """Close the listeners; what is open goes on."""
        for descriptor, listener in self.listeners.items():
            self.epoll.unregister(descriptor)
            listener.socket.close()
        self.listeners.clear()

    def close_all(self) -> None:
        """Close everything, at once."""
        self.stop_accepting()
        for connection in list(self.connections.values()):
            self.close(connection)
        self.bury()
        self.close_pipes()
        self.explicit.close()
        self.epoll.close()
        if self._spare is not None:
            os.close(self._spare)


def _spare() -> int:
    """A descriptor to be given up when there are no others."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
