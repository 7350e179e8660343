"""The enforcer: what is counted, what is recorded, and what it answers when everything below it fails."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import builders
from tokgate.blocklog.observation import Endpoint, Observation, Stage, Visibility
from tokgate.blocklog.stamp import Observer
from tokgate.gate.enforcer import Enforcer
from tokgate.policy import decide as core
from tokgate.policy.bans import OnError
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Reason, Signal, Verdict
from tokgate.policy.snapshot import Snapshot

NOW = builders.at("2023-04-01T12:00:00Z")
CLIENT = "192.0.2.7"
BANNED = (Sighting(Signal.SNI, "www.clips.example.org"),)
ALLOWED = (Sighting(Signal.SNI, "www.example.org"),)


@dataclass
class Holder:
    """Holds a snapshot."""

    snapshot: Snapshot


class Sink(list[dict[str, Any]]):
    """Keeps records that are on schema."""

    def __init__(self, check: Callable[[Any], Any]) -> None:
        super().__init__()
        self.check = check

    def put(self, record: dict[str, Any]) -> bool:
        self.append(self.check(record))
        return True


@pytest.fixture
def sink(valid_record: Callable[[Any], Any]) -> Sink:
    """Where the records go."""
    return Sink(valid_record)


def an_enforcer(sink: Sink, **settings: Any) -> Enforcer:
    """An enforcer of one ban."""
    holder = Holder(builders.snapshot(builders.ban(), **settings))
    return Enforcer(holder, sink, Observer(hostname="gateway.example.org", version="0"), now=lambda: NOW)


def seen() -> Observation:
    """A refused hello."""
    return Observation(client=Endpoint(CLIENT, 1024), stage=Stage.TLS, visibility=Visibility.SNI, names=BANNED)


def broken(*_: Any, **__: Any) -> Any:
    """Raises."""
    raise RuntimeError("broken on purpose")


def test_blocked_traffic_is_counted_and_recorded(sink: Sink) -> None:
    """A block leaves a record whose id is the stamp's, and one count."""
    enforcer = an_enforcer(sink)

    ruling = enforcer.judge(CLIENT, BANNED)
    stamp = enforcer.enter(ruling, Visibility.SNI, seen)

    assert ruling.blocks
    assert [record["event"]["id"] for record in sink] == [stamp.id]
    assert [(k.network, k.verdict, n) for k, n in enforcer.counters.decisions.items()] == [("office", "block", 1)]


def test_allowed_traffic_is_counted_only(sink: Sink) -> None:
    """What passes is counted without its name being so much as looked at."""
    enforcer = an_enforcer(sink)

    stamp = enforcer.enter(enforcer.judge(CLIENT, ALLOWED), Visibility.SNI, broken)

    assert (stamp.id, sink) == ("", [])
    assert sum(enforcer.counters.decisions.values()) == 1
    assert not enforcer.counters.errors


def test_unknown_clients_are_counted_together(sink: Sink) -> None:
    """Clients of no network are counted under a name that no network can have."""
    enforcer = an_enforcer(sink)

    enforcer.enter(enforcer.judge("198.51.100.1", ALLOWED), Visibility.SNI, seen)

    assert [k.network for k in enforcer.counters.decisions] == ["-"]


def test_passing_now_counted_later(sink: Sink) -> None:
    """With `allowed=False` only a block counts: what passes will be counted at a later stage."""
    enforcer = an_enforcer(sink)

    enforcer.enter(enforcer.judge(CLIENT, ALLOWED), Visibility.SNI, seen, allowed=False)

    assert not enforcer.counters.decisions


@pytest.mark.parametrize(("on_error", "verdict"), [(OnError.BLOCK, Verdict.BLOCK), (OnError.ALLOW, Verdict.ALLOW)])
def test_decide_raises(sink: Sink, monkeypatch: pytest.MonkeyPatch, on_error: OnError, verdict: Verdict) -> None:
    """`on_error` answers for names of banned services; others pass; the error is counted and recorded."""
    enforcer = an_enforcer(sink, on_error=on_error)
    monkeypatch.setattr(core, "decide_signals", broken)

    assert enforcer.judge(CLIENT, BANNED).decision.verdict is verdict
    assert enforcer.judge(CLIENT, ALLOWED).decision.verdict is Verdict.ALLOW
    assert enforcer.counters.errors["decide"] == 2
    assert [record["event"]["action"] for record in sink] == ["internal-error"] * 2


@pytest.mark.parametrize(("on_error", "verdict"), [(OnError.BLOCK, Verdict.BLOCK), (OnError.ALLOW, Verdict.ALLOW)])
def test_even_the_fallback_raises(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, on_error: OnError, verdict: Verdict
) -> None:
    """When names can't be looked up at all, `on_error` holds for everything."""
    enforcer = an_enforcer(sink, on_error=on_error)
    monkeypatch.setattr(core, "decide_signals", broken)
    monkeypatch.setattr(core, "fallback", broken)

    decision = enforcer.judge(CLIENT, ALLOWED).decision

    assert (decision.verdict, decision.reason) == (verdict, Reason.INTERNAL_ERROR)


def test_a_sink_that_raises(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that fails in a way it shouldn't is counted, and stops nothing."""
    enforcer = an_enforcer(sink)
    monkeypatch.setattr(Sink, "put", broken)

    ruling = enforcer.judge(CLIENT, BANNED)
    enforcer.enter(ruling, Visibility.SNI, seen)
    enforcer.write(lambda stamp: {})

    assert ruling.blocks
    assert enforcer.counters.errors["record"] == 4  # each record, and each record about it
