"""Overrides among the exemptions: which there are, when they hold, and how long they may last."""

from ipaddress import ip_network

import pytest

from labs.builders import at, ban, exemption, network, snapshot, wall
from tokgate.policy.analysis.overrides import in_force, outlasts, overrides
from tokgate.policy.schedule import Duration
from tokgate.policy.settings import Settings

START, END = at("2023-03-15T09:00:00Z"), at("2023-03-15T11:00:00Z")
POLICY = snapshot(
    ban(), exemptions=(exemption(), exemption("quick", starts=START, until=END, override=True)), reminders=()
)


def test_only_what_is_marked() -> None:
    """An exemption written by hand is none."""
    assert list(overrides(POLICY)) == ["quick"]
    assert overrides(snapshot(ban(), exemptions=(exemption(),))) == {}


@pytest.mark.parametrize(
    ("moment", "holds"),
    [(START.subtract(nanoseconds=1), False), (START, True), (END.subtract(nanoseconds=1), True), (END, False)],
)
def test_edges(moment: object, holds: bool) -> None:
    """From its start on, up to and not including its end."""
    assert bool(in_force(overrides(POLICY), moment)) is holds  # type: ignore[arg-type]


def test_wall_times_in_several_zones() -> None:
    """It is under way as long as it is anywhere that has clients of it; or, where it has none, as it is written."""
    policy = snapshot(
        ban(networks=("office", "abroad")),
        networks=(network("office", "192.0.2.0/24"), network("abroad", "198.51.100.0/24", zone="America/New_York")),
        exemptions=tuple(
            exemption(
                name, clients=tuple(map(ip_network, clients)),
                starts=wall("2023-03-15T09:00"), until=wall("2023-03-15T10:00"), override=True,
            )
            for name, clients in {
                "both": ("192.0.2.9/32", "198.51.100.9/32"), "here": ("192.0.2.9/32",), "nowhere": ("203.0.113.9/32",),
            }.items()
        ),
    )  # fmt: skip
    spans = {name: (found.span.start, found.span.end) for name, found in overrides(policy).items()}
    everywhere = (at("2023-03-15T08:00:00Z"), at("2023-03-15T14:00:00Z"))
    here = (at("2023-03-15T08:00:00Z"), at("2023-03-15T09:00:00Z"))
    assert spans == {"both": everywhere, "here": here, "nowhere": everywhere}


def test_longest() -> None:
    """The limit itself is allowed, one tick more is not; a limit beyond the calendar is none."""
    longest = Duration(hours=2)
    assert not outlasts(START, END, longest, "UTC")
    assert outlasts(START, END.add(nanoseconds=1), longest, "UTC")
    assert not outlasts(START, END, Duration(years=9000), "UTC")
    assert outlasts(wall("2023-03-26T01:00"), wall("2023-03-26T05:00"), longest, "Europe/Brussels")
    assert not outlasts(wall("2023-03-26T01:00"), wall("2023-03-26T04:00"), longest, "Europe/Brussels")


def test_longest_by_default() -> None:
    """Where the policy says nothing, one that was forgotten lifts a ban for a day and no longer."""
    longest = Settings().overrides.longest
    assert not outlasts(START, START.add(hours=24), longest, "UTC")
    assert outlasts(START, START.add(hours=24, nanoseconds=1), longest, "UTC")
