"""Carries out the two commonest outcomes, a plain pass and a repeated refusal, without building objects.

The result has to be that of `traffic.admission`; a property test compares them.
"""

import sys
from typing import Final

from tokgate.gate.connection import Connection
from tokgate.gate.connector import Connector, Opener
from tokgate.gate.sockets import Address
from tokgate.policy.decide import decide, is_under_block
from tokgate.policy.decision import Response, Signal, Verdict
from tokgate.policy.observation import Stage
from tokgate.policy.services import NO_MATCH
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.limits import Limits
from tokgate.traffic.second_words import after_hello
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.ech import is_ech_outer


class Shortcut(Connector):
    """A connector that takes the shortcut where it can."""

    def __init__(self, enforcer: Enforcer, opener: Opener, limits: Limits, mark: int | None) -> None:
        super().__init__(enforcer, opener, limits, mark)
        self._cells: Final = enforcer.counters.cells
        self._passed: Final = enforcer.counters.plain

    def _takes_short_way(self, connection: Connection, name: str, destination: Address, hello: ClientHello) -> bool:
        """Carry out a plain pass or a repeated refusal, as `admit` decides it; False, and nothing done, otherwise."""
        snapshot, at, peer = self.enforcer.snapshot, self._now(), connection.peer
        decision = decide(snapshot, peer, name, at)
        if is_ech_outer(hello) or snapshot.services.match(destination[0]) is not NO_MATCH:
            return False  # the address is a service's, and may be banned whatever the name is
        tunnel = connection.tunnel
        if decision.verdict is Verdict.ALLOW:
            if decision.response is not None or decision.exemption is not None:
                return False
            if tunnel is not None:
                asked = decide(snapshot, peer, tunnel.host, at, Signal.HTTP_HOST)
                if asked.verdict is not Verdict.ALLOW:
                    return False
            if is_under_block(snapshot, peer, at):
                self._watch(connection, after_hello(hello, connection.held))
            self._cells[self._passed[decision.network]] += 1
            connection.shown = sys.intern(name)  # many connections are for few names: they hold one string
            self.connect(connection, destination)
            return True
        if decision.response is not Response.REFUSE or tunnel is not None:
            return False
        if not self.enforcer.repeats(peer, name, decision, Stage.TLS, at):
            return False
        self._refuse_at_once(connection, hello)
        return True
