"""Moves bytes between sockets: small exchanges by one receive and one send, bulk through pipes in the kernel.

Fairness is queue order and turn length. What is new or small is served as it comes; bulk only queues, and has one short
turn between two looks at what is new. Nothing here knows what a connection is about.
"""

import contextlib
import fcntl
import os
from errno import ECONNRESET, EPIPE
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from socket import SHUT_WR
from typing import Final

from tokgate.gate.connection import CLOSED, Connection, Direction, State
from tokgate.gate.event_loop import EventLoop
from tokgate.gate.sockets import DONT_WAIT, END_FOLLOWS, PEEK, Socket, reset_on_close, unacknowledged

BUFFER: Final = 65536
PIPE: Final = 1 << 20
"""Octets a pipe is asked to hold, and the most that one splice moves while nothing small is going on."""
SHORT: Final = 1 << 18
"""The most that one splice moves while small exchanges are going on."""
LIVELY: Final = 64
"""Turns that stay short after a small exchange."""
SPLICES: Final = 2
"""Splices a turn: one in, one out."""
STICK: Final = 8
"""Turns in a row that a direction gets, for the processor's caches; new events are served in between."""
MAX_POOLED: Final = 64
"""Pipes kept for the next bulk; idle connections hold none."""
_SPLICE_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Relay(State):
    """The state of open connections: what comes from one side goes to the other. One object serves all of them."""

    def __init__(self, loop: EventLoop, half_closed: float) -> None:
        """`half_closed`: seconds for which one side may leave octets unacknowledged after the other has broken off."""
        self.buffer: Final = bytearray(BUFFER)
        """What was received last, in a loop where nothing waits."""
        self.view: Final = memoryview(self.buffer)
        self._loop: Final = loop
        self._half_closed: Final = half_closed
        self._pipes: Final[list[tuple[int, int]]] = []
        self._lively = 0

    # -- events of open connections

    def on_client(self, connection: Connection, event: int) -> None:
        connection.seen = self._loop.now
        if event & EPOLLERR:
            self.broke_off(connection, True)
            return
        if event & EPOLLRDHUP:
            connection.client_fin = True
        if event & EPOLLIN and not connection.up_done:
            direction = connection.up
            if direction is None:
                self._small(connection, True, connection.client, connection.server, connection.client_fin)
            elif not direction.queued and not direction.blocked:
                self._queue(direction)
        if event & EPOLLOUT:
            self.unblock(connection.down)

    def on_server(self, connection: Connection, event: int) -> None:
        connection.seen = self._loop.now
        if event & EPOLLERR:
            self.broke_off(connection, False)
            return
        if event & EPOLLRDHUP:
            connection.server_fin = True
        if event & EPOLLIN and not connection.down_done:
            direction = connection.down
            if direction is None:
                self._small(connection, False, connection.server, connection.client, connection.server_fin)
            elif not direction.queued and not direction.blocked:
                self._queue(direction)
        if event & EPOLLOUT:
            self.unblock(connection.up)

    def overdue(self, connection: Connection) -> None:
        """Close it, unless one side was broken off and the other still receives what came before."""
        waits = self._loop.now - connection.seen < self._half_closed
        if not (waits and self.still_receives(connection)):  # else it is looked at again with the next sweep
            self._loop.close(connection)

    def resume(self, connection: Connection) -> None:
        """Go on where another relay has stopped; what came meanwhile is told as soon as the sockets are watched."""
        if connection.server is not None:
            self._loop.watch_server(connection)
        self._loop.watch_client(connection)
        for direction in (connection.up, connection.down):
            if direction is not None:
                self._queue(direction)

    # -- one receive, one send

    def _small(self, connection: Connection, is_up: bool, source: Socket, sink: Socket, fin: bool) -> None:
        try:
            received: int = source.recv_into(self.buffer, 0, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            self.reset(connection, sink)
            return
        self.pass_on(connection, is_up, sink, received, fin)

    def pass_on(self, connection: Connection, is_up: bool, sink: Socket, received: int, fin: bool) -> None:
        """Send what was received into the buffer; `fin`: nothing comes behind it, unless it fills the buffer."""
        self._lively = LIVELY
        if received == 0:
            self._end(connection, is_up)
            return
        try:
            sent: int = sink.send(self.view[:received], END_FOLLOWS if fin else DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.broke_off(connection, not is_up, error.errno or 0)
            return
        if sent == received and received < BUFFER:
            if fin:  # the end was announced and the socket is empty
                self._end(connection, is_up)
            return
        self._queue(self.direction(connection, is_up, bytes(self.view[sent:received])))

    def send_received(self, connection: Connection) -> bool:
        """Send what the client has said as far as the destination takes it; False, and both closed, if it is gone.

        What is left waits in `received` before the connection is open, and then in a direction of its own.
        """
        received, sent = connection.received, 0
        try:
            sent = connection.server.send(received, DONT_WAIT)
        except BlockingIOError:
            pass
        except OSError:
            self.reset(connection, connection.client)
            return False
        left = received[sent:] if sent < len(received) else b""
        if left and connection.state is self:
            self.direction(connection, True, bytes(left)).blocked = True
            left = b""
        connection.received = left
        return True

    def _end(self, connection: Connection, is_up: bool) -> None:
        """One direction has ended: pass that on, and close when both have."""
        if is_up:
            connection.up_done, sink, error = True, connection.server, connection.client_error
        else:
            connection.down_done, sink, error = True, connection.client, connection.server_error
        over = connection.up_done and connection.down_done
        if over and not error:
            self._loop.close(connection)
            return
        if error in (0, EPIPE):
            try:
                sink.shutdown(SHUT_WR)
            except OSError:
                self.broke_off(connection, not is_up)
                return
        if over:
            self.reset(connection, sink)

    # -- bulk

    def direction(self, connection: Connection, is_up: bool, pending: bytes) -> Direction:
        """Carry one direction as bulk from now on, beginning with what is `pending`; it is not queued yet."""
        direction = Direction(connection, is_up, pending, STICK, self._serve)
        # Receives and sends say so each time; splice can't, and would wait for a client that doesn't read.
        connection.client.setblocking(False)
        if is_up:
            connection.up = direction
        else:
            connection.down = direction
            self._loop.watch_client_writes(connection)
        return direction

    def unblock(self, direction: Direction | None) -> None:
        """The sink of a direction takes more."""
        if direction is not None and direction.blocked:
            direction.blocked = False
            self._queue(direction)

    def _queue(self, direction: Direction) -> None:
        """Have a direction wait for its turn, behind the others."""
        direction.queued = True
        self._loop.bulk.append(direction)

    def _serve(self, direction: Direction) -> None:
        direction.queued = False
        connection = direction.connection
        if direction is not (connection.up if direction.is_up else connection.down):  # given up while it waited
            return
        connection.seen = self._loop.now
        self._lively -= 1
        try:
            if not self._turn(direction):
                return
        except BlockingIOError:
            direction.turns = STICK
            if not direction.in_pipe:
                self._release(direction)
            return
        except OSError as error:
            if direction.blocked:  # it was sending
                self.broke_off(connection, not direction.is_up, error.errno or 0)
            else:
                self.reset(connection, direction.sink)
            return
        except Exception as error:
            self._loop.broken(connection, error)
            return
        direction.queued = True
        direction.turns -= 1
        if direction.turns > 0:
            self._loop.bulk.appendleft(direction)
        else:
            direction.turns = STICK
            self._loop.bulk.append(direction)

    def _turn(self, direction: Direction) -> bool:
        """A few splices; False when the direction has ended. Raises BlockingIOError when it has to wait."""
        for _ in range(SPLICES):
            if direction.pending:
                direction.blocked = True  # should sending raise
                sent: int = direction.sink.send(direction.pending, DONT_WAIT)
                direction.pending = direction.pending[sent:]
                direction.blocked = False
                continue
            pipe = direction.pipe or self._take_pipe(direction)
            if direction.in_pipe:
                direction.blocked = True
                direction.in_pipe -= os.splice(pipe[0], direction.sink_fd, direction.in_pipe, flags=_SPLICE_FLAGS)
                direction.blocked = False
                continue
            moved = os.splice(direction.source_fd, pipe[1], SHORT if self._lively > 0 else PIPE, flags=_SPLICE_FLAGS)
            if not moved:
                self._release(direction)
                self._end(direction.connection, direction.is_up)
                return False
            direction.in_pipe = moved
        return True

    def _take_pipe(self, direction: Direction) -> tuple[int, int]:
        if self._pipes:
            direction.pipe = self._pipes.pop()
        else:
            direction.pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # over the user's limit for pipes: the default size will do
                fcntl.fcntl(direction.pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        return direction.pipe

    def _release(self, direction: Direction) -> None:
        """Give an empty pipe back; close one that still holds bytes of a dead connection."""
        pipe, direction.pipe = direction.pipe, None
        if pipe is None:
            return
        if direction.in_pipe or len(self._pipes) >= MAX_POOLED:
            os.close(pipe[0])
            os.close(pipe[1])
        else:
            self._pipes.append(pipe)

    # -- ends

    def broke_off(self, connection: Connection, is_client: bool, error: int = EPIPE) -> None:
        """One side has reset the connection: pass on what it said before, which may be all, and then the reset.

        `error` is what sending to it has said, since reading no longer does. EPIPE: as reading ends, so did that side.
        """
        client, server = connection.client, connection.server
        source, other = (client, server) if is_client else (server, client)
        direction, ended = (connection.up, connection.up_done) if is_client else (connection.down, connection.down_done)
        reset_on_close(source)
        undecided = is_client and connection.state is not self
        if ended or undecided or error not in (EPIPE, ECONNRESET):
            self.reset(connection, other)
            return
        connection.state, connection.deadline = self, 0.0
        if is_client:
            connection.client_error, connection.down_done = connection.client_error or error, True
        else:
            connection.server_error, connection.up_done = connection.server_error or error, True
        self._give_up(connection, not is_client)
        try:
            if direction is None and not source.recv(1, PEEK):
                self._end(connection, is_client)
                return
        except OSError:
            self.reset(connection, other)
            return
        direction = direction or self.direction(connection, is_client, b"")
        if not direction.queued and not direction.blocked:
            self._queue(direction)

    def reset(self, connection: Connection, other: Socket) -> None:
        """One side has reset the connection: reset the other as well, once it has acknowledged what it was sent."""
        if connection.state is CLOSED or other is None:
            self._loop.close(connection)
            return
        reset_on_close(other)
        if other is connection.client:
            connection.server_error = connection.server_error or ECONNRESET
        else:
            connection.client_error = connection.client_error or ECONNRESET
        if not self.still_receives(connection):
            self._loop.close(connection)
            return
        self.forget(connection)
        connection.state, connection.up_done, connection.down_done = self, True, True
        connection.deadline = self._loop.now  # it is looked at with each sweep

    @staticmethod
    def still_receives(connection: Connection) -> bool:
        """Whether the other side of a connection that was broken off has yet to acknowledge what came before."""
        if connection.client_error and connection.server_error:
            return False
        return unacknowledged(connection.server if connection.client_error else connection.client) > 0

    def forget(self, connection: Connection) -> None:
        """Give back the pipes of a connection, which relays no more."""
        self._give_up(connection, True)
        self._give_up(connection, False)

    def drop_server(self, connection: Connection) -> None:
        """Go on without the destination, of which nothing more is passed on."""
        self.forget(connection)
        self._loop.drop_server(connection)

    def _give_up(self, connection: Connection, is_up: bool) -> None:
        """Have nothing more pass in one direction."""
        direction = connection.up if is_up else connection.down
        if direction is not None:
            self._release(direction)
        if is_up:
            connection.up = None
        else:
            connection.down = None

    def close_pipes(self) -> None:
        """Close those that are kept for the next bulk."""
        while self._pipes:
            for descriptor in self._pipes.pop():
                os.close(descriptor)
