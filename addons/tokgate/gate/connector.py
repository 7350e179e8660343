"""Carries a verdict out: connects a client to its destination, refuses it, or hands it over to an opener."""

import contextlib
import errno
import os
import sys
from abc import abstractmethod
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from socket import SHUT_WR, SO_ERROR, SOL_SOCKET
from typing import Final, Protocol

from whenever import Instant

from tokgate.blocklog.records.record import new_event_id
from tokgate.gate.acceptor import Acceptor
from tokgate.gate.connection import (
    CLOSED,
    CONNECTING,
    PARTING,
    WAITING,
    Answering,
    AskingParent,
    Connection,
    Greeting,
    SimpleState,
    State,
)
from tokgate.gate.egress.dialler import Dialler
from tokgate.gate.egress.parents import parent_for
from tokgate.gate.event_loop import CLIENT_WAITING, CLIENT_WRITING
from tokgate.gate.explicit_clients.front import ExplicitFront
from tokgate.gate.sockets import (
    DONT_WAIT,
    LAST_WORDS,
    Address,
    NoDestinationError,
    Socket,
    leads_to,
    original_destination,
)
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint
from tokgate.policy.settings import Upstream
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.counting.upstream import ConnectError, kind_of
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits
from tokgate.traffic.second_words import Watched
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.tls_alert import Alert

_REFUSED: Final = Alert.UNRECOGNIZED_NAME.record


