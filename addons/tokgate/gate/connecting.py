"""Connects to destinations, directly or by a parent proxy; where one can't be reached, to the name's other addresses.

As clients do it (RFC 8305): the next address is tried at once after a failure, and beside one that is silent for a
quarter of a second. Each is decided about first. Who was redirected would have tried the others by itself, had the gate
not accepted before it knew whether the destination is there.
"""

import errno
import os
from collections.abc import Sequence
from functools import partial
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from socket import SO_ERROR, SOL_SOCKET
from typing import Final

from tokgate.gate.background import Addresses
from tokgate.gate.connection import Attempt, Connection, State
from tokgate.gate.context import Context, Reading
from tokgate.gate.egress.parents import AskedParent
from tokgate.gate.event_loop import SERVER
from tokgate.gate.sockets import Address, Entry, NoDestinationError, is_connected, is_here, leads_to
from tokgate.policy.observation import Endpoint
from tokgate.policy.services import NO_MATCH
from tokgate.policy.settings import Upstream, upstream_for
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.admission import TargetAddresses, decide_targets, is_closed
from tokgate.traffic.counters import ConnectError, connect_error
from tokgate.traffic.seen import Shown

NOWHERE: Final[Address] = "", 0


def parent(context: Context, connection: Connection, destination: Address) -> Upstream | None:
    """The parent proxy that reaches a destination, by the name asked for or else the one in the hello; None: none."""
    tunnel, shown = connection.tunnel, connection.shown
    name = tunnel.host if tunnel is not None else shown if isinstance(shown, str) else None
    return upstream_for(context.enforcer.snapshot.upstream, (destination[0], name))


def closed_to(context: Context, connection: Connection, port: int, address: str) -> bool:
    """Whether the client may not be connected to an address, because it is this machine's own."""
    return is_closed(connection.peer, Endpoint(address, port), context.enforcer.snapshot.settings, is_here)


def targets(
    context: Context, connection: Connection, host: str, port: int, addresses: Sequence[str]
) -> TargetAddresses:
    """Decide about the addresses to which a name resolves."""
    identity = context.identification.of(connection)
    closed = partial(closed_to, context, connection, port)
    return decide_targets(context.enforcer, connection.peer, host, addresses, identity, is_closed=closed)


def dial(context: Context, connection: Connection, destination: Address, connecting: "Connecting") -> None:
    """Begin to connect to a destination, or to the parent proxy that reaches it.

    Raises:
        NoDestinationError: that would lead back to this gate.
        OSError: no descriptor, no route, no parent, or another error that comes at once.

    """
    snapshot, loop, dialler = context.enforcer.snapshot, context.loop, context.dialler
    connection.deadline = connecting.since + context.limits.connecting
    upstream = parent(context, connection, destination) if snapshot.upstream else None
    state: State = connecting
    place, client = destination, None
    if upstream is not None:
        asked, place = dialler.parents.begin(upstream, destination)
        state = AskingParent(connecting, asked)
    elif connection.listener.entry is Entry.TPROXY:
        client = connection.client, connection.peer
    server = dialler.connect(place, snapshot.settings.egress, loop.now, client)
    if (
        connection.tunnel is not None or upstream is not None or connecting.untried is not None  # chosen here
    ) and leads_to(server, place, context.listens_at):
        server.close()
        raise NoDestinationError(errno.ELOOP, os.strerror(errno.ELOOP))
    connection.server = server
    connection.server_fd = server.fileno()
    connection.state = state
    loop.watch_server(connection)
    if upstream is None:
        loop.notice_silence(connection)
        if dialler.bad and dialler.is_bad(destination, loop.now):
            connecting.silent(connection)


def proceed(context: Context, connection: Connection, state: State) -> None:
    """The destination is there: send what the client has said, and hear it from now on, in another state."""
    connection.state = state
    connection.deadline = 0.0
    if not connection.received or context.relay.send_received(connection):
        context.loop.watch_client(connection)


