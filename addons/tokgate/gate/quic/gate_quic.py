"""The QUIC of a gate in a process of its own: carried, judged again while it lasts, and passed on to the next gate."""

import socket
from collections.abc import Iterable, Sequence
from typing import Final

from whenever import Instant

from tokgate.gate.context import Context
from tokgate.gate.live_connections import passes
from tokgate.gate.quic.carrier import QuicCarrier
from tokgate.gate.quic.flow_table import GateFlow
from tokgate.gate.quic.sockets import Front, Outlets
from tokgate.gate.quic.takeover import FlowTransfer
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Visibility
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.live_review import Cut, LiveReview


class GateQuic:
    """The parts of a gate for QUIC: its carrier, the review of open flows, and their transfer between generations."""

    def __init__(
        self,
        context: Context,
        fronts: Sequence[Front],
        outlets: Outlets,
        transfer_out: socket.socket,
        transfer_in: socket.socket,
    ) -> None:
        """`transfer_out` and `transfer_in` are the ends of `takeover.channel`."""
        self.carrier: Final = QuicCarrier(context, fronts, outlets)
        self.review: Final[LiveReview[GateFlow]] = LiveReview(context.enforcer, LiveFlows(self.carrier))
        self._transfer: Final = FlowTransfer(self.carrier, transfer_out, transfer_in)
        self._context: Final = context
        self._retired = False
        context.loop.call_back(self._transfer.descriptor, self._take_over)

    def expect(self) -> None:
        """The flows of the gate before this one will come."""
        self._transfer.expect()

    def begin(self) -> None:
        """Read from the sockets from now on: the gate before has retired."""
        self._transfer.begin()
        self.carrier.begin()

    def look(self) -> float:
        """Do what is due; the seconds until the next call."""
        if self._retired:
            return self._transfer.pass_on()
        self.carrier.look()
        self._transfer.look()
        return self.review.look()

    def retire(self) -> None:
        """Take nothing over any more, and pass flows on with each `look`."""
        self._retired = True
        self._context.loop.call_no_more(self._transfer.descriptor)

    @property
    def remains(self) -> bool:
        """Whether flows are still to be passed on."""
        return not self._transfer.done

    def _take_over(self) -> None:
        for flow in self._transfer.take():
            self.review.examine(flow)
        self.carrier.resume()


class LiveFlows:
    """A gate's flows as a `live_review` carrier. What the kernel forwards is counted nowhere."""

    def __init__(self, quic: QuicCarrier) -> None:
        self._quic: Final = quic

    def open_now(self) -> Iterable[GateFlow]:
        """The flows that pass, those included that the kernel forwards."""
        return list(self._quic.flows.passing.values())

    def judge(self, one: GateFlow, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether any connection in it would be refused now."""
        if one.cut or self._quic.flows.passing.get(one.key) is not one:
            return None
        host, _, server, _ = one.key
        for shown in one.shown:
            plain = shown.visibility is Visibility.QUIC_SNI and shown.legible is None and one.identity is None
            if plain and shown.name and passes(snapshot, host, shown.name, server, at, Signal.QUIC_SNI):
                continue
            admission = admit(self._quic.enforcer, one.arrival(), shown)
            if admission.ruling.blocks:
                return admission.ruling, admission.observe()
        return None

    def cut(self, one: GateFlow) -> None:
        self._quic.cut(one)
