"""Whatever a client under a ban says first, its connection ends in something that can be told afterwards."""

import contextlib
import itertools
import socket
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.test import tflow

from evasion.fuzz import KINDS
from labs.addon_context import addon_context
from labs.builders import ban
from labs.gate_lab import DEADLINE, Origin, RunningGate, dial, policy, read_all
from labs.proxy_lab import NOW
from labs.records import Records, enforcer_of
from tokgate.evasion.attempt import Opens, Target
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.hello import hello_12, records, server_name
from tokgate.mitm.client_connection import ClientConnections
from tokgate.mitm.layers.first_bytes import FirstBytesLayer
from tokgate.mitm.layers.http import HttpConnectionLayer
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.policy.decision import Verdict
from tokgate.policy.settings import MissingSni
from tokgate.traffic.counters import UNREADABLE
from tokgate.traffic.enforcer import Enforcer

BANNED, ALLOWED = b"www.clips.example.org", b"www.example.org"
_clients = itertools.count(1)


class Scripted:
    """A stream that keeps what an attempt says, and answers nothing."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.send = self.said.append

    def end(self) -> None:
        """Nothing ends."""

    def receive(self) -> bytes:
        return b""


def said(attempt: str, name: bytes) -> bytes:
    """What an attempt sends before anything is answered."""
    stream = Scripted()
    with contextlib.suppress(Exception):
        ATTEMPTS[attempt].play(stream, Target(name.decode(), "192.0.2.1", 443))
    return b"".join(stream.said)


attempts = st.builds(
    said,
    st.sampled_from([a.id for a in ATTEMPTS.values() if a.opens in (Opens.TLS, Opens.HTTP) and a.id != "fronting"]),
    st.sampled_from([BANNED, ALLOWED]),
)
made_up = st.builds(lambda kind, random: kind.draw(random), st.sampled_from(KINDS), st.randoms(use_true_random=False))
whole = st.one_of(attempts, made_up, st.binary(max_size=64), st.just(b"EHLO example.org\r\n")).filter(
    lambda data: data and b"CONNECT " not in data  # to a proxy: what the tunnel carries is counted
)


@st.composite
def first_bytes(draw: st.DrawFn) -> bytes:
    """Something that may be cut short, and in which an octet may be another."""
    data = bytearray(draw(whole))
    if draw(st.booleans()):
        data[draw(st.integers(0, min(len(data) - 1, 600)))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, len(data)))]) if draw(st.booleans()) else bytes(data)


def account(gate: RunningGate) -> Counter[str]:
    """All that can be told of the connections of a gate so far."""
    counters = gate.gate.enforcer.counters
    refused = sum(n for kind, n in counters.decisions.items() if kind.outcome in (Verdict.BLOCK, UNREADABLE))
    return Counter(
        allowed=sum(counters.decisions.values()) - refused,
        refused=refused,
        handed_over=len(gate.opener.adopted),
        ended_before=counters.loops + counters.timeouts + counters.unfinished,
        recorded=len(gate.sink.records),
    )


class Recorder:
    """An origin that keeps what arrives, and answers once: what a client under a ban says next may wait for that."""

    def __init__(self) -> None:
        self.arrived = bytearray()

    def __call__(self, client: socket.socket) -> None:
        self.arrived += client.recv(65536)
        client.sendall(b"HTTP/1.1 400 \r\n\r\n")
        self.arrived += read_all(client)


@pytest.fixture
def lab(start_gate: Callable[..., RunningGate], start_origin: Callable[..., Origin]) -> tuple[RunningGate, Recorder]:
    """A gate for clients that are all under a ban, where a hello without a name is refused."""
    recorder = Recorder()
    snapshot = policy(ban(networks=("loop",)), missing_sni=MissingSni.BLOCK)
    return start_gate(start_origin(recorder), snapshot), recorder


@settings(max_examples=400)
@given(data=first_bytes())
@example(data=said("other-name-at-once", ALLOWED))
def run(gate: RunningGate, recorder: Recorder, data: bytes) -> None:
    """One connection from its first byte to its end, and what can be told of it."""
    recorder.arrived.clear()
    before, number = account(gate), next(_clients)
    source = (f"127.9.{number >> 8 & 255}.{number & 255}", 0)
    with socket.create_connection(gate.redirected, DEADLINE, source) as client:
        client.settimeout(DEADLINE)
        client.sendall(data)
        handed = _ended(gate, client, before)
    if handed:
        gate.opener.adopted[-1][0].close()
    assert gate.settled()
    ends = account(gate) - before
    assert ends.total() - ends["recorded"] == 1, (ends, data[:80])
    assert (ends["refused"] > 0) == (ends["recorded"] > 0), (ends, data[:80])
    if not ends["allowed"]:
        assert not recorder.arrived, data[:80]


def _ended(gate: RunningGate, client: socket.socket, before: Counter[str]) -> bool:
    """End our side and hear the other out, unless somebody else has taken it over meanwhile."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
    client.settimeout(0.01)
    while len(gate.opener.adopted) == before["handed_over"]:
        try:
            if not client.recv(65536):
                return False
        except TimeoutError:
            continue
        except OSError:
            return False
    return True


