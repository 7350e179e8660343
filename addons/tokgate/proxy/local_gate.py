"""A gate on mitmproxy's own event loop: one process for a laptop and for tests, from the same code as many."""
# mypy: disallow-untyped-calls=False

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from mitmproxy import exceptions

from tokgate.gate.admission import Arrival
from tokgate.gate.connection import Connection
from tokgate.gate.counters import AT_LIMIT
from tokgate.gate.endpoints import Endpoint
from tokgate.gate.gate import Gate, Limits
from tokgate.gate.handover import Handover
from tokgate.gate.identifying import IdentifyingGate
from tokgate.gate.listening import announce, open_listeners
from tokgate.gate.live import GateConnections, Review
from tokgate.proxy.addon import Tokgate
from tokgate.proxy.adoption import GateInstance

TICK: Final = 0.5
"""Seconds between two rounds of housekeeping."""


class LocalGate:
    """An addon that runs a gate. What it must open it hands to the proxy around it."""

    def __init__(
        self,
        tokgate: Tokgate,
        endpoints: Sequence[Endpoint],
        say: Callable[[str], None],
        *,
        limits: Limits | None = None,
        mark: int | None = None,
    ) -> None:
        """Nothing is opened before mitmproxy runs."""
        self.gate: Gate | None = None
        self._tokgate: Final = tokgate
        self._endpoints: Final = endpoints
        self._say: Final = say
        self._limits: Final = limits
        self._mark: Final = mark
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.Handle | None = None
        self._review: Review[Connection] | None = None
        self._next_look: asyncio.Handle | None = None

    def running(self) -> None:
        """Listen, and serve whenever epoll says so: an epoll is itself a descriptor that can be watched."""
        enforcer = self._tokgate.traffic.enforcer
        if enforcer is None:
            return
        gate = self.gate = IdentifyingGate(enforcer, self, self._limits, self._mark)  # a later policy may want it
        try:
            listeners = open_listeners(self._endpoints)
        except OSError as error:
            raise exceptions.OptionsError(f"can't listen: {error.strerror}") from error
        for listener in listeners:
            gate.add_listener(listener)
        announce(listeners, enforcer.snapshot, self._say)
        loop = asyncio.get_running_loop()
        loop.add_reader(gate.epoll.fileno(), self._serve)
        self._task = loop.create_task(self._housekeep(gate))
        self._review = Review(enforcer, GateConnections(gate))
        self._look(self._review)

    def adopt(self, client: Any, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Give a connection to the proxy; the gate closes its own descriptor."""
        instance = GateInstance.running
        if instance is None:
            return False
        try:
            ours = socket.socket(fileno=socket.dup(client.fileno()))
        except OSError:  # no descriptor is left
            return False
        instance.adopt(Handover(arrival, tls, explicit, received), ours)
        return True

    def stop_accepting(self) -> None:
        """Take no new connections."""
        if self.gate is not None:
            self.gate.stop_accepting()

    @property
    def open_connections(self) -> int:
        """Connections that the gate relays."""
        return self.gate.open_connections if self.gate is not None else 0

    def done(self) -> None:
        """Close everything."""
        gate, self.gate = self.gate, None
        if gate is None:
            return
        asyncio.get_running_loop().remove_reader(gate.epoll.fileno())
        if self._task is not None:
            self._task.cancel()
        for handle in (self._again, self._next_look):
            if handle is not None:
                handle.cancel()
        if self._review is not None:
            self._review.close()
        gate.close_all()

    def _serve(self) -> None:
        self._again = None
        gate = self.gate
        if gate is None:
            return
        try:
            gate.once(0)
        except Exception as error:  # a bug costs one connection its deadline, not all of them their gate
            gate.enforcer.failed("gate", error)
        if gate.bulk and self._again is None:
            self._again = asyncio.get_running_loop().call_soon(self._serve)

    def _look(self, review: Review[Connection]) -> None:
        pause = review.look()
        self._next_look = asyncio.get_running_loop().call_later(pause, self._look, review)

    async def _housekeep(self, gate: Gate) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._serve()  # deadlines pass without any event
            gate.enforcer.counters.put(AT_LIMIT, gate.refused_at_limit)
