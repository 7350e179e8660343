"""The epoll loop of a gate: dispatches events, closes sockets between batches, and finds overdue connections.

Descriptors are closed only after a batch of events has been served. A number that was closed within a batch and given
out again by the next `accept` or `connect` would receive the old connection's remaining events.
"""

import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from os import sched_yield
from select import EPOLLET, EPOLLEXCLUSIVE, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final

from tokgate.gate.connection import CLOSED, Attempt, Connection, Direction
from tokgate.gate.sockets import Address, Socket
from tokgate.traffic.limits import Limits

CLIENT_WAITING: Final = EPOLLIN | EPOLLRDHUP | EPOLLET
CLIENT_WRITING: Final = CLIENT_WAITING | EPOLLOUT
SERVER: Final = CLIENT_WRITING

EVENTS: Final = 512
"""Events taken at once."""
BULK_LASTS: Final = 0.01
"""Seconds after a turn of bulk for which the loop sleeps at once: more of it comes by itself."""
LOOKS_AT: Final = 8
"""Entries of the table up to which it looks for more before it sleeps. With more connections their ends need the
processors: of 32 at once with real TLS 6 % fewer passed."""
SILENCE: Final = 0.25
"""Seconds after which another address is tried beside one that has not answered (RFC 8305 §8)."""
SWEEP_SECONDS: Final = 0.05
SWEEP_SIZE: Final = 4096
"""Entries of the table looked at between two batches of events, at most this often: the table is seen whole within a
second up to 80,000 entries, later beyond, and never at once."""

type Callback = Callable[[], None]
Dial = tuple[Callable[[Connection, Address], None], Connection, Address]
"""What begins to connect a connection to its destination."""