def test_every_connection_can_be_accounted_for(lab: tuple[RunningGate, Recorder]) -> None:
    """It passed and was counted, was refused with a record, was handed to who reads HTTP, or ended in a counter."""
    gate, recorder = lab
    run(gate, recorder)


def test_the_account_notices(lab: tuple[RunningGate, Recorder]) -> None:
    """The control: an allowed name is a pass, a banned one a refusal with a record, HTTP is handed over."""
    gate, _ = lab
    for data, field in (
        (records(hello_12(server_name(ALLOWED))), "allowed"),
        (records(hello_12(server_name(BANNED))), "refused"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "handed_over"),
    ):
        before = account(gate)
        with dial(gate.redirected, data) as client:
            _ended(gate, client, before)
        assert gate.settled()
        assert (account(gate) - before)[field] == 1


with addon_context(Proxyserver()) as _made:
    OPTIONS = _made.options


class Guarded:
    """mitmproxy's way with a redirected connection, without sockets: what is sent where, until HTTP takes over."""

    def __init__(self, enforcer: Enforcer) -> None:
        self.client = tflow.tclient_conn()
        self.client.peername = (f"127.9.{(number := next(_clients)) >> 8 & 255}.{number & 255}", 40000)
        self.context = Context(self.client, OPTIONS)
        self.context.server.address = ("198.51.100.9", 443)
        visit = ClientConnections().begin(self.client, ClientSockets(None))
        self.to_server = b""
        self._layer = FirstBytesLayer(self.context, enforcer, visit, tunnelled=False)
        self._run(events.Start())

    def says(self, data: bytes) -> None:
        self._run(events.DataReceived(self.client, data))
        self.client.state &= ~ConnectionState.CAN_READ
        self._run(events.ConnectionClosed(self.client))

    @property
    def handed_over(self) -> bool:
        """Whether it is HTTP, in which each request is decided."""
        return isinstance(getattr(self._layer._handle_event, "__self__", None), HttpConnectionLayer)

    def _run(self, event: events.Event) -> None:
        for command in self._layer.handle_event(event):
            match command:
                case commands.SendData() if command.connection is self.context.server:
                    self.to_server += command.data
                case commands.OpenConnection():
                    command.connection.state = ConnectionState.OPEN
                    self._run(events.OpenConnectionCompleted(command, None))


@settings(max_examples=300)
@given(data=first_bytes())
def run_guarded(enforcer: Enforcer, records: Records, data: bytes) -> None:
    """The same account of a connection that mitmproxy carries."""
    counters = enforcer.counters
    before, recorded, unfinished = sum(counters.decisions.values()), len(records.all), counters.unfinished
    connection = Guarded(enforcer)
    connection.says(data)
    decided = sum(counters.decisions.values()) - before
    left = counters.unfinished - unfinished
    assert decided + left + connection.handed_over == 1, (decided, left, connection.handed_over, data[:80])
    if len(records.all) > recorded or left:
        assert not connection.to_server, data[:80]


def test_every_connection_through_mitmproxy_can_be_accounted_for(records: Records) -> None:
    """So can those that no gate has seen."""
    snapshot = policy(ban(networks=("loop",)), missing_sni=MissingSni.BLOCK)
    run_guarded(enforcer_of(snapshot, records, now=lambda: NOW), records)
