"""Live connections and the moment at which what was decided about them holds no more."""

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from gate_lab import Clock, Holder, Origin, RunningGate, Sink, broken_off, dial, policy, until
from hello_builder import hello, hello_for, records, supported_versions
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant, Time, Weekday

from builders import at, ban, exemption, network, service, snapshot, wall
from tokgate.blocklog.observation import Endpoint, Observation, Stage, Visibility
from tokgate.blocklog.stamp import Observer
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.live import LONGEST, TURN, Cut, Review, Span
from tokgate.policy.bans import Action, MissingSni
from tokgate.policy.decide import Sighting, decide
from tokgate.policy.decision import Response, Signal, Verdict
from tokgate.policy.schedule import Window
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import transitions

StartGate = Callable[..., RunningGate]
StartOrigin = Callable[..., Origin]

BANNED = hello_for("www.clips.example.org")
OTHER = hello_for("www.example.net")
BEFORE, STARTS, AFTER = "2023-03-09T22:59:59.9Z", "2023-03-09T23:00:00Z", "2023-06-01T00:00:00Z"
CLIENT = "192.0.2.7"


def test_span_reaches_to_the_next_transition() -> None:
    """Inside nothing is due; at its end, before its beginning and under another policy something is."""
    span, held = Span(), snapshot(ban(expires=wall("2023-04-01T00:00")))
    assert span.left(held, at(BEFORE))
    assert span.end == at(STARTS)
    assert not span.left(held, at("2023-03-09T22:59:59.999999999Z"))
    assert span.left(held, at(STARTS))
    assert span.end == at("2023-03-31T22:00:00Z")
    assert not span.left(held, at("2023-03-20T00:00:00Z"))
    assert span.left(held, at(BEFORE)), "the clock was set back"
    assert span.end == at(STARTS)
    assert span.left(held, at("2030-01-01T00:00:00Z")), "and far forward"
    assert span.end == Instant.MAX
    assert span.left(snapshot(ban()), at("2030-01-01T00:00:00Z")), "another policy"


@given(
    st.lists(
        st.integers(0, 3 * 86400).map(lambda second: at("2023-03-09T12:00:00Z").add(seconds=second)),
        min_size=1,
        max_size=8,
    )
)
def test_span_never_hides_a_transition(looks: list[Instant]) -> None:
    """However the clock runs or jumps: between two looks with a transition in between, the second one says so."""
    held = snapshot(
        ban(windows=(Window(frozenset(Weekday), Time(8), Time(18)),)),
        exemptions=(exemption(until=wall("2023-03-11T09:00")),),
    )
    span = Span()
    span.left(held, looks[0])
    for before, now in pairwise(looks):
        first, last = sorted((before, now))
        passed = any(transitions(held, first.add(nanoseconds=1), last.add(nanoseconds=1)))
        left = span.left(held, now)
        assert left or not passed
        assert now < span.end


@dataclass
class Fake:
    """A carrier of (client, name), and a clock for its turns that a judgement takes a while of."""

    holder: Holder
    enforcer: Enforcer
    open: list[tuple[str, str]]
    cuts: list[tuple[str, str]] = field(default_factory=list)
    elapsed: float = 0.0
    cost: float = 0.0

    def open_now(self) -> Iterable[tuple[str, str]]:
        return list(self.open)

    def judge(self, one: tuple[str, str], held: Snapshot, now: Instant) -> Cut | None:
        self.elapsed += self.cost
        names = (Sighting(Signal.SNI, one[1]),)
        ruling = self.enforcer.judge(one[0], names)
        if not ruling.blocks:
            return None
        seen = Observation(
            client=Endpoint(one[0]), stage=Stage.LIVE, visibility=Visibility.SNI, names=names, connection="c"
        )
        return ruling, seen

    def cut(self, one: tuple[str, str]) -> None:
        self.open.remove(one)
        self.cuts.append(one)

    def monotonic(self) -> float:
        return self.elapsed


def reviewing(held: Snapshot, clock: Clock, *connections: tuple[str, str], cost: float = 0.0) -> tuple[Any, Fake, Sink]:
    """A review of a fake carrier."""
    sink, holder = Sink(), Holder(held)
    enforcer = Enforcer(holder, sink, Observer(hostname="gate.example.org", version="test"), now=clock)
    carrier = Fake(holder, enforcer, list(connections), cost=cost)
    return Review(enforcer, carrier, monotonic=carrier.monotonic), carrier, sink


