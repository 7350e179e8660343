"""QUIC in a gate: what passes on to the server and into the kernel's set, and what does not."""

from collections.abc import Callable
from typing import Any

import pytest

from labs.builders import ban, service, snapshot
from labs.proxy_lab import ALLOWED, BANNED, policy
from labs.quic_lab import EARLY, HANDSHAKE, KEY, SHORT, QuicGate, client, flow
from labs.quic_packets import QuicClient, initial
from labs.records import Records
from tokgate.gate.quic.carrier import LATE, QuicCarrier
from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gate.quic.sockets import Datagram
from tokgate.policy.membership import Identity
from tokgate.policy.networks import Network
from tokgate.traffic import quic_flow
from tokgate.traffic.live_review import LiveReview

OTHERS = ("192.0.2.0/24",)
"""A ban of somebody else's."""


@pytest.fixture
def gate(records: Records) -> Callable[..., QuicGate]:
    def make(*args: Any, **options: Any) -> QuicGate:
        return QuicGate(records, *args, **options)

    return make


@pytest.mark.parametrize("large", [False, True])
def test_allowed(gate: Callable[..., QuicGate], records: Records, large: bool) -> None:
    """An allowed connection passes as it came, and the kernel forwards its flow from then on."""
    flight = QuicClient(ALLOWED, large=large).flight
    one = gate().comes(*flight[:-1])
    assert (one.sent.to_server, one.sent.forwarded) == ([], set())

    one.comes(flight[-1], HANDSHAKE)
    assert one.sent.forwarded == set(), "the kernel would overtake the handshake"
    one.comes(SHORT)

    assert one.sent.to_server == [*flight, HANDSHAKE, SHORT]
    assert one.sent.forwarded == {KEY}
    assert records.all == []


def test_packets_that_overtake_the_first(gate: Callable[..., QuicGate], records: Records) -> None:
    """Early data that comes before the hello is lost, as on any network, and refuses nothing."""
    flight = QuicClient(ALLOWED).flight
    one = gate().comes(EARLY, HANDSHAKE, *flight)

    assert (one.sent.to_server, one.sent.unreachable, records.all) == (flight, [], [])


def test_what_begins_nowhere(gate: Callable[..., QuicGate], records: Records) -> None:
    """A client whose gate was killed in its handshake is told after a while: no server ever answers it."""
    flight = QuicClient(ALLOWED).flight
    strange = flight[0][:6] + bytes(each ^ 1 for each in flight[0][6:8]) + flight[0][8:]  # keys that nobody has seen
    one = gate()
    for packets in ((HANDSHAKE,), (strange,), (strange, HANDSHAKE)):
        one.comes(*packets).later(LATE / 2).comes(*packets)
        assert one.sent.unreachable == []
        one.later(LATE / 2).comes(*packets)
        assert one.sent.unreachable == [KEY] * len(packets)
        one.later(QuicLimits().handshake + 1)
        one.sent.unreachable.clear()
    assert (one.comes(*flight).sent.to_server, records.all) == (flight, [])


def test_a_flood_of_what_begins_nowhere(gate: Callable[..., QuicGate]) -> None:
    """It takes no more memory than other flows about which nothing is decided."""
    one = gate(limits=QuicLimits(undecided=10))
    for number in range(20):
        one.comes(HANDSHAKE, key=flow(number))
    assert len(one.carrier._ahead) == 10


def test_a_flow_that_was_cut_and_goes_on(gate: Callable[..., QuicGate]) -> None:
    """It stays refused for as long as its client sends: were it forgotten, it would be taken for a new one."""
    one = gate().comes(*QuicClient(ALLOWED).flight, SHORT)
    (cut,) = one.carrier.flows.passing.values()
    one.carrier.cut(cut)
    for _ in range(3):
        one.later(QuicLimits().idle - 1).comes(SHORT)
        assert one.carrier.flows.find(KEY) is cut


@pytest.mark.parametrize("data", [SHORT, b"", b"\x01", b"\xc0\xff\x00\x00\x1d" + bytes(1195)], ids=len)
def test_what_is_not_understood(gate: Callable[..., QuicGate], records: Records, data: bytes) -> None:
    """Of clients under a ban it is refused, and recorded once; others' passes."""
    one = gate().comes(data, data)
    assert (one.sent.to_server, one.sent.unreachable) == ([], [KEY, KEY])
    assert [record["tokgate"]["reason"] for record in records.all] == ["unreadable"]
    assert records.actions == ["unreadable-refused"]

    other = gate(policy(networks=OTHERS)).comes(data, SHORT, HANDSHAKE)
    assert (other.sent.to_server, other.sent.forwarded) == ([data, SHORT, HANDSHAKE], {KEY})


JUNK = b"\xe0\0\0\0\1\0\0\5junk!"
"""A packet that is too short to be read, and that servers skip."""


def test_packets_behind_what_can_not_be_read(gate: Callable[..., QuicGate], records: Records) -> None:
    """What a server may find there passes neither first, nor in a flow that passes, nor held until an allowed name."""
    hidden, allowed = JUNK + QuicClient(BANNED).flight[0], QuicClient(ALLOWED).flight
    for before in ([], [initial(b"\1")], allowed):
        one = gate().comes(*before, hidden, initial(b"\1") + hidden, *allowed)
        assert one.sent.to_server == (allowed * 2 if before == allowed else allowed)
    assert [record["tokgate"]["reason"] for record in records.all] == ["unreadable"]


