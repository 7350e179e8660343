"""The gate: an epoll loop, its listeners, and all their connections.

A connection is in a state, which serves its events: `ProxyHeader`, `ExplicitRequest`, `TunnelMessage` or `FirstMessage`
while it is read, `Waiting`, `Connecting` and `AskingParent`, `FirstExchange`, then `Relay`; or `Parting`, once it is
refused. States decide nothing themselves: what decides is `traffic.admission`, the same as behind mitmproxy.
"""

from functools import partial
from typing import Final

from tokgate.gate.acceptor import Acceptor
from tokgate.gate.connection import Connection
from tokgate.gate.context import Context
from tokgate.gate.egress.dialler import Dialler
from tokgate.gate.event_loop import EventLoop
from tokgate.gate.explicit_clients.front import ExplicitFront
from tokgate.gate.first_message import FirstMessage, count_silent
from tokgate.gate.handoff import OpenerChannel
from tokgate.gate.identification import Identification
from tokgate.gate.relay import Relay
from tokgate.gate.sockets import Entry
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits


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
        self.explicit.close()
        self.dialler.close()
        self.acceptor.stop_accepting()
        for connection in list(self.loop.connections.values()):
            self.loop.close(connection)
        self.loop.release_closed()
        self.relay.close_pipes()
        self.loop.epoll.close()
        self.identification.close()
