"""The QUIC of a gate over its life: it waits for its predecessor's flows, serves, and passes on what it has."""

import contextlib
import socket

import pytest

from labs.proxy_lab import ALLOWED, BANNED, policy
from labs.quic_client import QuicClient
from labs.quic_lab import KEY, SHORT, QuicGate, Sent, flow
from labs.records import Records
from tokgate.gate.quic import takeover
from tokgate.gate.quic.gate_quic import GateQuic
from tokgate.gate.quic.sockets import Datagram, Front
from tokgate.gate.quic.takeover import channel


def test_a_generation_of_gates(records: Records) -> None:
    """No flow is lost with a new policy, none that it bans goes on, and no gate reads what is another's."""
    with contextlib.ExitStack() as opened:
        ends = [opened.enter_context(end) for end in channel()]
        fronts = [Front(opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)), 8443) for _ in range(2)]
        numbers = {front.socket.fileno() for front in fronts}
        gates, sent = [QuicGate(records, policy(networks=("192.0.2.0/24",))), QuicGate(records)], [Sent(), Sent()]
        old, new = (GateQuic(gate.context, fronts, out, *ends) for gate, out in zip(gates, sent, strict=True))
        handed = ends[1].fileno()
        assert [set(gate.watched) for gate in gates] == [{handed}, {handed}]

        old.begin()
        assert set(gates[0].watched) == {handed} | numbers
        assert not old.carrier.unknown_flows_wait
        for key, name in ((KEY, ALLOWED), (flow(1), BANNED)):
            old.carrier.take(Datagram(key, data, 0, 64, 1) for data in (*QuicClient(name).flight, SHORT))
        assert 0 < old.look() < float("inf")

        new.expect()
        assert new.carrier.unknown_flows_wait
        old.carrier.stop()
        old.retire()
        assert gates[0].watched == {}
        new.begin()
        new.look()
        new.carrier.take([Datagram(KEY, SHORT, 0, 64, 1)])
        assert (sent[1].to_server, old.remains) == ([], True)
        while old.remains:
            old.look()
        gates[1].watched[handed]()
        assert sent[1].to_server == [SHORT], "what came early waited"
        new.look()
        assert (sent[1].forwarded, records.actions[-1]) == ({KEY}, "connection-cut")
        assert new.carrier.flows.passing[flow(1)].cut


def test_a_predecessor_that_was_killed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flows never come: once it has gone, packets of flows that nobody knows wait for a while, and no longer."""
    monkeypatch.setattr(takeover, "PATIENCE", 0.0)
    with contextlib.ExitStack() as opened:
        gate = GateQuic(QuicGate(records).context, [], Sent(), *(opened.enter_context(end) for end in channel()))
        gate.expect()
        gate.look()
        assert gate.carrier.unknown_flows_wait
        gate.begin()
        gate.look()
        assert not gate.carrier.unknown_flows_wait


def test_what_is_read(records: Records) -> None:
    """Each front's datagrams are read when they come, until nothing is there."""
    with contextlib.ExitStack() as opened:
        ends = [opened.enter_context(end) for end in channel()]
        front = Front(opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)), 8443)
        front.socket.bind(("127.0.0.1", 0))
        front.socket.setblocking(False)
        gate = QuicGate(records)
        quic = GateQuic(gate.context, [front], Sent(), *ends)
        quic.begin()
        opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)).sendto(SHORT, front.socket.getsockname())
        gate.watched[front.socket.fileno()]()
    assert gate.counters.loops == 1, "nobody brought it here"
