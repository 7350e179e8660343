"""Judging open connections again: when all are looked at, and what becomes of one that can't be judged."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Instant, Time, Weekday

from labs import builders
from labs.builders import at, wall
from labs.records import Holder, enforcer_of
from tokgate.policy.analysis.timeline import transitions
from tokgate.policy.decide import Sighting, decide
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.observation import Endpoint, Observation, Stage, Visibility
from tokgate.policy.schedule import Window
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.live_review import LONGEST, TURN, Cut, LiveReview, StableSpan

START = at("2023-03-09T23:00:00Z")
END = at("2023-09-09T22:00:00Z")


@dataclass
class Open:
    """Some open connections, of which a test says whether they can be judged."""

    names: list[Any]
    fails: bool = False
    found: Cut | None = None
    cuts: list[str] = field(default_factory=list)

    def open_now(self) -> Iterable[str]:
        return list(self.names)

    def judge(self, one: str, snapshot: Snapshot, at: Instant) -> Cut | None:
        """The same of each, unless it fails."""
        if self.fails:
            raise RuntimeError("broken on purpose")
        return self.found

    def cut(self, one: str) -> None:
        self.cuts.append(one)


class Turn:
    """A monotonic clock of which a test says how much each look at it takes."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def reviewed(carrier: Open, clock: list[Instant], turn: Turn | None = None) -> tuple[LiveReview[str], Enforcer, Holder]:
    """A review of what is open."""
    holder = Holder(builders.snapshot(builders.ban(expires=wall("2023-09-10T00:00"))))
    enforcer = enforcer_of(holder, now=lambda: clock[0])
    return LiveReview(enforcer, carrier, monotonic=turn or Turn()), enforcer, holder


def test_all_are_judged_when_a_ban_begins_and_not_before() -> None:
    """Ten thousand idle connections cost nothing until something changes for them."""
    clock = [START.subtract(hours=1)]
    review, _, _ = reviewed(Open(["a", "b"]), clock)
    assert (review.look(), review.judged) == (LONGEST, 2)
    assert (review.look(), review.judged) == (LONGEST, 2)
    clock[0] = START.subtract(milliseconds=100)
    assert round(review.look(), 3) == 0.1
    clock[0] = START
    review.look()
    assert review.judged == 4
    clock[0] = END
    assert [review.look() for _ in range(3)] == [LONGEST] * 3
    clock[0] = END.add(hours=1)
    assert (review.look(), review.judged) == (LONGEST, 6), "once for each change, and none is to come"


def test_what_can_not_be_judged_ends() -> None:
    """A connection about which deciding fails does not go on undecided, and the failure is told."""
    carrier = Open(["a"], fails=True)
    review, enforcer, _ = reviewed(carrier, [START])
    review.look()
    assert carrier.cuts == ["a"]
    assert enforcer.counters.errors == {"live": 1}


def test_what_is_open_can_not_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and looked at again later: the loop that carries all connections goes on."""
    review, enforcer, _ = reviewed(Open(["a"]), [START])
    monkeypatch.delattr(Open, "open_now")
    assert review.look() == LONGEST
    assert enforcer.counters.errors == {"live": 1}


def test_a_turn_is_short() -> None:
    """Judging thousands leaves live connections their turns: it goes on where it was, at once."""
    review, _, _ = reviewed(Open(["a", "b", "c"]), [START], Turn(step=TURN))
    assert [review.look() for _ in range(3)] == [0.0] * 3
    assert review.judged == 3
    assert review.look() == LONGEST


def test_records_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are cut before anything is written, and then live connections have turns between two records."""
    written: list[object] = []
    monkeypatch.setattr(Enforcer, "cut", lambda _, *cut: written.append(cut))
    cut: Any = "ruling", "observation"
    carrier = Open(["a", "b"], found=cut)
    review, _, _ = reviewed(carrier, [START], Turn(step=TURN))
    told = [(review.look(), len(carrier.cuts), len(written)) for _ in range(5)]
    assert told == [(0.0, 1, 0), (0.0, 2, 0), (0.0, 2, 1), (0.0, 2, 2), (LONGEST, 2, 2)]
    quick, _, _ = reviewed(carrier, [START])
    assert (quick.look(), len(written)) == (LONGEST, 4)
    stopped, _, _ = reviewed(carrier, [START], Turn(step=TURN))
    assert [stopped.look(), stopped.look()] == [0.0, 0.0]
    stopped.close()
    assert written == [cut] * 6


def test_one_that_another_gate_let_through() -> None:
    """It is judged by the policy here, when it comes and not with the next change."""
    cut: Any = "ruling", "observation"
    carrier = Open([], found=cut)
    review, _, _ = reviewed(carrier, [START])
    review.look()
    review.examine("a")
    assert carrier.cuts == ["a"]


# -- however the clock runs or jumps


@given(
    st.lists(
        st.integers(0, 3 * 86400).map(lambda second: at("2023-03-09T12:00:00Z").add(seconds=second)),
        min_size=1,
        max_size=8,
    )
)
def test_span_never_hides_a_transition(looks: list[Instant]) -> None:
    """However the clock runs or jumps: between two looks with a transition in between, the second one says so."""
    held = builders.snapshot(
        builders.ban(windows=(Window(frozenset(Weekday), Time(8), Time(18)),)),
        exemptions=(builders.exemption(until=wall("2023-03-11T09:00")),),
    )
    span = StableSpan()
    span.left(held, looks[0])
    for before, now in pairwise(looks):
        first, last = sorted((before, now))
        passed = any(transitions(held, first.add(nanoseconds=1), last.add(nanoseconds=1)))
        left = span.left(held, now)
        assert left or not passed
        assert now < span.end


class Judged(Open):
    """Open connections of a client to a name, which are decided about."""

    enforcer: Enforcer

    def judge(self, one: Any, snapshot: Snapshot, at: Instant) -> Cut | None:
        names = (Sighting(Signal.SNI, one[1]),)
        ruling = self.enforcer.judge(one[0], names)
        seen = Observation(client=Endpoint(one[0]), stage=Stage.LIVE, visibility=Visibility.SNI, names=names)
        return (ruling, seen) if ruling.blocks else None

    def cut(self, one: Any) -> None:
        self.names.remove(one)


CLIENTS = st.sampled_from(["192.0.2.7", "192.0.2.9", "198.51.100.1", "2001:db8:1::5"])
NAMES = st.sampled_from(
    ["www.clips.example.org", "clips.example.org", "other.example.org", "203.0.113.9", "notclips.example.org"]
)
INSTANTS = st.integers(0, 60).map(lambda days: at("2023-02-20T12:00:00Z").add(hours=24 * days))
POLICIES = st.builds(
    lambda starts, days, holes: builders.snapshot(
        builders.ban(starts=at(starts.format_iso()), expires=starts.add(hours=24 * days)),
        exemptions=(builders.exemption(clients=(ip_network("192.0.2.9/32"),)),) if holes else (),
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
    carrier, clock = Judged(list(connections)), [START]
    review, carrier.enforcer, holder = reviewed(carrier, clock)
    held = holder.snapshot = first
    for number, instant in enumerate(instants):
        clock[0] = instant
        if number == len(instants) // 2:
            held = holder.snapshot = second
        before = list(carrier.names)
        while review.look() == 0.0:
            pass
        passes = [one for one in before if decide(held, one[0], one[1], instant).verdict is not Verdict.BLOCK]
        assert carrier.names == passes
