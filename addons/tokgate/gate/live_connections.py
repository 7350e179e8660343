"""A gate's open connections, for `live_review`."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from whenever import Instant

from tokgate.gate.connection import CLOSED, Connection
from tokgate.gate.context import Context, Parting, Reading
from tokgate.gate.sockets import octets, reset_on_close
from tokgate.policy.decide import decide
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.observation import Visibility
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.live_review import Cut
from tokgate.traffic.seen import Shown

_TUNNEL: Final = Shown(visibility=Visibility.ADDRESS)
"""What is known of a tunnel besides what it carries: the host that was asked for, and its address."""


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


def passes(snapshot: Snapshot, client: str, name: str, address: str, at: Instant, signal: Signal = Signal.SNI) -> bool:
    """The quick way for nearly all: neither the name nor the address of a plain connection is blocked."""
    return (
        decide(snapshot, client, name, at, signal).verdict is not Verdict.BLOCK
        and decide(snapshot, client, address, at, Signal.ADDRESS).verdict is not Verdict.BLOCK
    )
