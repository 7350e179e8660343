"""Live connections and the moment at which what was decided about them holds no more."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant, Time, Weekday

from labs.builders import at, ban, exemption, snapshot, wall
from labs.gate_lab import Clock, Sink
from labs.records import Holder
from tokgate.blocklog.records.record import Observer
from tokgate.policy.analysis.timeline import transitions
from tokgate.policy.decide import Sighting, decide
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.observation import Endpoint, Observation, Stage, Visibility
from tokgate.policy.schedule import Window
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.live_review import LONGEST, TURN, Cut, LiveReview, StableSpan

BEFORE, STARTS, AFTER = "2023-03-09T22:59:59.9Z", "2023-03-09T23:00:00Z", "2023-06-01T00:00:00Z"
CLIENT = "192.0.2.7"


def test_span_reaches_to_the_next_transition() -> None:
    """Inside nothing is due; at its end, before its beginning and under another policy something is."""
    span, held = StableSpan(), snapshot(ban(expires=wall("2023-04-01T00:00")))
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
    span = StableSpan()
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
    return LiveReview(enforcer, carrier, monotonic=carrier.monotonic), carrier, sink


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
