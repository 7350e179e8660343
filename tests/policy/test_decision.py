"""The closed sets of a decision: each word means one thing for everyone who asks."""

from dataclasses import replace
from typing import Any

import pytest

from labs import builders
from labs.builders import at
from tokgate.policy import decide as decide_module
from tokgate.policy.decide import Sighting, is_under_block
from tokgate.policy.decision import Decision, Reason, Response, Signal, Verdict
from tokgate.policy.settings import PortRange


def test_responses() -> None:
    """Nothing is decrypted for a plain refusal, and only a page is shown to people."""
    assert {response for response in Response if response.opens} == {Response.PAGE, Response.INSPECT}
    assert {response for response in Response if response.shows_page} == {Response.PAGE}


def test_the_host_of_a_sighting() -> None:
    """A URL that can't be taken apart names no host, instead of ending the decision."""
    assert Sighting(Signal.SNI, "WWW.example.org").host == "WWW.example.org"
    assert Sighting(Signal.SNI, "").host is None
    assert Sighting(Signal.URL, "https://www.example.org:8443/a").host == "www.example.org"
    assert Sighting(Signal.URL, "https://[::1/").host is None


def test_bans_are_gone_through_once_for_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a thousand bans a new connection costs no look at each of them, until one of them changes."""
    looked: list[Any] = []
    block = decide_module._block

    def noted(*given: Any) -> Any:
        looked.append(given)
        return block(*given)

    monkeypatch.setattr(decide_module, "_block", noted)
    snapshot = builders.snapshot(builders.ban())
    for minute in range(10):
        is_under_block(snapshot, "192.0.2.7", at("2023-04-01T12:00:00Z").add(minutes=minute))
    assert len(looked) == 1
    is_under_block(snapshot, "192.0.2.7", at("2023-03-01T12:00:00Z"))
    assert len(looked) == 2


def test_ports_in_messages() -> None:
    """A single port reads as one, and a range with both its ends."""
    assert [str(each) for each in (PortRange(443, 443), PortRange(8000, 8010))] == ["443", "8000-8010"]


def test_what_is_unreadable() -> None:
    """A refusal under no ban, for one of the reasons why something can't be read."""
    refused = Decision(Verdict.BLOCK, Reason.MISSING_SNI)
    assert refused.is_unreadable
    for other in ({"ban": "ban"}, {"reason": Reason.UNKNOWN_CLIENT}, {"verdict": Verdict.ALLOW}):
        assert not replace(refused, **other).is_unreadable
