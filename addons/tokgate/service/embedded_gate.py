"""A gate on mitmproxy's event loop, for a single process: a laptop, or tests. The gate's code is the same."""
# mypy: disallow-untyped-calls=False

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from mitmproxy import exceptions

from tokgate.gate.connection import Connection
from tokgate.gate.gate import Gate
from tokgate.gate.handoff import Handover
from tokgate.gate.identifying_gate import IdentifyingGate
from tokgate.gate.live_connections import GateConnections
from tokgate.gate.quic.carrier import QuicCarrier
from tokgate.gate.quic.flow_table import GateFlow
from tokgate.gate.quic.live_flows import LiveFlows
from tokgate.gate.quic.sockets import QuicSockets
from tokgate.mitm.addon import Tokgate
from tokgate.mitm.gate_mode import GateInstance
from tokgate.service.endpoints import ListenEndpoint
from tokgate.service.listeners import announce, open_listeners, open_quic
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.limits import Limits
from tokgate.traffic.live_review import LiveReview

TICK: Final = 0.5
"""Seconds between two checks of deadlines."""


class LocalGate:
    """An addon that runs a gate. Connections to be opened are handed to mitmproxy in the same process."""

    def __init__(
        self,
        tokgate: Tokgate,
        endpoints: Sequence[ListenEndpoint],
        say: Callable[[str], None],
        *,
        limits: Limits | None = None,
        mark: int | None = None,
    ) -> None:
        self.gate: Gate | None = None
        self._tokgate: Final = tokgate
        self._endpoints: Final = endpoints
        self._say: Final = say
        self._limits: Final = limits
        self._mark: Final = mark
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.Handle | None = None
        self._review: LiveReview[Connection] | None = None
        self._quic_sockets: QuicSockets | None = None
        self._quic: QuicCarrier | None = None
        self._quic_review: LiveReview[GateFlow] | None = None
        self._next_look: asyncio.Handle | None = None

    def running(self) -> None:
        """Listen, and serve when epoll reports events: an epoll descriptor can itself be watched."""
        if not self._tokgate.traffic.is_configured:
            return
        enforcer = self._tokgate.traffic.enforcer
        gate = self.gate = IdentifyingGate(enforcer, self, self._limits, self._mark)  # a later policy may authenticate
        try:
            listeners = open_listeners(self._endpoints)
        except OSError as error:
            raise exceptions.OptionsError(f"can't listen: {error.strerror}") from error
        for listener in listeners:
            gate.add_listener(listener)
        quic = self._quic_sockets = open_quic(listeners, 1)
        if quic is not None:
            self._quic = QuicCarrier(gate, quic.fronts[0], quic.outlets)
            self._quic.begin()
            self._quic_review = LiveReview(enforcer, LiveFlows(self._quic))
        announce(listeners, enforcer.snapshot, self._say, quic)
        loop = asyncio.get_running_loop()
        loop.add_reader(gate.epoll.fileno(), self._serve)
        self._task = loop.create_task(self._housekeep(gate))
        self._review = LiveReview(enforcer, GateConnections(gate))
        self._look(self._review)

    def adopt(self, client: Any, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Hand a duplicate of a client's socket to mitmproxy; False if there is no mitmproxy or no descriptor left."""
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
        if self.gate is not None:
            self.gate.stop_accepting()
        if self._quic is not None:
            self._quic.stop()

    @property
    def open_connections(self) -> int:
        """The number of connections that the gate relays."""
        return self.gate.open_connections if self.gate is not None else 0

    def done(self) -> None:
        gate, self.gate = self.gate, None
        if gate is None:
            return
        asyncio.get_running_loop().remove_reader(gate.epoll.fileno())
        if self._task is not None:
            self._task.cancel()
        for handle in (self._again, self._next_look):
            if handle is not None:
                handle.cancel()
        for review in (self._review, self._quic_review):
            if review is not None:
                review.close()
        gate.close_all()
        if self._quic_sockets is not None:
            self._quic_sockets.close()

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

    def _look(self, review: LiveReview[Connection]) -> None:
        pause = review.look()
        if self.gate is not None:
            self.gate.limit(self.gate.enforcer.snapshot.settings.limits)
        if self._quic_review is not None:
            pause = min(pause, self._quic_review.look())
        self._next_look = asyncio.get_running_loop().call_later(pause, self._look, review)

    async def _housekeep(self, gate: Gate) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._serve()  # deadlines pass without any event
            if self._quic is not None:
                self._quic.look()
