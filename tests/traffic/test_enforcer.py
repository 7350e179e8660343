"""The enforcer: what is counted, what is recorded, and what it answers when everything below it fails."""

from dataclasses import replace
from typing import Any

import pytest

from labs import builders
from labs.records import Monotonic, Records, enforcer_of
from tokgate.blocklog.records.folding import Folding
from tokgate.policy import decide as core
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Reason, Signal, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint, Observation, Stage, Visibility
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import NOTHING
from tokgate.traffic.enforcer import Enforcer

NOW = builders.at("2023-04-01T12:00:00Z")
CLIENT = "192.0.2.7"
BANNED = (Sighting(Signal.SNI, "www.clips.example.org"),)
ALLOWED = (Sighting(Signal.SNI, "www.example.org"),)


def an_enforcer(records: Records, **settings: Any) -> Enforcer:
    return enforcer_of(builders.snapshot(builders.ban(), **settings), records, now=lambda: NOW)


def seen() -> Observation:
    return Observation(client=Endpoint(CLIENT, 1024), stage=Stage.TLS, visibility=Visibility.SNI, names=BANNED)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


def test_allowed_traffic_is_counted_only(records: Records) -> None:
    """What passes is counted without its name being so much as looked at; with `allowed=False` at a later stage."""
    enforcer = an_enforcer(records)

    stamp = enforcer.record(enforcer.judge(CLIENT, ALLOWED), Visibility.SNI, broken)

    assert (stamp.id, records.all) == ("", [])
    assert sum(enforcer.counters.decisions.values()) == 1
    assert not enforcer.counters.errors
    for names, counted in ((ALLOWED, 1), (BANNED, 2)):
        enforcer.record(enforcer.judge(CLIENT, names), Visibility.SNI, seen, allowed=False)
        assert sum(enforcer.counters.decisions.values()) == counted


def test_the_gateways_own_canary_is_nobodys_traffic(records: Records) -> None:
    """It asks each minute, and neither figures nor log are about it."""
    enforcer = an_enforcer(records)
    services, networks = {"clips": builders.CLIPS}, {"office": builders.OFFICE}
    own = replace(NOTHING, services=services, networks=networks, bans={"ban": builders.ban()})
    ruling = replace(enforcer.judge(CLIENT, BANNED), snapshot=builders.snapshot(networks=(), services=(), own=own))

    assert ruling.blocks
    assert enforcer.record(ruling, Visibility.SNI, seen).id == ""
    assert (records.all, sum(enforcer.counters.decisions.values())) == ([], 0)


def test_a_record_that_can_not_be_made(records: Records) -> None:
    """The client is refused all the same, and its page has an id to ask about."""
    enforcer = an_enforcer(records)

    assert enforcer.record(enforcer.judge(CLIENT, BANNED), Visibility.SNI, broken).id
    assert records.actions == ["internal-error"]


@pytest.mark.parametrize(("on_error", "verdict"), [(OnError.BLOCK, Verdict.BLOCK), (OnError.ALLOW, Verdict.ALLOW)])
def test_decide_raises(records: Records, monkeypatch: pytest.MonkeyPatch, on_error: OnError, verdict: Verdict) -> None:
    """`on_error` answers for names and addresses of banned services; others pass; the error is counted and recorded.

    When names can't be looked up at all, it holds for everything.
    """
    enforcer = an_enforcer(records, on_error=on_error)
    monkeypatch.setattr(core, "decide_signals", broken)

    assert enforcer.judge(CLIENT, BANNED).decision.verdict is verdict
    assert enforcer.judge(CLIENT, (Sighting(Signal.ADDRESS, "203.0.113.7"),)).decision.verdict is verdict
    assert enforcer.judge(CLIENT, ALLOWED).decision.verdict is Verdict.ALLOW
    assert enforcer.counters.errors["decide"] == 3
    assert str(enforcer.counters.last_error).startswith("decide: RuntimeError at ")
    assert records.actions == ["internal-error"] * 3
    monkeypatch.setattr(core, "decide_on_error", broken)
    decision = enforcer.judge(CLIENT, ALLOWED).decision
    assert (decision.verdict, decision.reason) == (verdict, Reason.INTERNAL_ERROR)