class EventLoop:
    """The table of connections, and the dispatch of their events to the states that they are in."""

    def __init__(
        self, limits: Limits, *, failed: Callable[[Exception], None], closed: Callable[[Connection], None]
    ) -> None:
        """`failed` is told of unexpected exceptions, `closed` of each connection that has ended, by either side."""
        self.epoll: Final = select.epoll()
        self.connections: Final[dict[int, Connection]] = {}
        """By descriptor: a connection stands here once or twice."""
        self.bulk: Final[deque[Direction]] = deque()
        """Directions that wait for a turn; each batch of events ends with one turn."""
        self.now: float = time.monotonic()
        self._limits: Final = limits
        self._failed: Final = failed
        self._closed: Final = closed
        self._polling: Final = BusyPolling(self.epoll.poll)
        self._came = 0  # connections that were read together in the last batch
        self._carried = 0.0
        """When bulk had a turn, in monotonic seconds."""
        self._callbacks: Final[dict[int, Callback]] = {}
        self._listeners: Final[dict[int, Callback]] = {}
        self._dead: list[Socket] = []
        self.dials: list[Dial] | None = None
        """Of connections that are read together, until all are; None: each is connected at once."""
        self.dialled: Final[dict[Connection, float]] = {}
        """When connections are told that their destinations have not answered; the first of them first."""
        self._sweep: Iterator[Connection] = iter(())
        self._next_sweep = 0.0
        self._due = 0.0
        """When the next sweep is due, or the first of `dialled`, which may have been answered meanwhile."""

    def once(self, timeout: float) -> None:
        """Serve one batch of events, waiting at most `timeout` seconds for it, and at most one turn of bulk."""
        self.release_closed()  # what was closed between two batches, or the client would wait for its end
        bulk = self.bulk
        few = len(self.connections) <= LOOKS_AT and self._came <= FEW
        look = few and self.now - self._carried > BULK_LASTS
        self._came = 0
        if (left := self._due - self.now) < timeout:
            timeout = left if left > 0 else 0
        ready = self._polling.wait(0 if bulk else timeout, look=look)
        self.now = time.monotonic()
        table = self.connections
        fresh: list[Callback] | None = None
        for descriptor, event in ready:
            connection = table.get(descriptor)
            if connection is not None:
                try:
                    if descriptor == connection.client_fd:
                        connection.state.on_client(connection, event)
                    else:
                        connection.state.on_server(connection, event)
                except Exception as error:  # a bug costs this connection, not the others' events of the batch
                    self.broken(connection, error)
            elif descriptor in self._listeners:
                fresh = [*(fresh or ()), self._listeners[descriptor]]
            elif descriptor in self._callbacks:
                self._call(self._callbacks[descriptor])
        if fresh is not None:
            for accept in fresh:
                self._call(accept)
        if bulk:
            self._carried = self.now
            direction = bulk.popleft()
            direction.serve(direction)
        if self.now >= self._due:
            self._tell_silence()
            if self.now >= self._next_sweep:
                self._look_for_overdue()
            self._due = min(self._next_sweep, next(iter(self.dialled.values()), self._next_sweep))
        self.release_closed()

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as error:
            self._failed(error)

    def _tell_silence(self) -> None:
        for connection, _ in list(takewhile(lambda item: item[1] <= self.now, self.dialled.items())):
            del self.dialled[connection]
            try:
                connection.state.silent(connection)
            except Exception as error:
                self.broken(connection, error)

    def _look_for_overdue(self) -> None:
        """Look at the next part of the table."""
        self._next_sweep = self.now + SWEEP_SECONDS
        quiet_since, half_since = self.now - self._limits.idle, self.now - self._limits.half_closed
        for looked, connection in enumerate(self._sweep, 1):
            if connection.state is not CLOSED and (
                self.now >= connection.deadline
                if connection.deadline
                else connection.seen < (half_since if connection.up_done or connection.down_done else quiet_since)
            ):
                connection.state.overdue(connection)
            if looked >= SWEEP_SIZE:
                return
        self._next_sweep = self.now + 1.0
        self._sweep = iter(list(self.connections.values()))

    # -- other descriptors

    def call_back(self, descriptor: int, callback: Callback, *, exclusive: bool = False) -> None:
        """Call whenever a descriptor is readable. `exclusive`: of several gates that watch it one is woken."""
        self._callbacks[descriptor] = callback
        self.epoll.register(descriptor, EPOLLIN | (EPOLLEXCLUSIVE if exclusive else 0))

    def call_no_more(self, descriptor: int) -> None:
        """Watch a descriptor or a listener no more, if it is watched."""
        if (self._callbacks.pop(descriptor, None) or self._listeners.pop(descriptor, None)) is not None:
            self.epoll.unregister(descriptor)

    def accept_from(self, descriptor: int, accept: Callback) -> None:
        """Call when a listener has connections, behind the events of the batch: it may get a number just closed."""
        self._listeners[descriptor] = accept
        # Level, so that what is left over is told again; exclusive, so that of several gates one is woken.
        self.epoll.register(descriptor, EPOLLIN | EPOLLEXCLUSIVE)

    # -- sockets of connections

    def watch_client(self, connection: Connection) -> None:
        """Watch a client; if it is watched already, what came meanwhile is told again."""
        descriptor = connection.client_fd
        events = CLIENT_WAITING if connection.down is None else CLIENT_WRITING
        if descriptor in self.connections:
            self.epoll.modify(descriptor, events)
        else:
            self.connections[descriptor] = connection
            self.epoll.register(descriptor, events)

    def keep_watching_client(self, connection: Connection) -> None:
        """Watch a client that is not watched yet."""
        if connection.client_fd not in self.connections:
            self.connections[connection.client_fd] = connection
            self.epoll.register(connection.client_fd, CLIENT_WAITING)

    def watch_client_writes(self, connection: Connection, wanted: bool = True) -> None:
        """Also be told when the client takes more, or no longer; what came meanwhile is told again."""
        self.epoll.modify(connection.client_fd, CLIENT_WRITING if wanted else CLIENT_WAITING)

    def watch_server(self, connection: Connection) -> None:
        """Watch a destination that is being connected to."""
        self.connections[connection.server_fd] = connection
        self.epoll.register(connection.server_fd, SERVER)

    def notice_silence(self, connection: Connection) -> None:
        """Tell the connection's state after SILENCE seconds, unless its destination has answered by then."""
        self.dialled.pop(connection, None)
        self.dialled[connection] = at = self.now + SILENCE
        self._due = min(self._due, at)

    def choose(self, connection: Connection, server: Attempt, rivals: Iterable[Attempt]) -> None:
        """Take one of the sockets that are dialled for the destination's, beside the others."""
        connection.server, connection.destination = server
        connection.server_fd, connection.rivals = connection.server.fileno(), tuple(rivals)

    def drop_rivals(self, connection: Connection) -> None:
        """Close the sockets of all other addresses."""
        for rival, _ in connection.rivals:
            self.drop(rival)
        connection.rivals = ()

    def drop(self, server: Socket) -> None:
        """Close a socket of a destination that is no connection's."""
        self.connections.pop(server.fileno(), None)
        self._dead.append(server)

    def drop_server(self, connection: Connection) -> None:
        """Close the socket of a connection's destination; the connection continues without it."""
        if connection.server is not None:
            if self.connections.pop(connection.server_fd, None) is not None and connection.adopted:
                self.epoll.unregister(connection.server_fd)  # see `unwatch`
            self._dead.append(connection.server)
            connection.server, connection.server_fd = None, -1

    def unwatch(self, connection: Connection) -> None:
        """Be told nothing more of a connection's sockets.

        Closing a descriptor does that only if no other process has the socket open (epoll(7)). Else its events would go
        on, under a number that may soon be another connection's.
        """
        for descriptor in (connection.client_fd, connection.server_fd):
            if self.connections.pop(descriptor, None) is not None:
                self.epoll.unregister(descriptor)

    def close(self, connection: Connection) -> None:
        """End a connection, at the end of this batch. May be called again."""
        if connection.state is CLOSED:
            return
        if connection.adopted:
            self.unwatch(connection)
        connection.state = CLOSED
        self.connections.pop(connection.client_fd, None)
        self._dead.append(connection.client)
        if connection.rivals:
            self.drop_rivals(connection)
        if connection.server is not None:
            self.connections.pop(connection.server_fd, None)
            self._dead.append(connection.server)
        self._closed(connection)

    def read_together(self, connections: Sequence[Connection]) -> None:
        """Read new connections, then connect those that pass.

        One kind of work after the other finds its code, and the kernel's, in the processor's caches.
        """
        self.dials = dials = list[Dial]()
        self._came = len(connections)
        for connection in connections:
            try:
                connection.state.on_client(connection, 0)
            except Exception as error:
                self.broken(connection, error)
        self.dials = None
        for begin, connection, destination in dials:
            try:
                if connection.state is not CLOSED:
                    begin(connection, destination)
            except Exception as error:
                self.broken(connection, error)

    def broken(self, connection: Connection, error: Exception) -> None:
        """Report an unexpected exception and close the connection, so that none of its data passes undecided."""
        self._failed(error)
        self.close(connection)

    def release_closed(self) -> None:
        """Close the sockets of ended connections; only between two batches of events."""
        while self._dead:
            self._dead.pop().close()


