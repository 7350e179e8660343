"""The QUIC of a gate over its life: it waits for its predecessor's flows, serves, and passes on what it has."""

import contextlib
import pickle
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from labs.proxy_lab import ALLOWED, BANNED, policy
from labs.quic_lab import HANDSHAKE, KEY, SHORT, QuicGate, flow
from labs.quic_packets import QuicClient
from labs.records import Records
from tokgate.evasion import hello as build
from tokgate.gate.quic.carrier import MOST_EARLY, PATIENCE, RETRY, QuicCarrier, channel
from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gate.quic.sockets import Datagram, Front


def test_a_generation_of_gates(records: Records) -> None:
    """No flow is lost with a new policy, none that it bans goes on, and no gate reads what is another's."""
    with contextlib.ExitStack() as opened:
        ends = [opened.enter_context(end) for end in channel()]
        fronts = [Front(opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)), 8443) for _ in range(2)]
        numbers = {front.socket.fileno() for front in fronts}
        policies = (policy(networks=("192.0.2.0/24",)), None)
        gates = [QuicGate(records, each, fronts=fronts, ends=ends) for each in policies]
        sent = [gate.sent for gate in gates]
        old, new = (gate.carrier for gate in gates)
        handed = ends[1].fileno()
        assert [set(gate.watched) for gate in gates] == [{handed}, {handed}]

        old.begin()
        assert set(gates[0].watched) == {handed} | numbers
        assert not old.unknown_flows_wait
        for key, name in ((KEY, ALLOWED), (flow(1), BANNED)):
            old.take(Datagram(key, data, 0, 64, 1) for data in (*QuicClient(name).flight, SHORT))
        assert 0 < old.look() < float("inf")

        new.expect()
        assert new.unknown_flows_wait
        old.stop()
        old.retire()
        assert gates[0].watched == {}
        new.begin()
        new.look()
        new.take([Datagram(KEY, SHORT, 0, 64, 1)])
        assert (sent[1].to_server, old.remains) == ([], True)
        while old.remains:
            old.look()
        gates[1].watched[handed]()
        assert sent[1].to_server == [SHORT], "what came early waited"
        new.look()
        assert (sent[1].forwarded, records.actions[-1]) == ({KEY}, "connection-cut")
        assert new.flows.passing[flow(1)].cut


def test_what_is_read(records: Records) -> None:
    """Each front's datagrams are read when they come, until nothing is there."""
    with contextlib.ExitStack() as opened:
        ends = [opened.enter_context(end) for end in channel()]
        front = Front(opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)), 8443)
        front.socket.bind(("127.0.0.1", 0))
        front.socket.setblocking(False)
        gate = QuicGate(records, fronts=[front], ends=ends)
        gate.carrier.begin()
        opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)).sendto(SHORT, front.socket.getsockname())
        gate.watched[front.socket.fileno()]()
    assert gate.counters.loops == 1, "nobody brought it here"


class Place:
    """A gate's place, with gates one after another."""

    def __init__(self, records: Records) -> None:
        self._ends = channel()
        self._records = records

    def gate(self, *args: Any) -> tuple[QuicGate, QuicCarrier]:
        made = QuicGate(self._records, *args, ends=self._ends)
        return made, made.carrier

    def close(self) -> None:
        for end in self._ends:
            end.close()


@pytest.fixture
def place(records: Records) -> Iterator[Place]:
    made = Place(records)
    yield made
    made.close()


def moved(retired: QuicCarrier, heir: QuicCarrier) -> None:
    """Pass everything on."""
    retired.retire()
    while retired.remains:
        retired.look()
        heir.take_over()
    heir.take_over()


def test_a_channel_holds_up_no_gate() -> None:
    """Neither the gate that passes flows on waits in a system call, nor the one that takes them over."""
    with contextlib.ExitStack() as opened:
        assert not any(opened.enter_context(end).getblocking() for end in channel())


def test_all_go_on(place: Place) -> None:
    """Every flow that passes does so at the next gate, its kind of connections and its refusals included."""
    (old, retired), (new, heir) = place.gate(), place.gate()
    flights = [QuicClient(ALLOWED).flight for _ in range(100)]
    for number, flight in enumerate(flights):
        old.comes(*flight, key=flow(number))
    heir.expect()

    moved(retired, heir)

    assert (old.carrier.flows.passing, heir.review.judged) == ({}, 100)
    assert not new.carrier.unknown_flows_wait
    for number, flight in enumerate(flights):
        new.comes(SHORT, *flight, key=flow(number))
    assert len(new.sent.forwarded) == 100
    assert sum(new.counters.decisions.values()) == 0, "they were decided about when they began"


def test_strangers_wait_until_all_have_come(place: Place, records: Records) -> None:
    """A packet that is ahead of its flow's state waits; for some seconds, should that never come."""
    new, heir = place.gate()
    heir.expect()
    new.now += PATIENCE  # as long as the predecessor serves, nothing is read here
    heir.begin()
    heir.look()
    assert new.comes(SHORT).sent.unreachable == []

    new.now += PATIENCE
    heir.look()

    assert new.sent.unreachable == [KEY]
    assert new.comes(SHORT).sent.unreachable == [KEY] * 2


