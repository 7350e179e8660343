"""The gate: an epoll loop, its listeners, and all their connections.

A connection is in a state, which serves its events: `ProxyHeader`, `ExplicitRequest`, `TunnelMessage` or `FirstMessage`
while it is read, `Waiting`, `Connecting` and `AskingParent`, `FirstExchange`, then `Relay`; or `Parting`, once it is
refused. States decide nothing themselves: what decides is `traffic.admission`, the same as behind mitmproxy.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

from whenever import Instant

from tokgate.gate.acceptor import Acceptor
from tokgate.gate.connection import CLOSED, Connection
from tokgate.gate.context import Context, Parting, Reading
from tokgate.gate.egress.dialler import Dialler
from tokgate.gate.event_loop import EventLoop
from tokgate.gate.explicit_clients.front import ExplicitFront
from tokgate.gate.first_message import FirstMessage, count_silent
from tokgate.gate.handoff import OpenerChannel
from tokgate.gate.identification import Identification
from tokgate.gate.relay import Relay
from tokgate.gate.sockets import Entry, octets, reset_on_close
from tokgate.policy.observation import Visibility
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits
from tokgate.traffic.live_review import Cut, passes
from tokgate.traffic.seen import Shown

_TUNNEL: Final = Shown(visibility=Visibility.ADDRESS)
"""What is known of a tunnel besides what it carries: the host that was asked for, and its address."""


class Gate:
    """One gate: its parts, put together for the policy in force."""

    def __init__(
        self, enforcer: Enforcer, opener: OpenerChannel, limits: Limits | None = None, mark: int | None = None
    ) -> None:
        """`mark` is set on sockets towards destinations, for firewalls that tell the proxy's own traffic by it."""
        limits = limits or Limits()
        self.enforcer: Final = enforcer
        self.loop: Final = EventLoop(limits, failed=partial(enforcer.failed, "gate"), closed=self._closed)
        self.dialler: Final = Dialler(enforcer, mark)
        self.relay: Final = Relay(self.loop, limits.half_closed)
        self.identification: Final = Identification(enforcer)
        self.context: Final = Context(
            enforcer, opener, limits, self.loop, self.relay, self.dialler, self.identification, listens_at=set()
        )
        self.explicit: Final = ExplicitFront(self.context)
        redirected = FirstMessage(self.context)
        first = {Entry.REDIRECT: redirected, Entry.TPROXY: redirected, Entry.EXPLICIT: self.explicit.request}
        self.acceptor: Final = Acceptor(self.context, first)
        for each in (self.dialler.parents, self.dialler.resolver):
            self.loop.call_back(each.descriptor, each.deliver)

    def _closed(self, connection: Connection) -> None:
        """A connection has ended, however it did."""
        if connection.up is not None or connection.down is not None:
            self.relay.forget(connection)
        if connection.silent:
            count_silent(self.context, connection)
        self.acceptor.closed(connection)

    def close(self) -> None:
        """Close the listeners, all connections and what the gate holds."""
        self.explicit.sign_in.close()
        self.dialler.close()
        self.acceptor.stop_accepting()
        for connection in list(self.loop.connections.values()):
            self.loop.close(connection)
        self.loop.release_closed()
        self.relay.close_pipes()
        self.loop.epoll.close()
        self.identification.close()


class GateConnections:
    """A gate's connections as a `live_review` carrier."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    def open_now(self) -> Iterator[Connection]:
        """All connections, each once, although it may be in the table by two descriptors."""
        table = self._context.loop.connections
        for descriptor in list(table):
            connection = table.get(descriptor)
            if connection is None or (descriptor == connection.server_fd and connection.client_fd in table):
                continue  # ended meanwhile, or met by its other descriptor
            yield connection

    def judge(self, one: Connection, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether a connection that is like this one would be refused now."""
        state, shown, tunnel, destination = one.state, one.shown, one.tunnel, one.destination
        undecided = isinstance(state, Reading) and tunnel is None and one.server is None
        if state is CLOSED or isinstance(state, Parting) or destination is None or undecided:
            return None
        plain = tunnel is None and self._context.identification.of(one) is None
        if plain and type(shown) is str and passes(snapshot, one.peer, shown, destination[0], at):
            return None
        arrival = self._context.arrival(one)
        seen_first = Shown(visibility=Visibility.SNI, name=shown) if isinstance(shown, str) else shown
        for seen in (None if tunnel is None else _TUNNEL, seen_first):
            admission = None if seen is None else admit(self._context.enforcer, arrival, seen)
            if admission is not None and admission.ruling.blocks:
                return admission.ruling, replace(admission.observe(), carried=octets(one.client))
        return None

    def cut(self, one: Connection) -> None:
        reset_on_close(one.client)
        if one.server is not None:
            reset_on_close(one.server)
        self._context.loop.close(one)
        self._context.loop.release_closed()
