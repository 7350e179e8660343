"""Whatever a client under a ban says first, its connection ends in something that can be told afterwards."""

import contextlib
import itertools
import socket
from collections.abc import Callable
from dataclasses import astuple, dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.test import tflow

from labs.addon_context import addon_context
from labs.builders import ban
from labs.gate_lab import DEADLINE, Origin, RunningGate, dial, policy, read_all
from labs.proxy_lab import NOW
from labs.records import Holder, Records
from tokgate.blocklog.records.record import Observer
from tokgate.evasion.attempt import Opens, Target
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.hello import hello_12, record, records, server_name
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

    def send(self, data: bytes) -> None:
        self.said.append(data)

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


names = st.sampled_from([BANNED, ALLOWED, b"a!b.clips.example.org", b"", b"192.0.2.1", b"\xff"])
attempts = st.builds(
    said,
    st.sampled_from([a.id for a in ATTEMPTS.values() if a.opens in (Opens.TLS, Opens.HTTP) and a.id != "fronting"]),
    st.sampled_from([BANNED, ALLOWED]),
)
hellos = st.builds(
    lambda name, size, version: records(hello_12(server_name(name)), size, version),
    names,
    st.sampled_from([1, 7, 16384]),
    st.sampled_from([0x0301, 0x0303, 0x0200, 0x0401, 0x1603]),
)
heads = st.builds(
    lambda method, target, version, name, end: (
        b"%b %b %b%bHost: %b%b%b" % (method, target, version, end, name, end, end)
    ),
    st.sampled_from([b"GET", b"get", b"", b"G" * 40, b"PRI"]),
    st.sampled_from([b"/", b"*", b"http://www.clips.example.org/", b"", b"x y"]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.10", b"RTSP/1.0", b"", b"HTTP/2.0", b"http/1.1"]),
    names,
    st.sampled_from([b"\r\n", b"\n", b"\r", b"\r\r\n"]),
)
prefixes = st.sampled_from(
    [b"", b"\r\n", b"\r", b" ", b"\0", record(b"\1\x70", 21), record(b"\1", 20), record(b""), b"SSH-2.0-x\r\n"]
)
whole = st.one_of(attempts, hellos, heads, st.binary(max_size=64), st.just(b"EHLO example.org\r\n"))


@st.composite
def first_bytes(draw: st.DrawFn) -> bytes:
    """Something that may be cut short, and in which an octet may be another."""
    data = bytearray(draw(prefixes) + draw(whole))
    if data and draw(st.booleans()):
        data[draw(st.integers(0, min(len(data) - 1, 600)))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, max(1, len(data))))]) if draw(st.booleans()) else bytes(data)


@dataclass(frozen=True, slots=True)
class Account:
    """All that can be told of the connections of a gate so far."""

    allowed: int
    refused: int
    handed_over: int
    counted: int
    """Ends before any decision: silence, loops, clients that leave in the middle of a word."""
    recorded: int

    @classmethod
    def of(cls, gate: RunningGate) -> "Account":
        counters = gate.gate.enforcer.counters
        verdicts = counters.decisions
        blocked = sum(number for kind, number in verdicts.items() if kind.outcome in (Verdict.BLOCK, UNREADABLE))
        return cls(
            allowed=sum(verdicts.values()) - blocked,
            refused=blocked,
            handed_over=len(gate.opener.adopted),
            counted=counters.loops + counters.timeouts + counters.unfinished,
            recorded=len(gate.sink.records),
        )

    def since(self, before: "Account") -> "Account":
        return Account(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))


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
@given(data=first_bytes().filter(bool))
@example(data=said("other-name-at-once", ALLOWED))
def run(gate: RunningGate, recorder: Recorder, data: bytes) -> None:
    """One connection from its first byte to its end, and what can be told of it."""
    recorder.arrived.clear()
    before, number = Account.of(gate), next(_clients)
    source = (f"127.9.{number >> 8 & 255}.{number & 255}", 0)
    with socket.create_connection(gate.redirected, DEADLINE, source) as client:
        client.settimeout(DEADLINE)
        client.sendall(data)
        handed = _ended(gate, client, before)
    if handed:
        gate.opener.adopted[-1][0].close()
    assert gate.settled()
    ends = Account.of(gate).since(before)
    told = ends.allowed + ends.refused + ends.handed_over + ends.counted
    assert told == 1, (ends, data[:80])
    assert (ends.refused > 0) == (ends.recorded > 0), (ends, data[:80])
    if not ends.allowed:
        assert not recorder.arrived, data[:80]


def _ended(gate: RunningGate, client: socket.socket, before: Account) -> bool:
    """End our side and hear the other out, unless somebody else has taken it over meanwhile."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
    client.settimeout(0.01)
    while len(gate.opener.adopted) == before.handed_over:
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
        before = Account.of(gate)
        with dial(gate.redirected, data) as client:
            _ended(gate, client, before)
        assert gate.settled()
        assert getattr(Account.of(gate).since(before), field) == 1


with addon_context(Proxyserver()) as _made:
    OPTIONS = _made.options


class Guarded:
    """mitmproxy's way with a redirected connection, without sockets: what is sent where, until HTTP takes over."""

    def __init__(self, enforcer: Enforcer) -> None:
        self.client = tflow.tclient_conn()
        self.client.peername = (f"127.9.{(number := next(_clients)) >> 8 & 255}.{number & 255}", 40000)
        self.context = Context(self.client, OPTIONS)
        self.context.server.address = ("203.0.113.9", 443)
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
@given(data=first_bytes().filter(bool))
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
    observer = Observer(hostname="gateway.example.org", version="test")
    run_guarded(Enforcer(Holder(snapshot), records, observer, now=lambda: NOW), records)