def test_flows_that_are_here_already_wait_for_no_others(place: Place) -> None:
    """However long a predecessor takes to pass its own on."""
    new, heir = place.gate()
    flight = QuicClient(ALLOWED).flight
    new.comes(*flight)
    heir.expect()
    assert new.comes(SHORT).sent.to_server == [*flight, SHORT]


def test_the_end_of_a_handshake_that_overtakes_its_flow(place: Place, records: Records) -> None:
    """Packets under the server's keys, which nobody here can read, pass once the flow is here, and are no strangers."""
    (old, retired), (new, heir) = place.gate(), place.gate()
    old.comes(*QuicClient(ALLOWED).flight)
    heir.expect()
    heir.begin()
    initial = QuicClient(ALLOWED).flight[0]
    unreadable = initial[:200] + bytes((initial[200] ^ 1,)) + initial[201:]
    new.comes(unreadable, HANDSHAKE, SHORT)
    assert (new.sent.to_server, new.sent.unreachable) == ([], [])

    moved(retired, heir)

    assert new.sent.to_server == [HANDSHAKE, SHORT]
    assert new.sent.unreachable == []
    assert records.actions == []


@pytest.mark.parametrize("name", [ALLOWED, BANNED])
def test_a_hello_of_which_a_part_had_come(place: Place, name: str) -> None:
    """Clients may repeat only what they know to be lost: what the retired gate had goes along, and is decided once."""
    (old, retired), (new, heir) = place.gate(), place.gate()
    first, *others = QuicClient(name, large=True).flight
    old.comes(first)
    assert old.carrier.flows.held > 0
    heir.expect()
    heir.begin()
    new.comes(*others)

    moved(retired, heir)

    assert new.sent.to_server == ([first, *others] if name == ALLOWED else [])
    assert len(new.sent.to_client) == (name == BANNED)
    assert sum(new.counters.decisions.values()) == 1
    assert (old.carrier.flows.held, new.carrier.flows.held) == (0, 0)


@pytest.mark.parametrize("name", [ALLOWED, BANNED])
def test_a_second_hello_of_which_a_part_had_come(place: Place, name: str) -> None:
    """A server asked for it, and waits: its connection passes already, and goes on if it names the same server."""
    (old, retired), (new, heir) = place.gate(), place.gate()
    client = QuicClient(ALLOWED)
    protocols = build.alpn(*(b"protocol-%03d" % number for number in range(20)))
    part, *others = client.again(build.hello(build.server_name(name.encode()), protocols), size=120)
    old.comes(*client.flight, part)
    assert old.sent.to_server == client.flight

    moved(retired, heir)
    assert old.carrier.flows.held == 0 < new.carrier.flows.held
    new.comes(*others)

    assert new.sent.to_server == ([part, *others] if name == ALLOWED else [])
    assert (len(new.sent.to_client) > 0) == (name == BANNED)
    assert new.carrier.flows.held == 0


def test_a_hello_that_is_too_large_stays(place: Place) -> None:
    """What does not fit a message is left: the rest goes on."""
    (old, retired), (_, heir) = place.gate(), place.gate()
    client = QuicClient(ALLOWED, large=True)
    old.comes(client.flight[0])
    (waiting,) = old.carrier.flows.undecided.values()
    assert list(old.carrier.flows.take_waiting(waiting.pending_octets - 1)) == []
    moved(retired, heir)
    assert heir.review.judged == 1


def test_more_than_can_wait_is_lost(place: Place) -> None:
    """A flood meanwhile costs no more memory than that."""
    new, heir = place.gate(None, QuicLimits(firsts_per_second=2 * MOST_EARLY, unreachables_per_second=2 * MOST_EARLY))
    heir.expect()
    new.comes(*[SHORT] * (MOST_EARLY + 1))
    heir.begin()
    new.now += PATIENCE
    heir.look()
    assert len(new.sent.unreachable) == MOST_EARLY


def test_one_that_began_again_meanwhile(place: Place) -> None:
    """A connection that came to the new gate before its flow did is judged again together with it."""
    (old, retired), (new, heir) = place.gate(), place.gate()
    old.comes(*QuicClient(ALLOWED).flight)
    new.comes(*QuicClient("mail.example.org").flight)

    moved(retired, heir)

    (found,) = new.carrier.flows.passing.values()
    assert [shown.name for shown in found.shown] == [ALLOWED, "mail.example.org"]


def test_a_channel_that_is_full(place: Place) -> None:
    """The retired gate comes back to it soon, and nothing is lost: the flows go on."""
    (old, retired), (new, heir) = place.gate(), place.gate()
    old.comes(*QuicClient(ALLOWED).flight)
    with contextlib.suppress(BlockingIOError):
        for _ in range(100_000):
            place._ends[0].send(pickle.dumps([]))
    retired.retire()
    assert (retired.look(), retired.remains) == (RETRY, True)

    moved(retired, heir)

    assert (retired.look(), retired.remains) == (float("inf"), False)
    for _ in range(10_000):
        heir.take_over()
    assert new.comes(SHORT).sent.forwarded == {KEY}


def test_nonsense_on_the_channel(place: Place) -> None:
    """What can't be read is counted, and the rest goes on."""
    new, heir = place.gate()
    place._ends[0].send(b"nonsense")

    heir.take_over()
    assert new.counters.errors["succession"] == 1
