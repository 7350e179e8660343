"""The limits of a gate's flows: no flood takes more memory than there may be, or pushes out others' connections."""

from collections.abc import Callable
from typing import Any

import pytest

from labs.proxy_lab import ALLOWED, BANNED
from labs.quic_lab import KEY, SHORT, QuicGate, client, flow
from labs.quic_packets import QuicClient
from labs.records import Records
from tokgate.evasion import hello as build
from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gate.quic.sockets import Key


@pytest.fixture
def gate(records: Records) -> Callable[..., QuicGate]:
    def make(**limits: Any) -> QuicGate:
        return QuicGate(records, None, QuicLimits(**limits))

    return make


def test_what_never_says_who_it_wants_to_reach(gate: Callable[..., QuicGate]) -> None:
    """A connection that is not decided about within the time of a handshake is forgotten, however often it repeats."""
    first = QuicClient(ALLOWED, large=True).flight[0]
    one = gate().comes(first).later(5).comes(first)
    assert len(one.carrier.flows.undecided) == 1

    one.later(5)

    assert (one.counters.unfinished, one.carrier.flows.undecided, one.carrier.flows.held) == (1, {}, 0)


def test_refused_flows_push_out_none_that_pass(gate: Callable[..., QuicGate]) -> None:
    """However many are refused, those that pass stay known."""
    one = gate(undecided=8).comes(*QuicClient(ALLOWED).flight)
    banned = QuicClient(BANNED).flight
    for number in range(50):
        one.comes(*banned, key=client(number))

    assert len(one.carrier.flows.undecided) == 8
    one.sent.to_server.clear()
    assert one.comes(SHORT).sent.to_server == [SHORT]


def test_flows_that_made_room_are_gone(gate: Callable[..., QuicGate]) -> None:
    """However many begin within the time of a handshake, no more of them are in memory than there may be."""
    one = gate(flows=3, per_client=2, undecided=4)
    for number in range(30):
        one.comes(*QuicClient(ALLOWED).flight, key=client(number))
        one.comes(*QuicClient(BANNED).flight, key=client(100 + number))
        one.comes(QuicClient(ALLOWED, large=True).flight[0], key=client(200 + number))
        one.comes(*QuicClient(ALLOWED).flight, key=flow(number))
    flows = one.carrier.flows
    assert set(flows._handshakes) == {*flows.passing.values(), *flows.undecided.values()}
    assert (len(flows.passing), len(flows.undecided)) == (3, 3)


def test_a_flow_that_began_again(gate: Callable[..., QuicGate]) -> None:
    """One that was forgotten to make room, and begins again, has all of its time; it is told of once."""
    half = QuicClient(ALLOWED, large=True).flight[0]
    one = gate(undecided=1).comes(half).comes(half, key=client(1)).later(5).comes(half)
    assert list(one.comes(half, half).carrier.flows._handshakes) == [one.carrier.flows.find(KEY)]
    assert list(one.later(5).carrier.flows.undecided) == [KEY]
    assert one.carrier.flows.held > 0
    assert list(one.later(5).carrier.flows.undecided) == []
    assert (one.carrier.flows.held, one.carrier.flows._held) == (0, {})


@pytest.mark.parametrize("own", [True, False], ids=["of-one-client", "of-all"])
def test_the_one_that_was_silent_for_longest_makes_room(gate: Callable[..., QuicGate], own: bool) -> None:
    """One flow too many, of a client or of all, ends the one of which nothing was heard for longest."""
    one = gate(per_client=3) if own else gate(flows=3)
    keys: list[Key] = [flow(number) if own else client(number) for number in range(4)]
    flight = QuicClient(ALLOWED).flight
    for key in keys[:3]:
        one.comes(*flight, SHORT, key=key)
    one.comes(SHORT, key=keys[0])

    one.comes(*flight, SHORT, key=keys[3])

    assert one.sent.forwarded == {keys[0], keys[2], keys[3]}
    assert set(one.carrier.flows.passing) == one.sent.forwarded


def test_addresses_of_one_subnet_are_one_client(gate: Callable[..., QuicGate]) -> None:
    """A host that takes address after address of its /64 has the share of one client."""
    one = gate(per_client=3)
    flight = QuicClient(ALLOWED).flight
    for number in range(10):
        one.comes(*flight, key=(f"2001:db8:1::{number:x}", 40000, "2001:db8:f::9", 443))

    assert len(one.carrier.flows.passing) == 3


def test_what_is_kept_of_a_connection_whose_handshake_is_over(gate: Callable[..., QuicGate]) -> None:
    """After its handshake a connection's hello is forgotten, while a late first packet of it is still told apart."""
    flight = QuicClient(ALLOWED).flight
    one = gate().comes(*flight)
    (passing,) = one.carrier.flows.passing.values()
    one.later(10).later(10)
    assert passing.settled

    one.sent.to_server.clear()
    one.comes(*flight, SHORT)

    assert one.sent.to_server == [SHORT]
    assert sum(one.counters.decisions.values()) == 1
    assert sum(each.opening.octets for each in passing._connections) == 0
    assert (one.counters.unfinished, one.counters.errors["quic"]) == (0, 0)
    one.later(5).comes(*QuicClient(ALLOWED).flight).later(5).comes(*QuicClient(ALLOWED).flight)
    assert not one.later(10).carrier.flows.passing[KEY].settled
    assert one.later(10).carrier.flows.passing[KEY].settled, "each of them in its time"


