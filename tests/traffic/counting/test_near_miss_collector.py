"""Near misses: what is kept of names that resemble, how much of it, and that it names no client."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from labs import builders
from labs.records import Clock, Holder, Records
from tokgate.blocklog.records.stamp import Observer
from tokgate.policy.analysis.near_miss import Resemblance
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint, Observation, Stage, Visibility
from tokgate.policy.settings import LogSettings
from tokgate.traffic.counting import near_miss_collector
from tokgate.traffic.counting.near_miss_collector import NearMisses
from tokgate.traffic.enforcer import Enforcer

CLIENT = "192.0.2.7"
NOON = builders.at("2023-04-01T12:00:00Z")
CLIPS = builders.service("clips", "suffix:cliptok.com", "suffix:cliptokcdn.com", "suffix:cliptoklive.com")
ON = LogSettings(near_misses=True)


@pytest.fixture
def sink(valid_record: Callable[[Any], Any]) -> Records:
    """Where the records go."""
    return Records(valid_record)


@pytest.fixture
def clock() -> Clock:
    """The wall clock, at noon."""
    return Clock("2023-04-01T12:00:00Z")


def enforcer(sink: Records, clock: Clock, log: LogSettings = ON, **ban: Any) -> Enforcer:
    """With a ban of clips, that wants to hear of near misses."""
    snapshot = builders.snapshot(builders.ban(**ban), services=(CLIPS,), log=log)
    return Enforcer(Holder(snapshot), sink, Observer(hostname="gw.example.org", version="0"), now=clock)


def ask(enforcer: Enforcer, name: str, client: str = CLIENT, signal: Signal = Signal.SNI) -> None:
    """A connection."""
    names = (Sighting(signal, name),)
    seen = Observation(client=Endpoint(client, 1024), stage=Stage.TLS, visibility=Visibility.SNI, names=names)
    enforcer.enter(enforcer.judge(client, names), Visibility.SNI, lambda: seen)


def test_an_hour_is_one_record_without_clients(sink: Records, clock: Clock) -> None:
    """Spellings and names below are one candidate; nothing says who, or when but for the hour."""
    enforcing = enforcer(sink, clock)
    names = (
        "www.mycliptok.org",
        "API.mycliptok.ORG.",
        "mycliptok.org",
        "mycliptok.org",
        "www.example.org",
        "192.0.2.80",
    )
    for name in names:
        ask(enforcing, name)
    enforcing.settle()
    assert enforcing.near is not None
    assert "www.example.org" in enforcing.near.ordinary, "it is not asked about again"
    ask(enforcing, "www.mycliptok.org", "192.0.2.8")
    ask(enforcing, "clipttok.com", signal=Signal.HTTP_HOST)
    assert sink.all == []
    clock.at = NOON.add(minutes=59)
    enforcing.settle()
    assert sink.all == []
    clock.at = NOON.add(hours=1)
    enforcing.settle()
    (record,) = sink.all
    assert record["event"]["action"] == "near-misses"
    assert record["tokgate"] == {
        "since": "2023-04-01T12:00:00.000000Z",
        "near_misses": {
            "names": [
                {"name": "mycliptok.org", "service": "clips", "word": "cliptok", "how": "contains", "count": 5},
                {"name": "clipttok.com", "service": "clips", "word": "cliptok", "how": "similar", "count": 1},
            ]
        },
    }
    for said in ("192.0.2.", "www.", "example.org:", "office", "12:59"):
        assert said not in json.dumps({k: v for k, v in record.items() if k != "observer"}), said


def test_an_hour_without_any_is_no_record(sink: Records, clock: Clock) -> None:
    """And the end tells what is left."""
    enforcing = enforcer(sink, clock)
    ask(enforcing, "www.example.org")
    clock.at = NOON.add(hours=1)
    enforcing.settle()
    assert sink.all == []
    ask(enforcing, "mycliptok.org")
    enforcing.close()
    assert sink.actions == ["near-misses"]


def test_each_hour_begins_where_the_last_one_ended(sink: Records, clock: Clock) -> None:
    """A second hour is told after an hour, and not with every name that is asked for in it."""
    enforcing = enforcer(sink, clock)
    ask(enforcing, "mycliptok.org")
    clock.at = NOON.add(hours=1)
    enforcing.settle()
    ask(enforcing, "mycliptok.org")
    clock.at = NOON.add(hours=1, seconds=1)
    enforcing.settle()
    assert len(sink.all) == 1
    clock.at = NOON.add(hours=2)
    enforcing.settle()
    assert [record["tokgate"]["since"][11:16] for record in sink.all] == ["12:00", "13:00"]


def test_only_names_that_clients_ask_for(sink: Records, clock: Clock) -> None:
    """A page's address in a request is none: its host was counted already. What a tunnel is for is counted in it."""
    enforcing = enforcer(sink, clock)
    ask(enforcing, "http://mycliptok.org/", signal=Signal.URL)
    ask(enforcing, "mycliptok.org", signal=Signal.CERTIFICATE)
    connect = enforcing.judge(CLIENT, (Sighting(Signal.HTTP_HOST, "mycliptok.org"),))
    enforcing.enter(connect, Visibility.ADDRESS, lambda: pytest.fail("nothing is recorded"), allowed=False)
    clock.at = NOON.add(hours=1)
    enforcing.settle()
    assert sink.all == []