def test_what_passes_because_of_an_error_is_recorded(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `on_error: allow`, who reaches a banned name while deciding fails is in the log; others are not."""
    enforcer = an_enforcer(records, on_error=OnError.ALLOW)
    monkeypatch.setattr(core, "decide_signals", broken)

    for names in (BANNED, ALLOWED):
        enforcer.record(enforcer.judge(CLIENT, names), Visibility.SNI, seen)

    assert records.actions == ["internal-error", "passed-on-error", "internal-error"]
    assert records.all[1]["message"].startswith(f"{CLIENT} reached www.clips.example.org unjudged: deciding failed")
    assert not records.all[1]["tokgate"]["mismatch"], "one name was shown"


def test_a_sink_that_raises(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that fails in a way it shouldn't is counted, and stops nothing."""
    enforcer = an_enforcer(records)
    monkeypatch.setattr(Records, "put", broken)

    ruling = enforcer.judge(CLIENT, BANNED)
    enforcer.record(ruling, Visibility.SNI, seen)
    enforcer.write(lambda stamp: {})

    assert ruling.blocks
    assert enforcer.counters.errors["record"] == 4  # each record, and each record about it


def a_folding_enforcer(records: Records, clock: Monotonic) -> Enforcer:
    """An enforcer whose wall clock goes with `clock`."""
    clocks: Any = {"now": lambda: NOW.add(seconds=clock.now), "monotonic": clock}
    return enforcer_of(builders.snapshot(builders.ban()), records, **clocks)


def test_repeats_become_one_record(records: Records) -> None:
    """The first event is told at once, the next ones when their minute is over: how many, and of which record."""
    clock = Monotonic(0.0)
    enforcer = a_folding_enforcer(records, clock)
    stamps = set()
    for second in range(60):
        clock.now = second
        ruling = enforcer.judge(CLIENT, BANNED)
        if enforcer.repeats(CLIENT, "WWW.clips.example.org", ruling.decision, Stage.TLS, ruling.at):
            continue
        stamps.add(enforcer.record(ruling, Visibility.SNI, seen).id)
        stamps.add(enforcer.record(ruling, Visibility.SNI, seen).id)
        enforcer.settle()
    assert len(records.all) == 1
    clock.now = 60
    enforcer.settle()

    first, again = records.all
    assert stamps == {first["event"]["id"]}
    assert again["tokgate"]["repeats"] == {
        "count": 60,
        "first": first["@timestamp"],
        "last": "2023-04-01T12:00:59.000000Z",
        "of": first["event"]["id"],
    }
    assert again["@timestamp"] == "2023-04-01T12:00:59.000000Z"
    assert "port" not in again["source"]
    assert (again["event"]["action"], again["tokgate"]["rule"]) == (first["event"]["action"], first["tokgate"]["rule"])
    assert again["message"].endswith(
        "This happened 60 times more, from 2023-04-01T12:00:00.000000Z to 2023-04-01T12:00:59.000000Z."
    )
    assert sum(enforcer.counters.decisions.values()) == 61
    assert not enforcer.counters.errors


def test_repeats_of_users_are_told_apart(records: Records) -> None:
    """Two users of one address are two events; the same user again is a repeat."""
    enforcer = an_enforcer(records)
    for user in ("alice", "bob", "alice", "bob"):
        asked = replace(seen(), identity=Identity(user))
        enforcer.record(enforcer.judge(CLIENT, BANNED), Visibility.SNI, lambda asked=asked: asked)  # type: ignore[misc]
    assert [record["user"]["name"] for record in records.all] == ["alice", "bob"]


def test_a_minute_ends_on_a_machine_that_is_busy(records: Records) -> None:
    """An event after more than a minute has a record of its own, also where `settle` comes late."""
    clock = Monotonic(0.0)
    enforcer = a_folding_enforcer(records, clock)
    for clock.now in (0.0, 60.0):
        enforcer.record(enforcer.judge(CLIENT, BANNED), Visibility.SNI, seen)
    assert len(records.all) == 2


def test_more_events_than_are_told_apart_at_a_time(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repeats of the one that makes room are told of at once, and none is lost."""
    enforcer = a_folding_enforcer(records, Monotonic(0.0))
    monkeypatch.setattr(enforcer, "_folding", Folding(limit=1))
    for name in ("a.clips.example.org", "a.clips.example.org", "b.clips.example.org"):
        names = (Sighting(Signal.SNI, name),)
        enforcer.record(enforcer.judge(CLIENT, names), Visibility.SNI, lambda names=names: replace(seen(), names=names))  # type: ignore[misc]
    assert [record["tokgate"].get("repeats", {}).get("count") for record in records.all] == [None, None, 1]


def test_what_a_client_did_about_a_decision(records: Records) -> None:
    """That somebody went on past a warning is in the log each time, and is no further connection."""
    enforcer = an_enforcer(records)
    ruling = enforcer.judge(CLIENT, BANNED)
    for _ in range(2):
        enforcer.tell(ruling, seen())
    assert (len(records.all), sum(enforcer.counters.decisions.values())) == (2, 0)


def test_a_dropped_record_opens_no_fold(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log could not take is never referred to: each event stays one record, and one in the log's gap."""
    enforcer = a_folding_enforcer(records, Monotonic(0.0))
    monkeypatch.setattr(Records, "put", lambda *_: False)
    ruling = enforcer.judge(CLIENT, BANNED)
    enforcer.record(ruling, Visibility.SNI, seen)
    assert not enforcer.repeats(CLIENT, BANNED[0].value, ruling.decision, Stage.TLS, ruling.at)


def test_other_destinations_of_a_nameless_client_are_not_folded(records: Records) -> None:
    """Where no name was seen, the address is what was asked for."""
    enforcer = a_folding_enforcer(records, Monotonic(0.0))
    for address in ("203.0.113.5", "203.0.113.6", "203.0.113.5"):
        observation = Observation(
            client=Endpoint(CLIENT, 1024),
            destination=Endpoint(address, 443),
            stage=Stage.TLS,
            visibility=Visibility.NONE,
        )
        ruling = enforcer.judge(CLIENT, BANNED)
        nameless = replace(ruling, sighting=Sighting(Signal.SNI, ""))
        enforcer.record(nameless, Visibility.NONE, lambda seen=observation: seen)  # type: ignore[misc]
    for _ in range(2):  # what is open at an end is told once
        enforcer.close()
    assert [record["destination"]["ip"] for record in records.all] == ["203.0.113.5", "203.0.113.6", "203.0.113.5"]
    assert "repeats" in records.all[2]["tokgate"]


def test_a_client_with_thousands_of_names_does_not_fill_the_disk(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each invented name under a ban would be a line; beyond a share of them one line counts all, and none is lost."""
    monkeypatch.setattr("tokgate.traffic.enforcer.RECORDS_A_MINUTE", 10)
    enforcer = an_enforcer(records)

    def ask(client: str, name: str) -> str:
        names = (Sighting(Signal.SNI, name),)
        seen_now = replace(seen(), client=Endpoint(client, 1024), names=names)
        return enforcer.record(enforcer.judge(client, names), Visibility.SNI, lambda: seen_now).id

    ids = [ask(CLIENT, f"n{number}.clips.example.org") for number in range(1000)]
    other = ask("192.0.2.8", "www.clips.example.org")
    assert len(records.all) == 12
    assert set(ids) == {record["event"]["id"] for record in records.all[:11]}
    assert records.all[11]["event"]["id"] == other
    enforcer.close()
    (told,) = records.all[12:]
    assert told["tokgate"]["repeats"]["of"] == records.all[10]["event"]["id"]
    assert told["tokgate"]["repeats"]["names"] == {
        "count": 989,
        "first": [f"n{number}.clips.example.org" for number in range(11, 16)],
    }
    assert "domain" not in told["destination"] if "destination" in told else True
    assert "989 names" in told["message"]
    events = sum(record["tokgate"].get("repeats", {"count": 1})["count"] for record in records.all)
    assert events == 1001 == sum(enforcer.counters.decisions.values())


def test_what_can_not_be_read_folds_without_names(records: Records) -> None:
    """One client's attempts are one record and one of repeats, wherever they led; none is a ban's in the counters."""
    enforcer = an_enforcer(records)
    decision = core.decide_unreadable(enforcer.snapshot, CLIENT, NOW, Reason.UNREADABLE)
    assert decision is not None
    for number in range(300):
        name = (Sighting(Signal.SNI, f"{number}.example.org"),)
        ruling = replace(enforcer.judge(CLIENT, name), decision=decision)
        enforcer.record(ruling, Visibility.UNREADABLE, lambda: replace(seen(), names=name))  # noqa: B023
    enforcer.close()

    assert records.actions == ["unreadable-refused"] * 2
    assert records.all[1]["tokgate"]["repeats"]["count"] == 299
    assert "example.org" not in str([record["tokgate"] for record in records.all])
    counted = [(k.network, k.visibility, k.outcome, n) for k, n in enforcer.counters.decisions.items()]
    assert counted == [("office", "unreadable", "unreadable", 300)]
