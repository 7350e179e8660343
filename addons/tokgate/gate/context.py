"""What all states of a connection before it is open have in common: the parts of the gate, reading, and refusing."""

import contextlib
import sys
from abc import abstractmethod
from dataclasses import dataclass
from select import EPOLLERR, EPOLLOUT, EPOLLRDHUP
from socket import SHUT_WR
from typing import Final

from tokgate.blocklog.records.record import new_event_id
from tokgate.gate.connection import CLOSED, Connection, State
from tokgate.gate.egress.dialler import Dialler
from tokgate.gate.event_loop import EventLoop
from tokgate.gate.handoff import OpenerChannel
from tokgate.gate.identification import Identification
from tokgate.gate.relay import BUFFER, Relay
from tokgate.gate.sockets import DONT_WAIT, END_FOLLOWS, Address, NoDestinationError, original_destination
from tokgate.policy.observation import Endpoint
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits
from tokgate.traffic.seen import Arrival

_THROWN_AWAY: Final = 65536
"""Octets read at once of what a refused client still sends."""
_THROWS: Final = 16
"""Reads after which the connection is closed: a client that sends a megabyte more does not read the refusal."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a gate that the states of its connections use."""

    enforcer: Enforcer
    opener: OpenerChannel
    limits: Limits
    loop: EventLoop
    relay: Relay
    dialler: Dialler
    identification: Identification
    listens_at: set[Address]
    """Where clients come in: no tunnel may lead there. It stays when the listeners are closed."""

    def destination(self, connection: Connection) -> Address | None:
        """Where the client wants to go; None, and the connection closed, if that can't be."""
        if connection.destination is None:
            try:
                host, port = original_destination(connection.client, connection.listener)
                connection.destination = sys.intern(host), port
            except NoDestinationError:
                self.enforcer.counters.loops += 1
                self.relay.reset(connection, connection.client)
            except OSError:
                self.loop.close(connection)
        return connection.destination

    def arrival(self, connection: Connection) -> Arrival:
        """The client, and its destination as far as it is known."""
        if connection.id is None:
            connection.id = new_event_id(self.enforcer.now())
        destination = connection.destination
        return Arrival(
            client=Endpoint(connection.peer, connection.port),
            destination=None if destination is None else Endpoint(destination[0], destination[1]),
            connect=None if connection.tunnel is None else connection.tunnel.asked,
            connection=connection.id,
            identity=self.identification.of(connection),
        )

    def hand_over(self, connection: Connection, arrival: Arrival, *, tls: bool) -> bool:
        """Give the client to an opener; False, and nothing done, if there is none."""
        explicit = connection.destination is None
        if not self.opener.adopt(connection.client, arrival, bytes(connection.received), tls=tls, explicit=explicit):
            return False
        self.loop.unwatch(connection)
        self.loop.close(connection)  # our descriptor; the opener has its own
        return True

    def listen(self, connection: Connection, state: State, seconds: float = 0.0) -> None:
        """Hear the client from now on, also what came meanwhile; within `seconds`, or whenever it comes."""
        connection.state = state
        connection.deadline = self.loop.now + seconds if seconds else 0.0
        self.loop.watch_client(connection)

    def wait(self, connection: Connection, state: "Waiting", seconds: float) -> None:
        """Something else has to happen first, within that time; nothing of the client is read until then."""
        connection.state = state
        connection.deadline = self.loop.now + seconds
        self.loop.keep_watching_client(connection)

    def refuse(self, connection: Connection, answer: bytes) -> None:
        """Send `answer` and half-close; closing with unread data would send a reset, which may overtake it."""
        parting = Parting(self, answer)
        parting.send(connection)
        if connection.state is CLOSED:
            return
        self.relay.drop_server(connection)
        connection.state = parting
        self.loop.keep_watching_client(connection)
        self.loop.watch_client_writes(connection, bool(parting.unsent))


