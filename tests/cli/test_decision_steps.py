"""Step 5: which of several bans goes before which, and why, in the order of the rules of `decide`."""

from typing import Any

import pytest

from labs.builders import OFFICE, at, ban, network, snapshot, wall
from tokgate.cli.decision_query import DecisionQuery, judge
from tokgate.cli.decision_steps import steps
from tokgate.policy.bans import Action

LAB = network("lab", "192.0.2.64/28")


@pytest.mark.parametrize(
    ("first", "second", "because"),
    [
        ({}, {"action": Action.WARN, "networks": ("lab",)}, "block is stricter than warn"),
        ({"networks": ("lab",)}, {"starts": wall("2023-01-01T00:00")}, "its network is narrower, /28 against /24"),
        ({"starts": wall("2023-03-01T00:00")}, {}, "it starts earlier"),
        ({}, {}, "its name sorts first"),
        (
            {"announced": wall("2023-01-01T00:00"), "starts": wall("2024-01-01T00:00")},
            {"expires": wall("2023-04-01T00:00"), "networks": ("lab",)},
            "announced tells more than expired",
        ),
    ],
    ids=["stricter", "narrower", "earlier", "name", "telling"],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_why_one_goes_before_another(
    first: dict[str, Any], second: dict[str, Any], because: str, swapped: bool
) -> None:
    """In whatever order they stand, the winner is `decide`'s, and the reason the first rule that tells them apart."""
    stated = [ban("a", **first), ban("b", **second)]
    policy = snapshot(*(reversed(stated) if swapped else stated), networks=(OFFICE, LAB))
    query = DecisionQuery("192.0.2.70", "clips.example.org", at("2023-05-01T00:00Z"))
    assert judge(policy, query).decision.ban == "a"
    last = list(steps(policy, query))[-1]
    assert (last["number"], last["title"]) == (5, "Strictest")
    assert last["lines"][1:] == [f"a goes before b: {because}"]


def test_one_ban_in_two_networks() -> None:
    """Of a ban that holds twice it is said where."""
    policy = snapshot(ban("a", networks=("office", "lab")), networks=(OFFICE, LAB))
    last = list(steps(policy, DecisionQuery("192.0.2.70", "clips.example.org", at("2023-05-01T00:00Z"))))[-1]
    because = "its network is narrower, /28 against /24"
    assert last["lines"][1:] == [f"a (clips in lab) goes before a (clips in office): {because}"]
