"""A gate that finds out who its clients are."""

import pytest

from labs.gate_lab import Adopter, Sink
from labs.gate_steps import POLICY
from labs.records import Holder
from tokgate.blocklog.records.record import Observer
from tokgate.gate.client_link import Links
from tokgate.gate.identifying_gate import IdentifyingGate
from tokgate.traffic.enforcer import Enforcer


def test_what_it_asks_the_kernel_by_is_closed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates come and go with policies in one process, and each has a socket of its own for that."""
    closed: list[Links] = []
    monkeypatch.setattr(Links, "close", lambda self: closed.append(self))
    gate = IdentifyingGate(Enforcer(Holder(POLICY), Sink(), Observer(hostname="gw", version="0")), Adopter())
    gate.close_all()
    assert len(closed) == 1