class Connecting(State):
    """No address of the destination has answered yet; when one has, the connection is in the state `then`."""

    __slots__ = ("asking", "context", "failure", "since", "then", "untried")

    def __init__(self, context: Context, then: State, untried: Addresses | None = None) -> None:
        """`untried`: the destination's other addresses; None: the name's are asked for when they are needed."""
        self.context: Final = context
        self.then: Final = then
        self.untried: Addresses | None = untried
        self.since: Final = context.loop.now
        self.asking = False
        self.failure: ConnectError | None = None
        """Why an address could not be reached, of late."""

    @property
    def movable(self) -> bool:
        return not self.asking

    def begin(self, connection: Connection, destination: Address) -> None:
        """Begin to connect to the destination, or to another address of its name."""
        try:
            dial(self.context, connection, destination, self)
        except NoDestinationError:
            self.leads_back(connection)
        except OSError as error:  # no route to it, such as one of IPv6
            connection.state = self
            self.unreachable(connection, connect_error(error.errno))

    def on_client(self, connection: Connection, event: int) -> None:
        """A reset ends it; an orderly end is passed on when the destination is connected."""
        if event & EPOLLERR:
            self.context.loop.close(connection)

    def on_server(self, connection: Connection, event: int) -> None:
        """The destination answered, or can't be reached."""
        if connection.rivals:
            self._look_at_all(connection)
            return
        if event & (EPOLLERR | EPOLLHUP) and (number := connection.server.getsockopt(SOL_SOCKET, SO_ERROR)):
            self.unreachable(connection, connect_error(number))
            return
        self._connected(connection)
        if event & ~EPOLLOUT:  # it spoke first, or ended at once
            connection.state.on_server(connection, event)

    def _connected(self, connection: Connection) -> None:
        loop = self.context.loop
        loop.dialled.pop(connection, None)
        self.context.dialler.connect_seconds.add(loop.now - self.since)
        self.go_on(connection)

    def _look_at_all(self, connection: Connection) -> None:
        """One of several addresses has answered, or failed."""
        loop, dialler = self.context.loop, self.context.dialler
        attempts: list[Attempt] = [*connection.rivals, (connection.server, connection.destination or NOWHERE)]
        for attempt in attempts:
            number = attempt[0].getsockopt(SOL_SOCKET, SO_ERROR)
            if not number and is_connected(attempt[0]):
                for _, slower in attempts[: attempts.index(attempt)]:
                    dialler.failed(ConnectError.TIMEOUT, loop.now, slower)
                loop.choose(connection, attempt, [each for each in attempts if each is not attempt])
                loop.drop_rivals(connection)
                self._connected(connection)
                if connection.server is not None:
                    loop.epoll.modify(connection.server_fd, SERVER)  # what came meanwhile is told again
                return
            if number:
                dialler.failed(connect_error(number), loop.now, attempt[1])
                left = [each for each in attempts if each is not attempt]
                loop.choose(connection, left[-1], left[:-1])
                loop.drop(attempt[0])
                self.try_next(connection)
                return

    def silent(self, connection: Connection) -> None:
        """The address that was tried last has not answered for a while: try another one beside it."""
        if self.untried is None:
            self._ask(connection)
        else:
            self.try_next(connection)

    def overdue(self, connection: Connection) -> None:
        self.context.loop.drop_rivals(connection)
        self._fails(connection, ConnectError.TIMEOUT)
        self.give_up(connection)

    def unreachable(self, connection: Connection, kind: ConnectError) -> None:
        """The address can't be reached: try another one at once."""
        self._fails(connection, kind)
        self.silent(connection)

    def _fails(self, connection: Connection, kind: ConnectError) -> None:
        self.failure = kind
        if connection.server is not None:
            self.context.dialler.failed(kind, self.context.loop.now, connection.destination)
            self.context.relay.drop_server(connection)

    def _ask(self, connection: Connection) -> None:
        """Ask for the other addresses of the name that passes; each is decided about before it is tried."""
        self.untried, name, tried = (), _name(connection), connection.destination
        if name is None or tried is None:
            self.try_next(connection)
            return
        self.asking = True
        self.context.loop.keep_watching_client(connection)

        def found(addresses: Addresses) -> None:
            self.asking = False
            if connection.state is self:
                opened = targets(self.context, connection, name, tried[1], addresses).open
                in_order = self.context.dialler.in_order(opened, tried[1])
                self.untried = tuple(each for each in in_order if each != tried[0])
                self.try_next(connection)

        self.context.dialler.resolver.ask(connection.peer, name, found)

    def try_next(self, connection: Connection) -> None:
        """Connect to the next address, beside those that have not answered; without any of both it ends."""
        while self.untried and connection.destination is not None:
            address, self.untried = self.untried[0], self.untried[1:]
            if connection.server is not None:
                connection.rivals += ((connection.server, connection.destination),)
                connection.server = None
            destination = address, connection.destination[1]
            try:
                dial(self.context, connection, destination, self)
            except NoDestinationError:
                self.leads_back(connection)
                return
            except OSError:
                continue
            connection.destination = destination
            return
        if connection.server is None and connection.rivals:
            self.context.loop.choose(connection, connection.rivals[-1], connection.rivals[:-1])
        elif connection.server is None and not self.asking:
            self.give_up(connection)

    def go_on(self, connection: Connection) -> None:
        """The destination is there: go on with what the client has said, or will say."""
        if isinstance(self.then, Reading):
            self.context.listen(connection, self.then)
        else:
            proceed(self.context, connection, self.then)

    def leads_back(self, connection: Connection) -> None:
        """An address leads to this gate: the client is reset."""
        self.context.enforcer.counters.loops += 1
        self.context.relay.reset(connection, connection.client)

    def give_up(self, connection: Connection) -> None:
        """No address can be reached: the client is reset, as the destination would have.

        Without a name it has to try its next address itself: its next SYN is refused by the kernel, and so not accepted
        before anybody knows whether the destination is there.
        """
        context, place = self.context, connection.destination
        if place is not None and connection.listener.entry is Entry.TPROXY and _name(connection) is None:
            snapshot = context.enforcer.snapshot
            logged = snapshot.services.match(place[0]) is not NO_MATCH  # who asks for it, is to be known
            if not logged and parent(context, connection, place) is None:
                context.dialler.refuse_next(connection.peer, place, self.failure)
        context.relay.reset(connection, connection.client)


def _name(connection: Connection) -> str | None:
    """The host by which a client was let through, if that is no address."""
    shown = connection.shown
    name = shown.name if isinstance(shown, Shown) else shown
    return None if name is None or parse_address(name) is not None else name


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
            self._failed(connection, connect_error(number))
            return
        try:
            if not self._asked.is_behind(connection.server, event):
                return
        except OSError as error:
            self._failed(connection, connect_error(error.errno))
            return
        connecting.on_server(connection, event | EPOLLIN)  # the destination's first octets may follow the answer

    def _failed(self, connection: Connection, kind: ConnectError) -> None:
        self._connecting.untried = self._connecting.untried or ()  # what else there is is the parent's affair
        self._connecting.unreachable(connection, kind)

    def overdue(self, connection: Connection) -> None:
        self._connecting.overdue(connection)
