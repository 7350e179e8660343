"""Moves bytes between sockets: small exchanges by one receive and one send, bulk through pipes in the kernel.

Fairness is queue order and turn length. What is new or small is served as it comes; bulk only queues, and has one short
turn between two looks at what is new. Nothing here knows what a connection is about.
"""

import contextlib
import fcntl
import os
from abc import abstractmethod
from collections import deque
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from socket import MSG_PEEK, SHUT_WR
from typing import Final

from tokgate.gate.connection import CLOSED, Connection, Half
from tokgate.gate.event_loop import Poller
from tokgate.gate.sockets import DONT_WAIT, LAST_WORDS, Socket, reset_on_close

PEEK: Final = DONT_WAIT | int(MSG_PEEK)
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
"""Turns that a direction keeps its place, for the caches' sake; what is new is served in between."""
MAX_POOLED: Final = 64
"""Pipes kept for the next bulk; idle connections hold none."""
_SPLICE_FLAGS: Final = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Relay(Poller):
    """A poller that relays for the connections that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.bulk: deque[Half] = deque()
        self._pipes: Final[list[tuple[int, int]]] = []
        self._buffer: Final = bytearray(BUFFER)
        self._view: Final = memoryview(self._buffer)
        self._lively = 0

    # -- events of open connections

    def client_event(self, connection: Connection, event: int) -> None:
        """The client's socket of an open connection is readable, writable or ended."""
        connection.seen = self.now
        if event & EPOLLERR:
            self.reset(connection, connection.server)
            return
        if event & EPOLLRDHUP:
            connection.client_fin = True
        if event & EPOLLIN and not connection.up_done:
            half = connection.up
            if half is None:
                self._small(connection, True, connection.client, connection.server, connection.client_fin)
            elif not half.queued and not half.blocked:
                half.queued = True
                self.bulk.append(half)
        if event & EPOLLOUT:
            self._unblock(connection.down)

    def client_writable(self, connection: Connection) -> None:
        """The client takes more of what the destination says."""
        self._unblock(connection.down)

    def server_event(self, connection: Connection, event: int) -> None:
        """The destination's socket of an open connection is readable, writable or ended."""
        connection.seen = self.now
        if event & EPOLLERR:
            self.reset(connection, connection.client)
            return
        if connection.owing and event & EPOLLIN:
            self.first_octet(connection)
        if event & EPOLLRDHUP:
            connection.server_fin = True
        if event & EPOLLIN and not connection.down_done:
            half = connection.down
            if half is None:
                self._small(connection, False, connection.server, connection.client, connection.server_fin)
            elif not half.queued and not half.blocked:
                half.queued = True
                self.bulk.append(half)
        if event & EPOLLOUT:
            self._unblock(connection.up)

    def _unblock(self, half: Half | None) -> None:
        if half is not None and half.blocked and not half.queued:
            half.blocked = False
            half.queued = True
            self.bulk.append(half)

    @abstractmethod
    def first_octet(self, connection: Connection) -> None:
        """The destination has answered what it owed since `connection.owing`."""

    def resume(self, connection: Connection) -> None:
        """Go on where another relay has stopped; what came meanwhile is told as soon as the sockets are watched."""
        if connection.server is not None:
            self.watch_server(connection)
        self.watch_client(connection)
        for half in (connection.up, connection.down):
            if half is not None:
                half.queued = True
                self.bulk.append(half)

    # -- one receive, one send

    def _small(self, connection: Connection, is_up: bool, source: Socket, sink: Socket, fin: bool) -> None:
        try:
            received: int = source.recv_into(self._buffer, 0, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            self.reset(connection, sink)
            return
        self._pass_on(connection, is_up, sink, received, fin)

    def _pass_on(self, connection: Connection, is_up: bool, sink: Socket, received: int, fin: bool) -> None:
        """Send what was received into the buffer; `fin`: nothing comes behind it, unless it fills the buffer."""
        self._lively = LIVELY
        if received == 0:
            self._end(connection, is_up)
            return
        try:
            sent: int = sink.send(self._view[:received], LAST_WORDS if fin else DONT_WAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.reset(connection, sink)
            return
        if sent == received and received < BUFFER:
            if fin:  # the end was announced and the socket is empty
                self._end(connection, is_up)
            return
        half = self._half(connection, is_up, bytes(self._view[sent:received]))
        half.queued = True
        self.bulk.append(half)

    def _end(self, connection: Connection, is_up: bool) -> None:
        """One direction has ended: pass that on, and close when both have."""
        if is_up:
            connection.up_done = True
        else:
            connection.down_done = True
        if connection.up_done and connection.down_done:
            self.close(connection)
            return
        try:
            (connection.server if is_up else connection.client).shutdown(SHUT_WR)
        except OSError:  # that side is gone already
            self.close(connection)

    # -- bulk

    def _half(self, connection: Connection, is_up: bool, pending: bytes) -> Half:
        half = Half(connection, is_up, pending, STICK)
        # Receives and sends say so each time; splice can't, and would wait for a client that doesn't read.
        connection.client.setblocking(False)
        if is_up:
            connection.up = half
        else:
            connection.down = half
            self.watch_client_writes(connection)
        return half

    def serve_bulk(self) -> None:
        half = self.bulk.popleft()
        half.queued = False
        connection = half.connection
        if half is not (connection.up if half.is_up else connection.down):  # given up while it waited
            return
        connection.seen = self.now
        self._lively -= 1
        try:
            if not self._turn(half):
                return
        except BlockingIOError:
            half.turns = STICK
            if not half.in_pipe:
                self._release(half)
            return
        except OSError:
            self.reset(connection, half.sink)
            return
        except Exception as error:
            self.broken(connection, error)
            return
        half.queued = True
        half.turns -= 1
        if half.turns > 0:
            self.bulk.appendleft(half)
        else:
            half.turns = STICK
            self.bulk.append(half)

    def _turn(self, half: Half) -> bool:
        """A few splices; False when the direction has ended. Raises BlockingIOError when it has to wait."""
        for _ in range(SPLICES):
            if half.pending:
                half.blocked = True  # should sending raise
                sent: int = half.sink.send(half.pending, DONT_WAIT)
                half.pending = half.pending[sent:]
                half.blocked = False
                continue
            pipe = half.pipe or self._take_pipe(half)
            if half.in_pipe:
                half.blocked = True
                half.in_pipe -= os.splice(pipe[0], half.sink_fd, half.in_pipe, flags=_SPLICE_FLAGS)
                half.blocked = False
                continue
            moved = os.splice(half.source_fd, pipe[1], SHORT if self._lively > 0 else PIPE, flags=_SPLICE_FLAGS)
            if not moved:
                self._release(half)
                self._end(half.connection, half.is_up)
                return False
            half.in_pipe = moved
        return True

    def _take_pipe(self, half: Half) -> tuple[int, int]:
        if self._pipes:
            half.pipe = self._pipes.pop()
        else:
            half.pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # over the user's limit for pipes: the default size will do
                fcntl.fcntl(half.pipe[1], fcntl.F_SETPIPE_SZ, PIPE)
        return half.pipe

    def _release(self, half: Half) -> None:
        """Give an empty pipe back; close one that still holds bytes of a dead connection."""
        pipe, half.pipe = half.pipe, None
        if pipe is None:
            return
        if half.in_pipe or len(self._pipes) >= MAX_POOLED:
            os.close(pipe[0])
            os.close(pipe[1])
        else:
            self._pipes.append(pipe)

    # -- ends

    def reset(self, connection: Connection, other: Socket) -> None:
        """One side broke off: break off towards the other as well."""
        if connection.state is not CLOSED and other is not None:
            reset_on_close(other)
        self.close(connection)

    def forget(self, connection: Connection) -> None:
        """Give back the pipes of a connection, which relays no more."""
        if connection.up is not None:
            self._release(connection.up)
            connection.up = None
        if connection.down is not None:
            self._release(connection.down)
            connection.down = None

    def close_pipes(self) -> None:
        while self._pipes:
            for descriptor in self._pipes.pop():
                os.close(descriptor)
