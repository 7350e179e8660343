"""The epoll loop of a gate: dispatches events, closes sockets between batches, and finds overdue connections.

Descriptors are closed only after a batch of events has been served. A number that was closed within a batch and given
out again by the next `accept` or `connect` would receive the old connection's remaining events.
"""

import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from select import EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final, assert_never

from tokgate.gate.busy_polling import BusyPolling
from tokgate.gate.connection import CLOSED, OPEN, Answering, AskingParent, Connection, Greeting, SimpleState
from tokgate.gate.sockets import DONT_WAIT, Listener, Socket
from tokgate.traffic.limits import Limits

CLIENT_WAITING: Final = EPOLLIN | EPOLLRDHUP | EPOLLET
CLIENT_WRITING: Final = CLIENT_WAITING | EPOLLOUT
SERVER: Final = CLIENT_WRITING

_THROWN_AWAY: Final = 65536
"""Octets read at once of what a refused client still sends."""
_THROWS: Final = 16
"""Reads after which the connection is closed: a client that sends a megabyte more does not read the refusal."""

BULK_LASTS: Final = 0.01
"""Seconds after a turn of bulk for which the loop sleeps at once: more of it comes by itself."""
LOOKS_AT: Final = 8
"""Entries of the table up to which it looks for more before it sleeps. With more connections their ends need the
processors: of 32 at once with real TLS 6 % fewer passed."""
SWEEP_SECONDS: Final = 0.05
SWEEP_SIZE: Final = 4096
"""Entries of the table looked at between two batches of events, at most this often: the table is seen whole within a
second up to 80,000 entries, later beyond, and never at once."""