# -- busy polling

LONGEST: Final = 50e-6
"""Seconds of looking before a sleep."""
CONTENDED: Final = 20e-6
"""If a look took longer than this, in seconds, another process ran meanwhile."""
SHORT: Final = 200e-6
"""A sleep that was no longer than this, in seconds, might have been avoided."""
FEW: Final = 2
"""With more events at a time a gate has enough to do, and sleeping lets more of them come together."""
CREDIT: Final = 8.0
_IN_VAIN: Final = 0.5
"""What looking in vain costs. What was found brings 1, so that a third of the tries has to succeed."""
_SLEPT: Final = 1 / 32
"""What a short sleep brings."""

Events = list[tuple[int, int]]


class BusyPolling:
    """Waits for events of an epoll object; after some events it looks for more for microseconds before it sleeps.

    On a virtual machine it takes 20 µs and more until a processor that has become idle runs a process again. Looking
    does not keep the processor from others: it yields to them, and ends when one has run. Where it does not pay,
    because the next event mostly comes later, it sleeps at once and tries again now and then.
    """

    def __init__(self, poll: Callable[[float, int], Events], clock: Callable[[], float] = time.perf_counter) -> None:
        """`poll` is as `select.epoll.poll`, `clock` in seconds."""
        self._poll: Final = poll
        self._clock: Final = clock
        self._credit = CREDIT
        self._latest: Events = []

    def wait(self, timeout: float, *, look: bool = True) -> Events:
        """The events that there are, at the latest after `timeout` seconds; without `look` it sleeps at once."""
        if timeout <= 0 or not look or len(self._latest) > FEW:
            ready = self._poll(timeout, EVENTS)
        elif self._credit < 1:
            ready = self._sleep(timeout)
        else:
            ready = self._look() or self._poll(timeout, EVENTS)
        self._latest = ready
        return ready

    def _sleep(self, timeout: float) -> Events:
        began = self._clock()
        ready = self._poll(timeout, EVENTS)
        if ready and self._clock() - began <= SHORT:
            self._credit += _SLEPT
        return ready

    def _look(self) -> Events:
        poll, clock = self._poll, self._clock
        ready = poll(0, EVENTS)
        if ready:
            return ready
        began = looked = clock()
        while looked - began < LONGEST:
            sched_yield()
            ready = poll(0, EVENTS)
            if ready:
                self._credit = min(CREDIT, self._credit + 1)
                return ready
            before, looked = looked, clock()
            if looked - before > CONTENDED:
                break
        self._credit -= _IN_VAIN
        return []
