"""Connects to destinations, directly or by a parent proxy."""

import errno
import os
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from socket import SO_ERROR, SOL_SOCKET
from typing import Final

from tokgate.gate.connection import Connection, State
from tokgate.gate.context import Context, Reading
from tokgate.gate.egress.parents import AskedParent, parent_for
from tokgate.gate.sockets import Address, Entry, NoDestinationError, leads_to
from tokgate.policy.settings import Upstream
from tokgate.traffic.counters import ConnectError, connect_error


def parent(context: Context, connection: Connection, destination: Address) -> Upstream | None:
    """The parent proxy that reaches a destination, by the name asked for or else the one in the hello; None: none."""
    tunnel, shown = connection.tunnel, connection.shown
    name = tunnel.host if tunnel is not None else shown if isinstance(shown, str) else None
    return parent_for(context.enforcer.snapshot, destination[0], name)


def dial(context: Context, connection: Connection, destination: Address, connecting: "Connecting") -> None:
    """Begin to connect to a destination, or to the parent proxy that reaches it.

    Raises:
        NoDestinationError: that would lead back to this gate.
        OSError: no descriptor, no route, no parent, or another error that comes at once.

    """
    snapshot, loop = context.enforcer.snapshot, context.loop
    upstream = parent(context, connection, destination) if snapshot.upstream else None
    state: State = connecting
    place = destination
    if upstream is not None:
        asked, place = context.dialler.parents.begin(upstream, destination)
        state = AskingParent(connecting, asked)
    transparent = connection.listener.entry is Entry.TPROXY and upstream is None
    client = (connection.client, connection.peer) if transparent else None
    server = context.dialler.connect(place, snapshot.settings.egress, loop.now, client)
    if (connection.tunnel is not None or upstream is not None) and leads_to(server, place, context.listens_at):
        server.close()
        raise NoDestinationError(errno.ELOOP, os.strerror(errno.ELOOP))
    connection.server = server
    connection.server_fd = server.fileno()
    connection.awaiting_since = loop.now
    connection.state = state
    connection.deadline = loop.now + context.limits.connecting
    loop.watch_server(connection)


def proceed(context: Context, connection: Connection, state: State) -> None:
    """The destination is there: send what the client has said, and hear it from now on, in another state."""
    connection.state = state
    connection.deadline = 0.0
    connection.awaiting_since = context.loop.now
    if not connection.received or context.relay.send_received(connection):
        context.loop.watch_client(connection)


class Connecting(State):
    """The destination has not answered yet; then the connection is in the state `then`."""

    __slots__ = ("context", "then")

    def __init__(self, context: Context, then: State) -> None:
        self.context: Final = context
        self.then: Final = then

    def on_client(self, connection: Connection, event: int) -> None:
        """A reset ends it; an orderly end is passed on when the destination is connected."""
        if event & EPOLLERR:
            self.context.loop.close(connection)

    def on_server(self, connection: Connection, event: int) -> None:
        """The destination answered, or can't be reached."""
        if event & (EPOLLERR | EPOLLHUP) and (number := connection.server.getsockopt(SOL_SOCKET, SO_ERROR)):
            self.unreachable(connection, connect_error(number))
            return
        context = self.context
        context.dialler.connect_seconds.add(context.loop.now - connection.awaiting_since)
        connection.awaiting_since = 0.0
        self.go_on(connection)
        if event & ~EPOLLOUT:  # it spoke first, or ended at once
            connection.state.on_server(connection, event)

    def overdue(self, connection: Connection) -> None:
        self.unreachable(connection, ConnectError.TIMEOUT)

    def go_on(self, connection: Connection) -> None:
        """The destination is there: go on with what the client has said, or will say."""
        if isinstance(self.then, Reading):
            self.context.listen(connection, self.then)
        else:
            proceed(self.context, connection, self.then)

    def unreachable(self, connection: Connection, kind: ConnectError) -> None:
        """The destination can't be reached: the client is reset, as the destination would have."""
        self.context.dialler.failed(kind, self.context.loop.now)
        self.context.relay.reset(connection, connection.client)


class AskingParent(State):
    """A parent proxy is connected to, and asked for the destination; then all is as if it had been connected to."""

    __slots__ = ("_asked", "_connecting")
    movable = False

    def __init__(self, connecting: Connecting, asked: AskedParent) -> None:
        self._connecting: Final = connecting
        self._asked: Final = asked

    def on_client(self, connection: Connection, event: int) -> None:
        self._connecting.on_client(connection, event)

    def on_server(self, connection: Connection, event: int) -> None:
        """The parent is there, or has answered, or can't be reached."""
        connecting = self._connecting
        if event & (EPOLLERR | EPOLLHUP) and (number := connection.server.getsockopt(SOL_SOCKET, SO_ERROR)):
            connecting.unreachable(connection, connect_error(number))
            return
        try:
            if not self._asked.is_behind(connection.server, event):
                return
        except OSError as error:
            connecting.unreachable(connection, connect_error(error.errno))
            return
        connecting.on_server(connection, event | EPOLLIN)  # the destination's first octets may follow the answer

    def overdue(self, connection: Connection) -> None:
        self._connecting.overdue(connection)