def test_off_unless_asked_for(sink: Records, clock: Clock) -> None:
    """By default nothing of allowed traffic is kept."""
    enforcing = enforcer(sink, clock, LogSettings())
    ask(enforcing, "mycliptok.org")
    enforcing.close()
    assert enforcing.near is None
    assert sink.all == []


def test_only_while_there_is_a_ban(sink: Records, clock: Clock) -> None:
    """Once all bans of a service are over, names that resemble it are nobody's business."""
    enforcing = enforcer(sink, clock, expires=NOON.add(minutes=30))
    ask(enforcing, "mycliptok.org")
    clock.at = NOON.add(hours=1)
    enforcing.settle()
    assert sink.all == []


def test_clients_of_no_network_and_refused_names_do_not_count(sink: Records, clock: Clock) -> None:
    """What is refused has its own record, and strangers are in no ban."""
    enforcing = enforcer(sink, clock)
    ask(enforcing, "mycliptok.org", "198.51.100.1")
    ask(enforcing, "www.cliptok.com")
    enforcing.close()
    assert sink.actions == ["tls-handshake-refused"]


def test_a_new_policy_begins_anew(sink: Records, clock: Clock) -> None:
    """What was met under the old one is told under it; what has become a rule is no near miss any more."""
    enforcing = enforcer(sink, clock)
    ask(enforcing, "mycliptok.org")
    wider = replace(CLIPS, patterns=(*CLIPS.patterns, *builders.service("x", "suffix:mycliptok.org").patterns))
    source = enforcing._source
    assert isinstance(source, Holder)
    source.snapshot = builders.snapshot(builders.ban(), services=(wider,), log=ON)
    enforcing.settle()
    assert sink.actions == ["near-misses"]
    ask(enforcing, "mycliptok.org")
    assert sink.all[-1]["event"]["action"] == "tls-handshake-refused"
    source.snapshot = builders.snapshot(builders.ban(), services=(wider,))
    enforcing.settle()
    assert enforcing.near is None


def test_names_that_resemble_nothing_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sites that everybody asks for are looked at once, until there are more than may be remembered."""
    monkeypatch.setattr(near_miss_collector, "MOST_ORDINARY", 3)
    near = NearMisses(Resemblance([CLIPS]))
    remembered = []
    for number in range(5):
        near.meet(f"host.site{number}.org")
        near.look()
        remembered.append(len(near.ordinary))
        near.meet(f"host.site{number}.org")
        assert near._pending == {}, "it is not looked at again"
    assert remembered == [1, 2, 3, 1, 2]


def test_names_that_resemble_are_compared_once() -> None:
    """A site with a tempting name that everybody asks for costs a comparison once, and each request is counted."""
    near = NearMisses(Resemblance([CLIPS]))
    for _ in range(3):
        near.look()
        for name in ("mycliptok.org", "cliptok.net"):
            near.meet(name)
    assert near._pending == {}
    assert [each.count for each in near.take()[0]] == [3, 3]


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names without end cost no memory without end, and a look takes a bounded time; what is left out is counted."""
    for bound, value in (("MOST_ORDINARY", 50), ("MOST_PENDING", 40), ("MOST_KNOWN", 5), ("MOST_TOLD", 10)):
        monkeypatch.setattr(near_miss_collector, bound, value)
    near = NearMisses(Resemblance([CLIPS]))
    for turn in range(20):
        for number in range(100):
            near.meet(f"host{number}.site{turn}.org")
        assert len(near._pending) == 40
        near.look(7)
        assert len(near.ordinary) <= 50
    near.look(40)
    for number in range(30):
        near.meet(f"cliptok{number}.org")
    told, more = near.take()
    assert (len(told), more) == (10, 20)
    assert len(near._known) <= 5
    assert near.take() == ((), 0)