def test_turns_are_bounded_and_cutting_goes_before_telling(valid_record: Callable[[Any], Any]) -> None:
    """A thousand judgements are many short turns; the records come after the last cut, and say which policy cut."""
    clock = Clock(BEFORE)
    many = [(CLIENT, f"v{number}.clips.example.org") for number in range(1000)]
    review, carrier, sink = reviewing(snapshot(ban()), clock, *many, cost=0.0005)
    while review.look() == 0.0:
        pass
    assert carrier.cuts == []
    clock.set(STARTS)
    turns, before = 0, carrier.elapsed
    while review.look() == 0.0:
        turns += 1
        assert carrier.elapsed - before <= TURN + 0.0005
        before = carrier.elapsed
        assert not sink.records or not carrier.open
    assert turns >= 200
    assert carrier.cuts == many
    assert [valid_record(r)["event"]["action"] for r in sink.records] == ["connection-cut"] * 1000
    assert {r["tokgate"]["policy"]["version"] for r in sink.records} == {"test"}


def test_looks_are_timed_to_the_instant() -> None:
    """The next look is at the transition, or half a second later where that is further away."""
    review, _, _ = reviewing(snapshot(ban()), Clock(BEFORE))
    assert review.look() == pytest.approx(0.1)
    review, _, _ = reviewing(snapshot(ban()), Clock(AFTER))
    assert review.look() == LONGEST


def test_a_judgement_that_raises_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be decided doesn't go on, the others are judged, and the error is told."""
    review, carrier, sink = reviewing(
        snapshot(ban()), Clock(BEFORE), (CLIENT, "a.example.org"), (CLIENT, "b.example.org")
    )
    honest = carrier.judge

    def broken(one: tuple[str, str], held: Snapshot, now: Instant) -> Cut | None:
        if one[1].startswith("a"):
            raise RuntimeError("broken on purpose")
        return honest(one, held, now)

    monkeypatch.setattr(carrier, "judge", broken)
    review.look()
    assert carrier.open == [(CLIENT, "b.example.org")]
    assert [r["event"]["action"] for r in sink.records] == ["internal-error"]


def test_a_cut_that_raises_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is told, and the next look goes on behind the connection that can't be cut."""
    clock = Clock(AFTER)
    review, carrier, sink = reviewing(snapshot(ban()), clock, *((CLIENT, f"{it}.clips.example.org") for it in "ab"))
    honest = carrier.cut

    def broken(one: tuple[str, str]) -> None:
        if one[1].startswith("a"):
            raise RuntimeError("broken on purpose")
        honest(one)

    monkeypatch.setattr(carrier, "cut", broken)
    assert review.look() == LONGEST
    assert len(carrier.open) == 2
    review.look()
    assert carrier.open == [(CLIENT, "a.clips.example.org")]
    assert "internal-error" in [r["event"]["action"] for r in sink.records]


CLIENTS = st.sampled_from([CLIENT, "192.0.2.9", "198.51.100.1", "2001:db8:1::5"])
NAMES = st.sampled_from(
    ["www.clips.example.org", "clips.example.org", "other.example.org", "203.0.113.9", "notclips.example.org"]
)
INSTANTS = st.integers(0, 60).map(lambda days: at("2023-02-20T12:00:00Z").add(hours=24 * days))
POLICIES = st.builds(
    lambda starts, days, holes: snapshot(
        ban(starts=at(starts.format_iso()), expires=starts.add(hours=24 * days)),
        exemptions=(exemption(clients=(ip_network("192.0.2.9/32"),)),) if holes else (),
    ),
    INSTANTS,
    st.integers(1, 30),
    st.booleans(),
)


@given(
    st.lists(st.tuples(CLIENTS, NAMES), max_size=12, unique=True),
    POLICIES,
    POLICIES,
    st.lists(INSTANTS, min_size=1, max_size=6),
)
def test_cut_is_exactly_what_decide_blocks(
    connections: list[tuple[str, str]], first: Snapshot, second: Snapshot, instants: list[Instant]
) -> None:
    """However the clock runs or jumps, and when the policy is exchanged: what `decide` lets pass goes on, no more."""
    clock = Clock(BEFORE)
    review, carrier, _ = reviewing(first, clock, *connections)
    held = first
    for number, instant in enumerate(instants):
        clock.at = instant
        if number == len(instants) // 2:
            held = second
            carrier.holder.snapshot = second
        before = list(carrier.open)
        while review.look() == 0.0:
            pass
        passes = [one for one in before if decide(held, *one, instant).verdict is not Verdict.BLOCK]
        assert carrier.open == passes


@pytest.fixture
def clock() -> Clock:
    """Just before the ban."""
    return Clock(BEFORE)


