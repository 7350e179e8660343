"""Whom a process with mitmproxy waits for before it ends."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from tokgate.gate.handoff import Handover
from tokgate.mitm.gate_mode import GateInstance, GateMode
from tokgate.policy.observation import Endpoint
from tokgate.service.mitmproxy_process import Drain
from tokgate.traffic.seen import Arrival


class Served(dict[str, Any]):
    """The connections that mitmproxy serves: none, and whether somebody has looked."""

    looked = False

    def values(self) -> Any:
        """Take note of it."""
        self.looked = True
        return super().values()


async def test_one_that_was_handed_over_and_has_not_had_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An opener that retires serves it as well: no other has it."""
    instance, served = GateInstance(GateMode.parse("gate"), SimpleNamespace(connections={})), Served()
    turn = asyncio.Event()
    happened: list[str] = []

    async def serve(*_: object) -> None:
        happened.append("served")

    class Servers(list[GateInstance]):
        """What mitmproxy listens with."""

        async def update(self, modes: list[object]) -> None:
            self.clear()

    monkeypatch.setattr(instance, "turns", SimpleNamespace(turn=lambda who: turn.wait()))
    monkeypatch.setattr(instance, "_serve", serve)
    servers: Any = SimpleNamespace(connections=served, servers=Servers([instance]))
    master: Any = SimpleNamespace(shutdown=lambda: happened.append("ended"))
    drain = Drain(master, servers, SimpleNamespace(), 3600.0)  # type: ignore[arg-type]
    with socket.socket() as client:
        arrival = Arrival(client=Endpoint("192.0.2.1", 50_000))
        instance.adopt(Handover(arrival, tls=False, explicit=True, received=b""), client)
        drain.retire()
        while not served.looked:
            await asyncio.sleep(0)
        assert happened == []
        turn.set()
        while "ended" not in happened:
            await asyncio.sleep(0)
    assert happened == ["served", "ended"]