class Poller(ABC):
    """The table of connections, and the dispatch of their events to the methods that subclasses implement."""

    def __init__(self) -> None:
        self.epoll: Final = select.epoll()
        self._polling: Final = BusyPolling(self.epoll.poll)
        self._carried = 0.0
        """When bulk had a turn, in monotonic seconds."""
        self.connections: Final[dict[int, Connection]] = {}
        """By descriptor: a connection stands here once or twice."""
        self.listeners: Final[dict[int, Listener]] = {}
        self.callbacks: Final[dict[int, Callable[[], None]]] = {}
        """Callbacks by descriptor, such as those of the resolver and of the supervisor's channel."""
        self.now: float = time.monotonic()
        self._dead: list[Socket] = []
        self._sweep: Iterator[Connection] = iter(())
        self._next_sweep = 0.0

    # -- implemented by subclasses

    bulk: Collection[object]
    """Directions that wait for a turn."""

    @abstractmethod
    def greet(self, connection: Connection, greeting: Greeting) -> None:
        """The client sent something, or ended, before it is known what it wants."""

    @abstractmethod
    def client_event(self, connection: Connection, event: int) -> None:
        """An event of an open connection's client."""

    @abstractmethod
    def client_writable(self, connection: Connection) -> None:
        """Called when the client's socket accepts more bytes."""

    @abstractmethod
    def server_event(self, connection: Connection, event: int) -> None:
        """An event of an open connection's destination."""

    @abstractmethod
    def connected(self, connection: Connection, event: int) -> None:
        """The destination answered, or refused."""

    @abstractmethod
    def answered(self, connection: Connection, answering: Answering, event: int) -> None:
        """The destination of a watched connection says something, or takes more."""

    @abstractmethod
    def goes_on(self, connection: Connection, answering: Answering, event: int) -> None:
        """The client of a watched connection says something before the destination does."""

    @abstractmethod
    def part(self, connection: Connection) -> None:
        """Send a refused client what is left of the last words to it, and end our side when all is sent."""

    @abstractmethod
    def accept(self, listener: Listener) -> None:
        """Called when a listener has connections to accept."""

    @abstractmethod
    def serve_bulk(self) -> None:
        """Serve the next connection in the queue of bulk transfers, for one turn."""

    @abstractmethod
    def forget(self, connection: Connection) -> None:
        """Give back what a connection holds for relaying."""

    @abstractmethod
    def closed(self, connection: Connection) -> None:
        """Called when a connection was closed, by either side."""

    @abstractmethod
    def overdue(self, connection: Connection) -> None:
        """The connection's deadline has passed."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Called for an unexpected exception outside of any connection."""

    def broken(self, connection: Connection, error: Exception) -> None:
        """Report an unexpected exception and close the connection, so that none of its data passes undecided."""
        self.failed(error)
        self.close(connection)

    limits: Limits

    # -- the loop

    def once(self, timeout: float) -> None:
        """Serve one batch of events, waiting at most `timeout` seconds for it, and at most one turn of bulk."""
        self.release_closed()  # what was closed between two batches, or the client would wait for its end
        bulk = self.bulk
        look = len(self.connections) <= LOOKS_AT and self.now - self._carried > BULK_LASTS
        ready = self._polling.wait(0 if bulk else timeout, look=look)
        self.now = time.monotonic()
        table = self.connections
        fresh: list[Listener] | None = None
        for descriptor, event in ready:
            connection = table.get(descriptor)
            if connection is not None:
                try:
                    if connection.state is not OPEN:
                        self._early(connection, descriptor, event)
                    elif descriptor == connection.client_fd:
                        self.client_event(connection, event)
                    else:
                        self.server_event(connection, event)
                except Exception as error:  # a bug costs this connection, not the others' events of the batch
                    self.broken(connection, error)
            elif descriptor in self.listeners:
                fresh = [*(fresh or ()), self.listeners[descriptor]]
            elif descriptor in self.callbacks:
                try:
                    self.callbacks[descriptor]()
                except Exception as error:
                    self.failed(error)
        if fresh is not None:
            for listener in fresh:
                self.accept(listener)
        if bulk:
            self._carried = self.now
            self.serve_bulk()
        if self.now >= self._next_sweep:
            self._look_for_overdue()
        self.release_closed()

    def _early(self, connection: Connection, descriptor: int, event: int) -> None:
        """An event of a connection that isn't open yet, or not any more."""
        match connection.state:
            case SimpleState.CONNECTING | AskingParent():
                if descriptor == connection.server_fd:
                    self.connected(connection, event)
                elif event & EPOLLERR:  # a reset; an orderly end is passed on when the destination is connected
                    self.close(connection)
            case Greeting() as greeting:
                if descriptor == connection.client_fd:
                    if event & EPOLLOUT:  # of what the destination said the client has taken some
                        self.client_writable(connection)
                    self.greet(connection, greeting)
                    if event & EPOLLRDHUP and isinstance(connection.state, Greeting):  # its end is behind what was read
                        self.watch_client(connection)
                else:  # in a tunnel the destination may speak first
                    self.server_event(connection, event)
            case Answering() as answering:
                if descriptor == connection.server_fd:
                    self.answered(connection, answering, event)
                else:
                    self.goes_on(connection, answering, event)
            case SimpleState.PARTING:
                if event & EPOLLOUT and connection.held:
                    self.part(connection)
                self._throw_away(connection)
            case SimpleState.WAITING:
                if event & EPOLLERR:
                    self.close(connection)
            case SimpleState.OPEN | SimpleState.CLOSED:
                pass
            case _:
                assert_never(connection.state)

    def _throw_away(self, connection: Connection) -> None:
        """Read on after a refusal, so that the kernel doesn't take it back with a reset, until the client ends."""
        try:
            for _ in range(_THROWS):
                if not connection.client.recv(_THROWN_AWAY, DONT_WAIT):
                    if connection.held:  # it still has to receive some of it
                        return
                    break
        except BlockingIOError:
            return
        except OSError:
            pass
        self.close(connection)

    def _look_for_overdue(self) -> None:
        """Look at the next part of the table."""
        self._next_sweep = self.now + SWEEP_SECONDS
        quiet_since, half_since = self.now - self.limits.idle, self.now - self.limits.half_closed
        for looked, connection in enumerate(self._sweep, 1):
            if connection.state is not CLOSED and (
                self.now >= connection.deadline
                if connection.deadline
                else connection.seen < (half_since if connection.up_done or connection.down_done else quiet_since)
            ):
                self.overdue(connection)
            if looked >= SWEEP_SIZE:
                return
        self._next_sweep = self.now + 1.0
        self._sweep = iter(list(self.connections.values()))

    # -- sockets

    def watch_client(self, connection: Connection) -> None:
        """Watch the client of a connection that is open now; it may be watched already."""
        descriptor = connection.client_fd
        events = CLIENT_WAITING if connection.down is None else CLIENT_WRITING
        if descriptor in self.connections:
            self.epoll.modify(descriptor, events)  # an edge anew: what came meanwhile is told again
        else:
            self.connections[descriptor] = connection
            self.epoll.register(descriptor, events)

    def watch_greeting(self, connection: Connection) -> None:
        """Watch a client that has not said enough yet."""
        if connection.client_fd not in self.connections:
            self.connections[connection.client_fd] = connection
            self.epoll.register(connection.client_fd, CLIENT_WAITING)

    def watch_client_writes(self, connection: Connection) -> None:
        """Also be told when the client takes more."""
        self.epoll.modify(connection.client_fd, CLIENT_WRITING)

    def watch_server(self, connection: Connection) -> None:
        """Watch a destination that is being connected to."""
        self.connections[connection.server_fd] = connection
        self.epoll.register(connection.server_fd, SERVER)

    def drop_server(self, connection: Connection) -> None:
        """Close the socket of a connection's destination; the connection continues without it."""
        if connection.server is not None:
            if self.connections.pop(connection.server_fd, None) is not None and connection.adopted:
                self.epoll.unregister(connection.server_fd)  # see `_unwatch`
            self._dead.append(connection.server)
            self.forget(connection)
            connection.server, connection.server_fd = None, -1

    def unwatch_client(self, connection: Connection) -> None:
        """Forget the client's socket without closing it: another process takes it over."""
        if self.connections.pop(connection.client_fd, None) is not None:
            self.epoll.unregister(connection.client_fd)

    def close(self, connection: Connection) -> None:
        """End a connection, at the end of this batch. May be called again."""
        if connection.state is CLOSED:
            return
        if connection.adopted:
            self._unwatch(connection)
        connection.state = CLOSED
        self.connections.pop(connection.client_fd, None)
        self._dead.append(connection.client)
        if connection.server is not None:
            self.connections.pop(connection.server_fd, None)
            self._dead.append(connection.server)
        self.forget(connection)
        self.closed(connection)

    def let_go(self, connection: Connection) -> None:
        """Close this process's descriptors of a connection that another process serves, and counts, from now on."""
        connection.silent = False
        self._unwatch(connection)
        self.close(connection)

    def _unwatch(self, connection: Connection) -> None:
        """Be told nothing more of a connection's sockets.

        Closing a descriptor does that only if no other process has the socket open (epoll(7)). Else its events would go
        on, under a number that may soon be another connection's.
        """
        for descriptor in (connection.client_fd, connection.server_fd):
            if self.connections.pop(descriptor, None) is not None:
                self.epoll.unregister(descriptor)

    def release_closed(self) -> None:
        """Close the sockets of ended connections; only between two batches of events."""
        while self._dead:
            self._dead.pop().close()