@pytest.mark.parametrize("where", [0, 1])
def test_a_flow_that_was_cut_stays_cut(gate: Callable[..., QuicGate], where: int) -> None:
    """Whichever of both gates refused it, and whatever the other one knew."""
    flight = QuicClient(ALLOWED).flight
    here, before = gates = gate().comes(*flight, SHORT), gate().comes(*flight, SHORT)
    gates[where].carrier.cut(gates[where].carrier.flows.passing[KEY])
    here.carrier.flows.adopt(before.carrier.flows.passing[KEY])
    assert here.carrier.flows.passing[KEY].cut
    here.sent.to_server.clear()
    assert here.comes(SHORT).sent.to_server == []


def test_half_a_second_hello(gate: Callable[..., QuicGate]) -> None:
    """It is forgotten as well, and what comes of it afterwards leads nowhere, for it might name somebody else."""
    client = QuicClient(ALLOWED)
    part, *others = client.again(build.hello(build.server_name(BANNED.encode())), size=40)
    one = gate().comes(*client.flight, part)
    assert one.carrier.flows.held > 0
    assert one.later(10).carrier.flows.held == 0
    assert one.comes(*others).sent.to_server == client.flight


def test_flows_that_are_over_take_nobodys_share(gate: Callable[..., QuicGate]) -> None:
    """A client that goes on for days has room for its new flows, and those do not push each other out."""
    one = gate(per_client=2)
    for first in range(0, 8, 2):
        keys = {flow(first), flow(first + 1)}
        for key in sorted(keys):
            one.comes(*QuicClient(ALLOWED).flight, SHORT, key=key)
        assert (one.sent.forwarded & keys, one.counters.errors["quic"]) == (keys, 0)
        one.later(151)


def test_each_handshake_has_its_time(gate: Callable[..., QuicGate]) -> None:
    """Of a connection that begins later in a flow no less is kept for no less long than of the first."""
    one = gate().comes(*QuicClient(ALLOWED).flight).later(10).later(10)
    (passing,) = one.carrier.flows.passing.values()
    assert not passing.began_anew
    one.later(60).comes(*QuicClient(ALLOWED, large=True).flight[:1])
    assert one.later(9).carrier.flows.held > 0
    assert one.later(1).carrier.flows.held == 0


def test_a_connection_that_begins_late_in_anothers_time(gate: Callable[..., QuicGate]) -> None:
    """A client may repeat its hello as long as its server says nothing, also when the handshake before it is over."""
    flight = QuicClient(ALLOWED).flight
    one = gate().comes(*QuicClient(ALLOWED).flight).later(9).comes(*flight).later(1)
    one.sent.to_server.clear()
    assert one.comes(*flight).sent.to_server == flight


@pytest.mark.parametrize("passes", [True, False])
def test_half_a_hello_of_another_gates(gate: Callable[..., QuicGate], passes: bool) -> None:
    """What came of it is counted here, and has the time of a handshake, as if it had begun here."""
    before, here = gate(), gate()
    if passes:
        before.comes(*QuicClient(ALLOWED).flight).later(10).later(10)
    before.comes(*QuicClient(ALLOWED, large=True).flight[:1])
    held = before.carrier.flows.held
    (moved,) = before.carrier.flows.take_waiting(1 << 20)
    assert (before.carrier.flows.held, before.carrier.flows.find(KEY)) == (0, None)
    assert before.carrier.flows._held == {}
    here.now = before.now
    here.carrier.flows.adopt(moved)
    assert here.carrier.flows.held == held > 0
    assert here.carrier.flows.find(KEY) is moved
    assert here.later(9).carrier.flows.held == held
    assert here.later(1).carrier.flows.held == 0
    assert set(here.carrier.flows.passing) == ({KEY} if passes else set())


def test_what_had_come_of_a_flow_that_another_gate_passes_on(gate: Callable[..., QuicGate]) -> None:
    """Half a hello between the same ports is given up: what passes there is known now."""
    before, here = gate().comes(*QuicClient(ALLOWED).flight, SHORT), gate()
    here.comes(QuicClient(ALLOWED, large=True).flight[0])
    assert here.carrier.flows.held > 0
    here.carrier.flows.adopt(before.carrier.flows.passing[KEY])
    assert (here.carrier.flows.held, here.carrier.flows.undecided) == (0, {})
    assert here.comes(SHORT).sent.forwarded == {KEY}


@pytest.mark.parametrize("limit", ["held_per_client", "held"])
def test_one_hello_too_many(gate: Callable[..., QuicGate], limit: str) -> None:
    """What is beyond a client's share, or that of all, is forgotten, and counted once; the share itself is not."""
    first = QuicClient(ALLOWED, large=True).flight[0]
    share = gate().comes(first).carrier.flows.held
    for less, counted in ((0, 0), (1, 1)):
        one = gate(**{limit: share - less}).comes(first)
        assert (one.counters.at_limit, one.carrier.flows.held) == (counted, 0 if counted else share)