def opened(gate: RunningGate, number: int) -> bool:
    """Whether that many connections carry bytes."""
    return bool(until(lambda: sum(1 for c in set(gate.gate.connections.values()) if c.state.name == "OPEN") == number))


def talking(client: socket.socket, said: bytes = b"ping") -> bool:
    """Whether a connection to an echo is open both ways; what it echoes first is read."""
    client.sendall(said)
    heard = b""
    while not heard.endswith(said):
        piece = client.recv(65536)
        if not piece:
            return False
        heard += piece
    return True


def test_the_start_of_a_ban_cuts_what_is_open(
    start_gate: StartGate, start_origin: StartOrigin, clock: Clock, valid_record: Callable[[Any], Any]
) -> None:
    """At the instant the banned name's connection is reset on both sides, with a record; another name goes on."""
    ends: list[bool] = []

    def serve(client: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                client.sendall(data)
            ends.append(False)
        except ConnectionResetError:
            ends.append(True)

    gate = start_gate(start_origin(serve), policy(ban(networks=("loop",))), now=clock)
    with dial(gate.redirected, BANNED) as banned, dial(gate.redirected, OTHER) as other:
        assert talking(banned)
        assert talking(other)
        clock.set(STARTS)
        assert broken_off(banned)
        assert talking(other, b"still")
        assert until(lambda: ends) == [True]
        (record,) = until(lambda: gate.sink.records)
    valid_record(record)
    assert record["event"]["action"] == "connection-cut"
    assert record["event"]["type"] == ["connection", "end", "denied"]
    assert record["tokgate"]["ban"] == "ban"
    assert record["tokgate"]["rule"] == "suffix:clips.example.org"
    assert record["destination"]["domain"] == "www.clips.example.org"
    assert record["source"]["bytes"] == len(BANNED) + 4
    assert len(BANNED) <= record["destination"]["bytes"] <= len(BANNED) + 4, "what the client has acknowledged"
    assert record["tokgate"]["connection"]
    clock.set(AFTER)
    with dial(gate.redirected, BANNED) as again:
        assert again.recv(7)[:1] == b"\x15", "refused now"


def test_the_end_of_a_ban_lets_connections_in_again(
    start_gate: StartGate, start_origin: StartOrigin, clock: Clock
) -> None:
    """No restart is needed; and a clock that is set back into the ban cuts again."""
    gate = start_gate(start_origin(), policy(ban(networks=("loop",), expires=wall("2023-04-01T00:00"))), now=clock)
    clock.set("2023-03-31T21:59:59Z")
    with dial(gate.redirected, BANNED) as refused:
        assert refused.recv(7)[:1] == b"\x15"
    clock.set("2023-03-31T22:00:00Z")
    with dial(gate.redirected, BANNED) as allowed:
        assert talking(allowed)
        clock.set("2023-03-31T21:59:59Z")
        assert broken_off(allowed)


def test_a_clock_that_jumps_over_a_whole_ban_cuts_nothing(
    start_gate: StartGate, start_origin: StartOrigin, clock: Clock
) -> None:
    """A system that slept through the ban wakes up after it: what is open then is allowed."""
    gate = start_gate(start_origin(), policy(ban(networks=("loop",), expires=wall("2023-04-01T00:00"))), now=clock)
    with dial(gate.redirected, BANNED) as banned:
        assert talking(banned)
        judged = gate.review.judged
        clock.set(AFTER)
        assert until(lambda: gate.review.judged > judged)
        assert talking(banned, b"awake")
    assert gate.sink.records == []


CHANGES: dict[str, Callable[[], tuple[Snapshot, Snapshot]]] = {
    "a ban is added": lambda: (policy(), policy(ban(networks=("loop",)))),
    "a service gains a name": lambda: (
        policy(ban(networks=("loop",)), services=(service("clips", "suffix:other.example.org"),)),
        policy(ban(networks=("loop",))),
    ),
    "an exemption is removed": lambda: (
        policy(
            ban(networks=("loop",)),
            exemptions=(exemption(clients=(ip_network("127.0.0.0/8"),), until=wall("2024-01-01T00:00")),),
        ),
        policy(ban(networks=("loop",))),
    ),
    "a network gains the client": lambda: (
        policy(ban(networks=("loop",)), networks=(network("loop", "198.51.100.0/24"),)),
        policy(ban(networks=("loop",))),
    ),
    "a ban by address is added": lambda: (
        policy(),
        policy(
            ban(networks=("loop",)), services=(service("clips", "suffix:x.example.org", addresses=("127.0.0.0/8",)),)
        ),
    ),
    "the response is a page": lambda: (policy(), policy(ban(networks=("loop",), response=Response.PAGE))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_policy_cuts(start_gate: StartGate, start_origin: StartOrigin, clock: Clock, change: str) -> None:
    """Whatever makes the new policy block a name also ends its connections."""
    before, after = CHANGES[change]()
    clock.set(AFTER)
    gate = start_gate(start_origin(), before, now=clock)
    with dial(gate.redirected, BANNED) as banned:
        assert talking(banned)
        gate.holder.snapshot = after
        assert broken_off(banned)
    assert until(lambda: [r["event"]["action"] for r in gate.sink.records if "cut" in r["event"]["action"]])


@pytest.mark.parametrize("change", ["warn", "monitor", "another network"])
def test_a_milder_policy_cuts_nothing(
    start_gate: StartGate, start_origin: StartOrigin, clock: Clock, change: str
) -> None:
    """A ban that only warns or monitors, or that is somebody else's, ends no connection."""
    stated: dict[str, Any] = {"networks": ("loop",)}
    parts: dict[str, Any] = {}
    if change == "another network":
        parts["networks"] = (network("loop", "198.51.100.0/24"),)
    else:
        stated["action"] = Action(change)
    clock.set(AFTER)
    gate = start_gate(start_origin(), policy(), now=clock)
    with dial(gate.redirected, BANNED) as banned:
        assert talking(banned)
        judged = gate.review.judged
        gate.holder.snapshot = policy(ban(**stated), **parts)
        assert until(lambda: gate.review.judged > judged)
        assert talking(banned, b"still")


def connect(client: socket.socket, host: str, port: int) -> None:
    """A CONNECT that succeeds."""
    client.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    assert b" 200 " in head


def socks(client: socket.socket, host: str, port: int) -> None:
    """A SOCKS 5 request by name that succeeds."""
    client.sendall(b"\x05\x01\x00")
    assert client.recv(2) == b"\x05\x00"
    client.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2))
    assert client.recv(4)[1] == 0
    client.recv(6)


@pytest.mark.parametrize("ask", [connect, socks])
@pytest.mark.parametrize("said", [b"", OTHER, b"\x00\x01not tls"])
def test_tunnels_are_cut_by_the_host_that_was_asked_for(
    start_gate: StartGate, start_origin: StartOrigin, clock: Clock, ask: Callable[..., None], said: bytes
) -> None:
    """CONNECT and SOCKS: whatever the tunnel carries, and also before it carries anything."""
    origin = start_origin(lambda client: (client.sendall(b"welcome"), client.recv(65536), client.recv(1)))
    gate = start_gate(None, policy(ban(networks=("loop",)), services=(service("clips", "exact:localhost"),)), now=clock)
    with socket.create_connection(gate.explicit, 10) as client:
        ask(client, "localhost", origin.address[1])
        client.sendall(said)
        assert client.recv(7) == b"welcome"
        clock.set(STARTS)
        assert broken_off(client)
    record = until(lambda: gate.sink.records)[0]
    assert record["event"]["action"] == "connection-cut"
    assert record["destination"]["domain"] == "localhost"


def test_nameless_connections_follow_the_settings(
    start_gate: StartGate, start_origin: StartOrigin, clock: Clock
) -> None:
    """Without a name and with `missing_sni: block`, the start of a ban ends what new ones would be refused for."""
    held = policy(ban(networks=("loop",)), missing_sni=MissingSni.BLOCK)
    gate = start_gate(start_origin(), held, now=clock)
    with dial(gate.redirected, records(hello(supported_versions(0x0304)))) as nameless:
        assert talking(nameless)
        clock.set(STARTS)
        assert broken_off(nameless)
    assert until(lambda: gate.sink.records)[0]["tokgate"]["reason"] == "missing-sni"


def test_a_destination_that_has_not_answered_is_given_up(
    start_gate: StartGate, clock: Clock, monkeypatch: pytest.MonkeyPatch, dead_end: tuple[str, int]
) -> None:
    """A connection under way to its destination at the instant doesn't become one afterwards."""
    gate = start_gate(None, policy(ban(networks=("loop",))), now=clock)
    monkeypatch.setattr("tokgate.gate.gate.original_destination", lambda sock, listener: dead_end)
    with dial(gate.redirected, BANNED) as banned:
        assert until(lambda: gate.gate.connections)
        clock.set(STARTS)
        assert broken_off(banned)
    assert gate.settled()


@pytest.fixture
def dead_end() -> Iterator[tuple[str, int]]:
    """An address on loopback whose queue is full: connecting neither succeeds nor fails."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        yield full.getsockname()
        for sock in waiting:
            sock.close()