class Reading(State):
    """A client has not yet said all that its connection is decided by."""

    __slots__ = ("context",)

    def __init__(self, context: Context) -> None:
        self.context: Final = context

    @abstractmethod
    def read(self, connection: Connection, data: bytes) -> None:
        """Go on with what the client said, of which `data` came next."""

    def ended(self, connection: Connection) -> None:
        """The client has ended its side."""
        self.count_unfinished(connection)
        self.context.loop.close(connection)

    def wait(self, connection: Connection) -> None:
        """The client has to say more, within a time."""
        if not connection.deadline:
            connection.deadline = self.context.loop.now + self.context.limits.greeting
        self.context.loop.keep_watching_client(connection)

    def on_client(self, connection: Connection, event: int) -> None:
        """Read what the client says."""
        context = self.context
        relay = context.relay
        if event & EPOLLOUT:  # of what the destination said the client has taken some
            relay.unblock(connection.down)
        try:
            received: int = connection.client.recv_into(relay.buffer, 0, DONT_WAIT)
        except BlockingIOError:
            self.wait(connection)
            return
        except OSError:
            self.count_unfinished(connection)
            relay.reset(connection, connection.server)
            return
        connection.silent = False
        if received:
            self.read(connection, bytes(relay.view[:received]))
        else:
            self.ended(connection)
        if (event & EPOLLRDHUP or received == BUFFER) and isinstance(connection.state, Reading):
            context.loop.watch_client(connection)  # more may be there, or its end, of which epoll has told already

    def on_server(self, connection: Connection, event: int) -> None:
        """The destination may speak first, if it is connected already."""
        self.context.relay.on_server(connection, event)

    def overdue(self, connection: Connection) -> None:
        self.context.enforcer.counters.timeouts += 1
        self.context.loop.close(connection)

    def count_unfinished(self, connection: Connection) -> None:
        """The client is gone before it was decided about."""
        if not connection.silent:
            self.context.enforcer.counters.unfinished += 1


class Waiting(State):
    """Something else has to happen before the client is read from: a name is resolved, a password checked."""

    __slots__ = ("context",)
    movable = False

    def __init__(self, context: Context) -> None:
        self.context: Final = context

    def on_client(self, connection: Connection, event: int) -> None:
        """A reset ends it; an orderly end is met when it is read from again."""
        if event & EPOLLERR:
            self.context.loop.close(connection)

    def on_server(self, connection: Connection, event: int) -> None:
        """There is no destination yet."""

    def overdue(self, connection: Connection) -> None:
        self.context.loop.close(connection)


class Parting(State):
    """Refused; what is `unsent` of the answer is sent, our side is closed, and what the client sends is thrown away."""

    __slots__ = ("_context", "unsent")
    movable = False

    def __init__(self, context: Context, answer: bytes) -> None:
        self._context: Final = context
        self.unsent = answer

    def send(self, connection: Connection) -> None:
        """Send as much as the client takes, and end our side when all is sent."""
        sent = 0
        try:
            with contextlib.suppress(BlockingIOError):
                sent = connection.client.send(self.unsent, END_FOLLOWS) if self.unsent else 0
            self.unsent = self.unsent[sent:]
            if not self.unsent:
                connection.client.shutdown(SHUT_WR)
        except OSError:
            self._context.loop.close(connection)
        connection.deadline = self._context.loop.now + self._context.limits.parting

    def on_client(self, connection: Connection, event: int) -> None:
        """Read on after a refusal, so that the kernel doesn't take it back with a reset, until the client ends."""
        if event & EPOLLOUT and self.unsent:
            self.send(connection)
        try:
            for _ in range(_THROWS):
                if not connection.client.recv(_THROWN_AWAY, DONT_WAIT):
                    if self.unsent:  # it still has to receive some of it
                        return
                    break
        except BlockingIOError:
            return
        except OSError:
            pass
        self._context.loop.close(connection)

    def on_server(self, connection: Connection, event: int) -> None:
        """There is no destination any more."""

    def overdue(self, connection: Connection) -> None:
        self._context.loop.close(connection)