class Opener(Protocol):
    """Takes over connections that have to be opened: opener processes, or mitmproxy in this process."""

    def adopt(self, client: Socket, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Take over a client's socket, with the bytes read so far; False if nobody can."""


class Connector(Acceptor):
    """An acceptor that carries verdicts out. Towards explicit clients it is their `explicit_clients.loop.Loop`."""

    def __init__(self, enforcer: Enforcer, opener: Opener, limits: Limits, mark: int | None) -> None:
        """`mark` is set on sockets towards destinations, for firewalls that tell the proxy's own traffic by it."""
        super().__init__(enforcer, limits)
        self.dialler: Final = Dialler(enforcer, mark)
        self._opener: Final = opener
        self._now: Final[Callable[[], Instant]] = enforcer.now
        parents = self.dialler.parents
        self.call_back(parents.descriptor, parents.deliver)
        self.explicit: Final = ExplicitFront(self, enforcer, greeting=limits.greeting, connecting=limits.connecting)

    @abstractmethod
    def read_greeting(self, connection: Connection, greeting: Greeting, data: bytes | bytearray) -> None:
        """Decide about what the client says, of which `data` came next."""

    @abstractmethod
    def wait_for_greeting(self, connection: Connection) -> None:
        """Read from the client, to learn what it wants, before anything is connected to."""

    # -- who connects, and where to

    def _destination(self, connection: Connection) -> Address | None:
        """Where the client wants to go; None, and the connection closed, if that can't be."""
        if connection.destination is None:
            try:
                host, port = original_destination(connection.client, connection.listener)
                connection.destination = sys.intern(host), port
            except NoDestinationError:
                self.enforcer.counters.loops += 1
                self.reset(connection, connection.client)
            except OSError:
                self.close(connection)
        return connection.destination

    def identity(self, connection: Connection) -> Identity | None:
        """Who the client is besides its address, as far as the policy has use for it."""
        return connection.person

    def identity_at(self, interface: int, peer: str) -> Identity | None:
        """As `identity`, for a client of QUIC, which has no connection: by the index of its interface."""
        return None

    def arrival(self, connection: Connection) -> Arrival:
        if connection.id is None:
            connection.id = new_event_id(self._now())
        destination = connection.destination
        return Arrival(
            client=Endpoint(connection.peer, connection.port),
            destination=None if destination is None else Endpoint(destination[0], destination[1]),
            connect=None if connection.tunnel is None else connection.tunnel.asked,
            connection=connection.id,
            identity=self.identity(connection),
        )

    # -- the client's side

    def call_back(self, descriptor: int, callback: Callable[[], None]) -> None:
        self.callbacks[descriptor] = callback
        self.epoll.register(descriptor, EPOLLIN)

    def call_no_more(self, descriptor: int) -> None:
        if self.callbacks.pop(descriptor, None) is not None:
            self.epoll.unregister(descriptor)

    def say(self, connection: Connection, words: bytes) -> bool:
        try:
            connection.client.send(words, DONT_WAIT)
        except OSError:
            self.close(connection)
            return False
        return True

    def suspend(self, connection: Connection, seconds: float) -> None:
        connection.state = WAITING
        connection.deadline = self.now + seconds
        self.watch_greeting(connection)

    def listen(self, connection: Connection, seconds: float = 0.0) -> Greeting:
        connection.state = greeting = Greeting()
        connection.deadline = self.now + seconds if seconds else 0.0
        self.watch_client(connection)
        return greeting

    def hand_over(self, connection: Connection, arrival: Arrival, *, tls: bool) -> bool:
        """Give the client to an opener; False, and nothing done, if there is none."""
        explicit = connection.destination is None
        if not self._opener.adopt(connection.client, arrival, bytes(connection.held), tls=tls, explicit=explicit):
            return False
        self.unwatch_client(connection)
        self.close(connection)  # our descriptor; the opener has its own
        return True

    def refuse(self, connection: Connection, last_words: bytes) -> None:
        """Send `last_words` and half-close; closing with unread data would send a reset, which may overtake them."""
        connection.held = last_words
        self.part(connection)
        if connection.state is CLOSED:
            return
        self.drop_server(connection)
        connection.state = PARTING
        self.watch_greeting(connection)
        self.epoll.modify(connection.client_fd, CLIENT_WRITING if connection.held else CLIENT_WAITING)  # an edge anew

    def part(self, connection: Connection) -> None:
        held, sent = connection.held, 0
        try:
            with contextlib.suppress(BlockingIOError):
                sent = connection.client.send(held, LAST_WORDS) if held else 0
            connection.held = held[sent:]
            if not connection.held:
                connection.client.shutdown(SHUT_WR)
        except OSError:
            self.close(connection)
        connection.deadline = self.now + self.limits.parting

    def _refuse_at_once(self, connection: Connection, hello: ClientHello) -> None:
        """Refuse and close at once if nothing follows the hello: without unread data closing sends no reset."""
        whole = len(connection.held) == len(hello.message) + 5
        if not whole or connection.server is not None or hello.early_data:
            self.refuse(connection, _REFUSED)
            return
        with contextlib.suppress(OSError):  # the client is gone
            connection.client.send(_REFUSED, LAST_WORDS)
        if connection.client_fd not in self.connections:  # never watched: no event of this batch is for its number
            connection.client.close()
        self.close(connection)

    # -- the destination's side

    def connect(self, connection: Connection, destination: Address) -> None:
        """Begin to connect to the destination; a tunnel may be connected already."""
        if connection.server is not None:
            self.open(connection)
            return
        if connection.tunnel is not None:
            self.explicit.try_next(connection, connection.tunnel)
            return
        try:
            self._dial(connection, destination)
        except NoDestinationError:
            self.enforcer.counters.loops += 1
            self.reset(connection, connection.client)
        except OSError:
            self.reset(connection, connection.client)

    def dial(self, connection: Connection, destination: Address) -> bool:
        """Begin to connect a tunnel, which is then served as a redirected connection; False if it would lead back here.

        Raises:
            OSError: no descriptor, no route, or another error that comes at once.

        """
        try:
            self._dial(connection, destination)
        except NoDestinationError:
            self.enforcer.counters.loops += 1
            return False
        connection.destination = destination
        return True

    def _dial(self, connection: Connection, destination: Address) -> None:
        """Begin to connect to a destination, or to the parent proxy that reaches it.

        Raises:
            NoDestinationError: that would lead back to this gate.
            OSError: no descriptor, no route, no parent, or another error that comes at once.

        """
        settings = self.enforcer.snapshot.settings
        upstream = self.parent(connection, destination) if settings.upstream else None
        state: State = CONNECTING
        place = destination
        if upstream is not None:
            handshake, place = self.dialler.parents.begin(upstream, destination)
            state = AskingParent(handshake)
        server = self.dialler.connect(place, settings.egress, self.now)
        if (connection.tunnel is not None or upstream is not None) and leads_to(server, place, self.listens_at):
            server.close()
            raise NoDestinationError(errno.ELOOP, os.strerror(errno.ELOOP))
        connection.server = server
        connection.server_fd = server.fileno()
        connection.owing = self.now
        connection.state = state
        connection.deadline = self.now + self.limits.connecting
        self.watch_server(connection)

    def parent(self, connection: Connection, destination: Address) -> Upstream | None:
        """The parent proxy that reaches a destination; its name is the one asked for, or the one in the hello."""
        tunnel, shown = connection.tunnel, connection.shown
        name = tunnel.host if tunnel is not None else shown if isinstance(shown, str) else None
        return parent_for(self.enforcer.snapshot, destination[0], name)

    def connected(self, connection: Connection, event: int) -> None:
        """The destination answered, or can't be reached."""
        if event & (EPOLLERR | EPOLLHUP) and (number := connection.server.getsockopt(SOL_SOCKET, SO_ERROR)):
            self._unreachable(connection, kind_of(number))
            return
        if isinstance(connection.state, AskingParent):
            try:
                if not self.dialler.parents.is_behind(connection.server, connection.state, event):
                    return
            except OSError as error:
                self._unreachable(connection, kind_of(error.errno))
                return
            event |= EPOLLIN  # the destination's first octets may follow the parent's answer
        self.dialler.connect_seconds.add(self.now - connection.owing)
        connection.owing = 0.0
        tunnel = connection.tunnel
        if connection.held and (tunnel is None or tunnel.established):  # what the client has said was judged already
            self.open(connection)
        elif tunnel is None:
            self.listen(connection)
        else:
            self.explicit.connected(connection, tunnel)
        if event & ~EPOLLOUT:  # it spoke first, or ended at once
            match connection.state:
                case Answering() as answering:
                    self.answered(connection, answering, event)
                case Greeting() | SimpleState.OPEN:
                    self.server_event(connection, event)

    def first_octet(self, connection: Connection) -> None:
        self.dialler.first_octet_seconds.add(self.now - connection.owing)
        connection.owing = 0.0

    def _unreachable(self, connection: Connection, kind: ConnectError) -> None:
        """The destination can't be reached: try a tunnel's next address, or reset a redirected client."""
        self.dialler.failed(kind, self.now)
        if connection.tunnel is None:
            self.reset(connection, connection.client)
            return
        self.drop_server(connection)
        self.explicit.try_next(connection, connection.tunnel)

    @staticmethod
    def _watch(connection: Connection, watched: Watched | None) -> None:
        """Pass no more on than what was decided about, until the destination has answered."""
        connection.watched = watched
        if watched is not None and watched.rest:
            connection.held = connection.held[: -len(watched.rest)]

    def overdue(self, connection: Connection) -> None:
        """A deadline has passed, or nothing has moved for too long."""
        tunnel = connection.tunnel
        match connection.state:
            case Greeting():
                waits = connection.server is None and connection.deadline
                if tunnel is not None and waits and self.explicit.lose_patience(connection, tunnel):
                    return
                self.enforcer.counters.timeouts += 1
                self.close(connection)
            case AskingParent() | SimpleState.CONNECTING:
                self._unreachable(connection, ConnectError.TIMEOUT)
            case SimpleState.WAITING if tunnel is not None:
                self.explicit.try_next(connection, tunnel)  # no address has come
            case SimpleState.OPEN if self.now - connection.seen < self.limits.half_closed and self.still_receives(
                connection
            ):
                pass  # looked at again with the next sweep
            case _:
                self.close(connection)

    def close_all(self) -> None:
        """Close everything, the resolver of tunnels included."""
        self.explicit.close()
        self.dialler.parents.close()
        super().close_all()
