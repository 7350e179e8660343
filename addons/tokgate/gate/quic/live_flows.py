"""A gate's flows of QUIC, for `live_review`."""

from collections.abc import Iterable
from typing import Final

from whenever import Instant

from tokgate.gate.live_connections import passes
from tokgate.gate.quic.carrier import QuicCarrier
from tokgate.gate.quic.flow_table import GateFlow
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Visibility
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.admission import admit
from tokgate.traffic.live_review import Cut


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
