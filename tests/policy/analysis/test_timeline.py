"""The timeline: every transition once, in order, and nothing between two of them."""

from whenever import Instant, Time, Weekday

from labs.builders import at, ban, exemption, network, snapshot, wall
from tokgate.policy.analysis.timeline import TransitionKind, next_transition, transitions
from tokgate.policy.bans import OnExpiry
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Window


def test_a_ban_from_announcement_to_expiry() -> None:
    """Phases and the exemption's edges, in order of time."""
    stated = ban(announced=wall("2023-03-01T00:00"), expires=wall("2023-04-01T00:00"))
    policy = snapshot(stated, exemptions=(exemption(starts=wall("2023-03-20T00:00")),))
    seen = [(t.at, t.kind, t.before, t.after, t.exemption) for t in transitions(policy, Instant.MIN, Instant.MAX)]
    assert seen == [
        (at("2023-02-28T23:00Z"), TransitionKind.PHASE, None, Phase.ANNOUNCED, None),
        (at("2023-03-09T23:00Z"), TransitionKind.PHASE, Phase.ANNOUNCED, Phase.BLOCK, None),
        (at("2023-03-19T23:00Z"), TransitionKind.EXEMPTION_STARTS, Phase.BLOCK, Phase.BLOCK, "press"),
        (at("2023-03-31T16:00Z"), TransitionKind.EXEMPTION_ENDS, Phase.BLOCK, Phase.BLOCK, "press"),
        (at("2023-03-31T22:00Z"), TransitionKind.PHASE, Phase.BLOCK, Phase.EXPIRED, None),
    ]


def test_half_open_range() -> None:
    """A transition at the start is in, one at the end is out; what holds since ever is none."""
    policy = snapshot(ban(expires=wall("2023-04-01T00:00")))
    start, end = at("2023-03-09T23:00Z"), at("2023-03-31T22:00Z")
    assert [t.at for t in transitions(policy, start, end)] == [start]
    past = transitions(policy, start.add(nanoseconds=1), end.add(nanoseconds=1))
    assert [t.at for t in past] == [end]
    assert [t.at for t in transitions(policy, Instant.MIN, Instant.MAX)] == [start, end]


def test_windows_are_endless_and_lazy() -> None:
    """An open-ended ban with windows yields transitions for as long as one asks."""
    policy = snapshot(ban(windows=(Window(frozenset({Weekday.MONDAY}), Time(8), Time(18)),)))
    endless = transitions(policy, at("2023-03-12T00:00Z"), Instant.MAX)
    seen = [(t.at, t.kind) for _, t in zip(range(3), endless, strict=False)]
    assert seen == [
        (at("2023-03-13T07:00Z"), TransitionKind.WINDOW_OPENS),
        (at("2023-03-13T17:00Z"), TransitionKind.WINDOW_CLOSES),
        (at("2023-03-20T07:00Z"), TransitionKind.WINDOW_OPENS),
    ]


def test_overdue_is_a_transition() -> None:
    """A held ban's phase stays, but from its end on it is overdue."""
    stated = ban(expires=wall("2023-04-01T00:00"), on_expiry=OnExpiry.HOLD)
    policy = snapshot(stated)
    (last,) = transitions(policy, at("2023-03-11T00:00Z"), Instant.MAX)
    assert (last.kind, last.before, last.after) == (TransitionKind.OVERDUE, Phase.BLOCK, Phase.BLOCK)


def test_each_zone_has_its_own() -> None:
    """One ban over two zones starts twice."""
    networks = (network("office", "192.0.2.0/24"), network("far", "198.51.100.0/24", zone="Asia/Kolkata"))
    policy = snapshot(ban(networks=("office", "far")), networks=networks)
    seen = [(t.zone, t.networks) for t in transitions(policy, at("2023-03-01T00:00Z"), at("2023-04-01T00:00Z"))]
    assert seen == [("Asia/Kolkata", ("far",)), ("Europe/Brussels", ("office",))]


def test_an_exemption_ends_where_it_holds() -> None:
    """One for addresses of a network ends in that network's zone alone; one for users may hold in each."""
    networks = (network("office", "192.0.2.0/24"), network("far", "198.51.100.0/24", zone="Asia/Kolkata"))
    both = ban(networks=("office", "far"))
    policy = snapshot(both, networks=networks, exemptions=(exemption(), exemption("staff", users=("alice",))))
    ends = list(transitions(policy, at("2023-03-31T00:00Z"), at("2023-04-01T00:00Z")))
    assert [(t.exemption, t.zone) for t in ends] == [
        ("staff", "Asia/Kolkata"), ("press", "Europe/Brussels"), ("staff", "Europe/Brussels"),
    ]  # fmt: skip


def test_next_transition() -> None:
    """The first instant after the one given; None when nothing changes any more."""
    policy = snapshot(ban(expires=wall("2023-04-01T00:00")), exemptions=(exemption(),))
    start, hole, end = at("2023-03-09T23:00Z"), at("2023-03-31T16:00Z"), at("2023-03-31T22:00Z")
    assert next_transition(policy, Instant.MIN) == start
    assert next_transition(policy, start) == hole
    assert next_transition(policy, hole) == end
    assert next_transition(policy, end) is None
