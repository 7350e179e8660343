"""Refusing connections that name no host: only clients under a ban that blocks now, and not the exempt."""

from typing import Any

import pytest
from whenever import Instant

from labs import builders
from tokgate.policy.bans import Action
from tokgate.policy.decide import decide_unreadable
from tokgate.policy.decision import Reason, Response, Verdict

START = builders.at("2023-03-09T23:00:00Z")
END = builders.at("2023-09-09T22:00:00Z")


@pytest.mark.parametrize(
    ("client", "at", "refused"),
    [
        ("192.0.2.7", START, True),
        ("2001:db8:1::7", START, True),
        ("192.0.2.7", START.subtract(nanoseconds=1), False),
        ("192.0.2.7", END.subtract(nanoseconds=1), True),
        ("192.0.2.7", END, False),
        ("198.51.100.7", START, False),
        ("no address", START, False),
        ("192.0.2.9", START, False),
        ("192.0.2.9", builders.at("2023-03-31T16:00:00Z"), True),
    ],
)
def test_refusal(client: str, at: Instant, refused: bool) -> None:
    """From the ban's start to its end, for its networks, except while an exemption holds."""
    ban = builders.ban(expires=builders.wall("2023-09-10T00:00"))
    snapshot = builders.snapshot(ban, exemptions=(builders.exemption(),))

    decision = decide_unreadable(snapshot, client, at, Reason.MISSING_SNI)

    assert (decision is not None) is refused
    if decision is not None:
        assert (decision.verdict, decision.response, decision.ban) == (Verdict.BLOCK, Response.REFUSE, "ban")


@pytest.mark.parametrize("stated", [{"action": Action.WARN}, {"action": Action.MONITOR}, {"announced": None}])
def test_milder_bans_refuse_nothing(stated: dict[str, Any]) -> None:
    """Only a ban that blocks has anything to protect."""
    expected = stated.get("action") is None
    snapshot = builders.snapshot(builders.ban(**stated))

    assert (decide_unreadable(snapshot, "192.0.2.7", START, Reason.ECH_OUTER) is not None) is expected
