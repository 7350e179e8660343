"""The end of a gate's process."""

import os
import socket
import traceback
from typing import Any

import pytest

from labs.gate_lab import policy
from tokgate.blocklog.records.record import Observer
from tokgate.blocklog.write import channel
from tokgate.gate import handoff
from tokgate.gate.acceptor import AcceptingGates
from tokgate.service import gate_process
from tokgate.service.gate_process import GateProcess, Inheritance
from tokgate.traffic.counters import SharedCounters
from tokgate.traffic.limits import Limits
from tokgate.traffic.warning_state import WarnedClients


class Review:
    """Has something left to tell whenever the gate ends, as after a cut of very many connections."""

    judged = 0

    def __init__(self, enforcer: Any, _: object) -> None:
        self._enforcer = enforcer

    def look(self) -> float:
        """It had no turn."""
        return 1.0

    def close(self) -> None:
        """Tell all that is left."""
        self._enforcer.failed("the last", RuntimeError("told"))


def test_what_a_gate_has_left_to_tell_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that were cut just before the end have their records as well."""
    monkeypatch.setattr(gate_process, "LiveReview", Review)
    sends, records = channel.channel()
    ends = [*handoff.channel(), *handoff.channel(), *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    lifeline, supervisor = os.pipe()
    os.close(supervisor)  # so that it ends, having nobody to serve
    child = os.fork()
    if not child:
        given = Inheritance(
            snapshot=policy(),
            listeners=(),
            records=sends,
            openers=ends[0],
            transfer_out=ends[2],
            transfer_in=ends[3],
            reports=ends[4],
            lifeline=lifeline,
            observer=Observer(hostname="gate.example.org", version="test"),
            shared=SharedCounters(),
            limits=Limits(),
            drain=0.0,
            warned=WarnedClients(),
            accepting=AcceptingGates(1),
            slot=0,
        )
        code = 1
        try:
            GateProcess(given).run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    sends.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    told = []
    while (record := channel.receive(records)) is not None:
        told.append(record["error"]["message"])
    assert any("told" in each for each in told)
    for end in (*ends, records):
        end.close()
    os.close(lifeline)
