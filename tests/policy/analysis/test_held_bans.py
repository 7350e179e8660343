"""Held bans: which vanish, what comes back with them, and what a change of policy does to bans."""

from dataclasses import replace
from typing import Any

import pytest

from labs.builders import at, ban, exemption, network, service, snapshot, wall
from tokgate.policy.analysis.held_bans import effects, vanished, with_held
from tokgate.policy.bans import Action, Lifted, OnExpiry
from tokgate.policy.decide import decide
from tokgate.policy.snapshot import Policy, compile_policy

NOW = at("2023-05-01T12:00Z")
EMPTY = snapshot(services=(), networks=()).policy


@pytest.mark.parametrize(
    ("stated", "held"),
    [
        ({}, True),
        ({"action": Action.MONITOR}, True),
        ({"starts": wall("2023-06-01T00:00"), "warn_from": wall("2023-04-01T00:00")}, True),
        ({"starts": wall("2023-06-01T00:00")}, False),
        ({"expires": wall("2023-05-01T14:00")}, False),
        ({"expires": wall("2023-05-01T14:00"), "on_expiry": OnExpiry.HOLD}, True),
        ({"expires": wall("2023-05-01T14:01")}, True),
    ],
)
def test_only_what_is_in_force_is_held(stated: dict[str, Any], held: bool) -> None:
    """A file that was emptied lifts no ban in force; one that is over, or has not begun, needs no holding."""
    assert vanished(snapshot(ban(**stated)), EMPTY, NOW) == (("ban",) if held else ())


@pytest.mark.parametrize(
    "new", [snapshot(ban()).policy, replace(EMPTY, lifted=(Lifted(ban="ban", reason="Repealed"),))]
)
def test_what_is_stated_or_lifted_is_not_held(new: Policy) -> None:
    """Whoever says that a ban is lifted gets what they say."""
    assert vanished(snapshot(ban()), new, NOW) == ()


def test_a_held_ban_decides_as_before() -> None:
    """It brings its service, its network and its exemptions, and those definitions of the new policy that it has."""
    old = snapshot(ban(), exemptions=(exemption(until=wall("2024-01-01T00:00")),))
    other = service("other", "suffix:other.example.org")
    wider = network("office", "192.0.2.0/24", "198.51.100.0/24")
    new = snapshot(services=(other,), networks=(wider,)).policy
    held = with_held(new, old.policy, ("ban",))
    assert (held.held, set(held.services)) == (("ban",), {"clips", "other"})
    assert held.version not in (new.version, old.version)
    compiled = compile_policy(held)
    for client, verdict in (("192.0.2.7", "block"), ("198.51.100.7", "block"), ("192.0.2.9", "allow")):
        assert decide(compiled, client, "clips.example.org", NOW).verdict == verdict
    assert with_held(new, old.policy, ()) is new


def test_effects() -> None:
    """A reviewer of the log reads which bans began, ended and were lifted with a policy."""
    old = snapshot(ban("same"), ban("ends"), ban("goes"), ban("past", expires=wall("2023-04-01T00:00")))
    new = snapshot(ban("same", title="Other"), ban("ends", expires=wall("2023-04-30T00:00")), ban("begins"))
    found = effects(old, compile_policy(replace(new.policy, held=("same",))), NOW)
    assert (found.begun, found.ended, found.lifted, found.held) == (("begins",), ("ends",), ("goes",), ("same",))
