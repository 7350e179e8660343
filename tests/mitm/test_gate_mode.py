"""Connections that gates hand over: how many of one client an opener takes."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver

from labs.addon_context import addon_context
from labs.gate_lab import broken_off
from labs.gate_steps import pair
from tokgate.gate.handoff import Handover
from tokgate.mitm.gate_mode import GateInstance, GateMode
from tokgate.mitm.hooks.connection import TurnHooks
from tokgate.mitm.hooks.traffic import ProxyContext, Traffic
from tokgate.mitm.layers.fair_turns import Turns
from tokgate.policy.observation import Endpoint
from tokgate.traffic.counters import Counters
from tokgate.traffic.limits import OpenerLimits
from tokgate.traffic.seen import Arrival


@pytest.fixture
def instance(monkeypatch: pytest.MonkeyPatch) -> GateInstance:
    """An opener's end that serves nobody yet."""
    monkeypatch.setattr(GateInstance, "limits", OpenerLimits(connections=3, per_client=2))
    monkeypatch.setattr(GateInstance, "counters", Counters())
    made = GateInstance(GateMode.parse("gate"), SimpleNamespace(connections={}))
    monkeypatch.setattr(made, "turns", SimpleNamespace(turn=lambda who: asyncio.Event().wait()))
    return made


@pytest.fixture
def connected() -> Iterator[Any]:
    ends: list[socket.socket] = []

    def connect() -> tuple[socket.socket, socket.socket]:
        ends.extend(made := pair())
        return made

    yield connect
    for end in ends:
        end.close()


def from_client(address: str) -> Handover:
    return Handover(Arrival(client=Endpoint(address, 50_000)), tls=True, explicit=False, received=b"")


async def test_a_client_has_its_share_of_an_opener(instance: GateInstance, connected: Any) -> None:
    """Ten thousand idle connections of one client, or of many, would leave no page for anybody else."""
    for address in ("2001:db8::1", "2001:db8::2"):
        instance.adopt(from_client(address), connected()[1])
    near, far = connected()
    instance.adopt(from_client("2001:db8::3"), far)
    assert broken_off(near)
    instance.adopt(from_client("192.0.2.1"), connected()[1])
    near, far = connected()
    instance.adopt(from_client("192.0.2.9"), far)
    assert broken_off(near)
    assert dict(instance.clients) == {"2001:db8::/64": 2, "192.0.2.1": 1}
    assert instance.counters is not None
    assert instance.counters.at_limit == 2


class CountedTurns(Turns):
    """Turns, and how many a client has asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def turn(self, client: str, *, first: bool = False) -> None:
        self.asked += 1
        await super().turn(client, first=first)


class Failing:
    """An addon that fails: the others are asked all the same."""

    def client_connected(self, client: object) -> None:
        """Raise."""
        raise RuntimeError

    next_layer = client_disconnected = client_connected


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize(
    ("received", "later", "turns_asked"), [(b"GET / NONE\r\n\r\n", b"", 1), (b"GET /", b" NONE\r\n\r\n", 2)]
)
async def test_what_the_gate_has_read_takes_no_turn_of_its_own(
    received: bytes, later: bytes, turns_asked: int, eager: bool, connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a busy client each turn is a wait for one of its pages; only what comes later waits once more.

    Also where each hook has to wait, since tasks aren't `eager`.
    """
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory if eager else None)
    near, far = connected()
    near.setblocking(False)
    traffic, handlers = Traffic(), dict[Any, Any]()
    traffic.context = ProxyContext(connections=lambda: handlers)

    @contextlib.contextmanager
    def register(name: str, handler: Any) -> Iterator[None]:
        handlers[name] = handler
        yield

    with addon_context(Proxyserver(), Failing(), NextLayer(), TurnHooks(traffic)):
        connections = SimpleNamespace(connections={}, register_connection=register)
        instance, turns = GateInstance(GateMode.parse("gate"), connections), CountedTurns()
        monkeypatch.setattr(traffic, "turns", turns)
        monkeypatch.setattr(GateInstance, "turns", turns)
        arrival = Arrival(client=Endpoint("192.0.2.1", 50_000))
        async with asyncio.timeout(20):
            instance.adopt(Handover(arrival, tls=False, explicit=True, received=received), far)
            while not instance.handed:
                await asyncio.sleep(0)
            await asyncio.get_running_loop().sock_sendall(near, later)
            assert b" 400 " in await asyncio.get_running_loop().sock_recv(near, 4096)
            while instance.clients:
                await asyncio.sleep(0)
    assert turns.asked == turns_asked