def test_a_flow_that_lasts(gate: Callable[..., QuicGate]) -> None:
    """A flow whose time in the set is over goes on with its next packet, however long it lasts; a silent one ends."""
    one = gate().comes(*QuicClient(ALLOWED).flight)
    for _ in range(10):
        one.sent.forwarded.clear()
        one.later(61).comes(SHORT)
        assert one.sent.forwarded == {KEY}
    one.later(151).comes(SHORT)
    assert one.sent.unreachable == [KEY]


def test_cut(gate: Callable[..., QuicGate], records: Records) -> None:
    """When a ban starts its flows leave the set, and nothing goes on between tnext ports; others are left alone."""
    one = gate(policy(networks=OTHERS))
    one.comes(*QuicClient(ALLOWED).flight, SHORT, key=flow(1)).comes(*QuicClient(BANNED).flight, SHORT)
    review = LiveReview(one.enforcer, one.carrier, monotonic=lambda: one.now)
    review.look()
    assert one.sent.forwarded == {KEY, flow(1)}

    one.holder.snapshot = policy()
    review.look()

    assert one.sent.forwarded == {flow(1)}
    assert records.actions == ["connection-cut"]
    one.sent.to_server.clear()
    one.comes(SHORT, *QuicClient(ALLOWED).flight, SHORT)
    assert (one.sent.to_server, one.sent.unreachable[0]) == ([], KEY)
    one.comes(SHORT, key=flow(1))
    assert one.sent.to_server == [SHORT]


@pytest.mark.parametrize("interface", ["lan0", "guests0"])
def test_cut_by_interface(gate: Callable[..., QuicGate], interface: str) -> None:
    """A ban for all behind an interface ends their flows, though no address is named."""
    one = gate(policy(networks=OTHERS), i2=Identity(interface=interface))
    one.comes(*QuicClient(BANNED).flight, SHORT, interface=2)
    guests = Network("guests", (), interfaces=("guests0",))
    one.holder.snapshot = snapshot(
        ban(networks=("guests",)), services=(service("clips", "suffix:" + BANNED),), networks=(guests,)
    )
    LiveReview(one.enforcer, one.carrier).look()

    assert one.sent.forwarded == (set() if interface == "guests0" else {KEY})


def test_what_no_ban_kept_from_passing_unread(gate: Callable[..., QuicGate]) -> None:
    """A flow that passed without being understood ends when a ban starts that would have refused it."""
    one = gate(policy(networks=OTHERS)).comes(SHORT)
    one.holder.snapshot = policy()
    LiveReview(one.enforcer, one.carrier).look()

    assert one.sent.forwarded == set()


def test_more_names_than_can_be_judged_again(gate: Callable[..., QuicGate]) -> None:
    """A flow in which one name after another is let through ends before the first would be forgotten."""
    one = gate()
    for number in range(quic_flow.MAX_CONNECTIONS):
        one.comes(*QuicClient(f"n{number}.example.org").flight, SHORT)
    assert (one.sent.forwarded, one.sent.unreachable) == ({KEY}, [])
    last = QuicClient("last.example.org").flight
    one.comes(*last)

    assert (one.sent.forwarded, one.sent.unreachable) == (set(), [KEY] * len(last))


def test_no_way_to_the_server(gate: Callable[..., QuicGate]) -> None:
    """Where a datagram can't go on, the client is told so at once."""
    one = gate()
    one.carrier.take(Datagram(KEY, datagram, 0, 1, 1) for datagram in QuicClient(ALLOWED).flight)

    assert one.sent.unreachable == [KEY]


def test_what_can_not_go_on_is_lost(gate: Callable[..., QuicGate]) -> None:
    """A packet too large for the way, as clients send to find out its size, or a moment without a way, ends nothing."""
    one = gate().comes(*QuicClient(ALLOWED).flight)
    one.carrier.take([Datagram(KEY, SHORT, 0, 1, 1)])

    assert one.sent.unreachable == []
    assert one.comes(SHORT).sent.to_server[-1] == SHORT


def test_one_client_s_flood(gate: Callable[..., QuicGate]) -> None:
    """A client that begins connections without end takes no others' share; what isn't read is counted."""
    limits = QuicLimits(firsts_per_second=10)
    one = gate(limits=limits)
    flight = QuicClient(ALLOWED).flight
    for number in range(50):
        one.comes(*flight, key=flow(number))
    one.comes(*flight, key=client(1))

    assert len(one.sent.to_server) == 11
    assert one.counters.at_limit == 40
    assert one.later(1).comes(*flight, SHORT, key=flow(60)).sent.forwarded == {flow(60)}


def test_errors_are_not_told_without_end(gate: Callable[..., QuicGate]) -> None:
    """A flood of strange datagrams is not answered one by one."""
    one = gate(limits=QuicLimits(unreachables_per_second=5)).comes(*[SHORT] * 20)

    assert len(one.sent.unreachable) == 5


def test_a_bug_lets_nothing_pass(gate: Callable[..., QuicGate], monkeypatch: pytest.MonkeyPatch) -> None:
    """What raises costs the datagram, and is counted."""

    def broken(*_: Any) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(QuicCarrier, "_begun", broken)
    one = gate().comes(*QuicClient(ALLOWED).flight)

    assert (one.sent.to_server, one.counters.errors["quic"]) == ([], 1)
