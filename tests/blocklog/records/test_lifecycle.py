"""Records about tokgate itself: on schema, and readable without the fields."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from labs.builders import at, ban, exemption, snapshot, wall
from labs.samples import NOON, SNAPSHOT, stamp
from tokgate.blocklog.records import lifecycle, log_state
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.record import EventAction
from tokgate.policy.analysis.definitions import ChangeKind, DefinitionChange
from tokgate.policy.analysis.held_bans import BanEffects
from tokgate.policy.analysis.timeline import TransitionKind, transitions
from tokgate.policy.bans import Lifted

TORN = {"bytes": 1, "sha256": "0" * 64, "lines": 1}
FOREIGN = TORN | {"bytes": 5, "line": 7, "file": "a.ndjson", "running": True}
Valid = Callable[[dict[str, Any]], dict[str, Any]]


def test_start_and_stop(valid_record: Valid) -> None:
    """A start tells the policy and its extent, a stop why."""
    begun = valid_record(lifecycle.started(stamp(), 42, SNAPSHOT.policy))
    assert begun["message"] == "tokgate 0.1.0 started with policy test: 1 ban, 1 network, 1 service, 1 exemption."
    ended = valid_record(lifecycle.stopped(stamp(), 42, "SIGTERM"))
    assert ended["event"] | {"action": "stopped", "type": ["end"], "reason": "SIGTERM"} == ended["event"]
    assert begun["process"] == ended["process"] == {"pid": 42}


def test_a_policy_that_is_loaded(valid_record: Valid) -> None:
    """A load names the version it replaced, how many warnings there were, and settings that wait for a restart."""
    waits = ("settings.log.key",)
    record = lifecycle.policy_loaded(stamp(), SNAPSHOT.policy, replaced="before", warnings=2, restart=waits)
    said = valid_record(record)["tokgate"]["policy"]
    assert (said["replaced"], said["warnings"], said["restart_needed"]) == ("before", 2, [*waits])
    assert record["message"].startswith("Policy test replaced before: ")
    assert record["message"].endswith(" Only after a restart: settings.log.key.")
    plain = valid_record(lifecycle.policy_loaded(stamp(), SNAPSHOT.policy))["tokgate"]["policy"]
    assert not {"replaced", "restart_needed"} & set(plain)


def test_lifted_bans_at_a_start(valid_record: Valid) -> None:
    """They are told with why and by whom: they may have been lifted before."""
    lifted = (Lifted(ban="old", reason="Repealed", by="ann"), Lifted(ban="older", reason="Over"))
    begun = valid_record(lifecycle.started(stamp(), 42, replace(SNAPSHOT.policy, lifted=lifted)))
    assert begun["message"].endswith(" Stated as lifted: old: Repealed (ann), older: Over.")
    assert begun["tokgate"]["policy"]["lifted_because"] == ["old: Repealed (ann)", "older: Over"]


@pytest.mark.parametrize(("uncommitted", "since"), [(True, ", and uncommitted changes"), (False, "")])
def test_what_a_loaded_policy_changes(valid_record: Valid, uncommitted: bool, since: str) -> None:
    """Which bans it begins, ends and lifts, why and by whom; which it holds; who wrote it. Long lists are cut."""
    why = (("old", "the term is over", "alice"), ("older", "a mistake", None), ("elsewhere", "no ban of now", None))
    lifted = tuple(Lifted(ban=name, reason=reason, by=by) for name, reason, by in why)
    policy = replace(SNAPSHOT.policy, lifted=lifted, held=("gone",))
    begun = tuple(f"ban-{number}" for number in range(lifecycle.MAX_NAMES + 1))
    effects = BanEffects(begun=begun, ended=("done",), lifted=("old", "older"))
    changes = [DefinitionChange("bans", "new", ChangeKind.ADDED)] * (lifecycle.MAX_NAMES + 2)
    revision: dict[str, str | bool] = {"commit": "c0ffee", "author": "Alice", "uncommitted": uncommitted}
    record = valid_record(lifecycle.policy_loaded(stamp(), policy, effects=effects, changes=changes, revision=revision))
    assert record["message"] == (
        "Policy test is in force: 1 ban, 1 network, 1 service, 1 exemption. "
        f"Bans begun: {', '.join(begun[:-1])} and 1 more. Bans ended: done. "
        "Bans lifted: old: the term is over (alice), older: a mistake. "
        f"Held, since the files no longer state it: gone. Written by Alice (c0ffee){since}."
    )
    said = record["tokgate"]["policy"]
    assert said["bans_begun"] == list(begun[:-1])
    assert (said["bans_ended"], said["bans_lifted"]) == (["done"], ["old", "older"])
    assert said["lifted_because"] == ["old: the term is over (alice)", "older: a mistake"]
    assert (said["more_changes"], said["uncommitted"]) == (2, uncommitted)
    assert said["changes"] == ["bans.new added"] * lifecycle.MAX_NAMES


@pytest.mark.parametrize("kept", ["before", None])
def test_a_policy_that_cannot_be_loaded(valid_record: Valid, kept: str | None) -> None:
    """A failed load says what stays in force, keeps the first errors and counts all."""
    problems = [f"p.yaml:{n}:1: error: unknown key `x` [unknown-key]\n" for n in range(100)]
    record = valid_record(lifecycle.policy_load_failed(stamp(), problems, kept=kept))
    assert record["event"]["outcome"] == "failure"
    assert record["tokgate"]["policy"]["errors"] == 100
    assert len(record["tokgate"]["policy"]["problems"]) == lifecycle.MAX_PROBLEMS
    stays = "policy before stays in force" if kept else "no policy is in force"
    first = "p.yaml:0:1: error: unknown key `x` [unknown-key]"
    assert record["message"].startswith(f"The policies could not be loaded (100 errors), {stays}: {first}")
    assert lifecycle.policy_load_failed(stamp(), [], kept=kept)["message"].endswith(f"{stays}: no details")


def test_every_kind_of_transition(valid_record: Valid) -> None:
    """Phases, windows, overdue bans and exemptions are told apart in words and in `tokgate.transition`."""
    from whenever import Time, Weekday

    from tokgate.policy.bans import OnExpiry
    from tokgate.policy.schedule import Window

    policy = snapshot(
        ban(
            announced=wall("2023-03-09T00:00"),
            expires=wall("2023-04-10T00:00"),
            on_expiry=OnExpiry.HOLD,
            windows=(Window(frozenset([Weekday.MONDAY]), Time(8), Time(18)),),
        ),
        exemptions=(exemption(starts=wall("2023-03-11T00:00")),),
    )
    kinds = set()
    for change in transitions(policy, at("2023-03-01T00:00:00Z"), at("2023-05-01T00:00:00Z")):
        record = valid_record(lifecycle.phase_changed(stamp(), change, policy.version))
        kinds.add(TransitionKind(record["tokgate"]["transition"]))
        assert "Europe/Brussels" in record["message"]
        assert "extended by" not in record["message"]
        joined = lifecycle.phase_changed(stamp(), replace(change, extended_by=("x", "y")), policy.version)
        assert (", extended by x, y, for" in joined["message"]) is (change.kind is TransitionKind.PHASE)
    assert kinds == set(TransitionKind)


def test_a_ban_near_its_end(valid_record: Valid) -> None:
    """The warning says when the ban ends where it holds, and whom to ask."""
    record = valid_record(lifecycle.ban_near_expiry(stamp(), SNAPSHOT.tracks[0], "test"))
    assert "ends at 2023-09-10 00:00 Europe/Brussels, for office; then: lapse." in record["message"]
    assert record["tokgate"]["contact"] == "desk@example.org"
    with pytest.raises(ValueError, match="has no end"):
        lifecycle.ban_near_expiry(stamp(), snapshot(ban()).tracks[0], "test")


def test_an_override(valid_record: Valid) -> None:
    """Start and end say who, for whom, until when and why; names and reasons can't misbehave."""
    ends = at("2023-03-10T13:00:00Z")
    clients = tuple(ip_network(f"192.0.2.{host}") for host in range(20))
    hole = exemption(clients=clients, reason="Press\x1b[31m", by="alice", ticket="CHG-1", override=True)
    begun = valid_record(lifecycle.override_started(stamp(), hole, ends, "test"))
    assert begun["message"].endswith(
        "192.0.2.15/32 and 4 more until 2023-03-10T13:00:00.000000Z, made by alice: Press\\x1b[31m (CHG-1)."
    )
    assert begun["user"] == {"name": "alice"}
    assert len(begun["tokgate"]["clients"]) == lifecycle.MAX_CLIENTS
    over = valid_record(
        lifecycle.override_ended(stamp(), replace(hole, ended_by="bob"), ends, "test", why="ended early")
    )
    assert (over["user"], over["event"]["reason"]) == ({"name": "bob"}, "ended early")
    assert over["message"].endswith(": ended early by bob.")
    assert begun["tokgate"]["widest"] == {"ipv4": 32}
    wide = replace(hole, clients=tuple(map(ip_network, ("192.0.2.7", "198.51.100.0/24", "2001:db8::/48", "::1"))))
    assert lifecycle.override_started(stamp(), wide, ends, "test")["tokgate"]["widest"] == {"ipv4": 24, "ipv6": 48}
    for count, more in ((lifecycle.MAX_CLIENTS, "192.0.2.15/32 until"), (17, "192.0.2.15/32 and 1 more until")):
        assert more in lifecycle.override_started(stamp(), replace(hole, clients=clients[:count]), ends, "t")["message"]
    odd = replace(hole, by="a\x1b", ticket="t\x1b", ended_by="b\x1b")
    said = lifecycle.override_ended(stamp(), odd, ends, "test", why="ended early")
    own = said["tokgate"]
    assert (own["by"], own["ticket"], own["ended_by"]) == ("a\\x1b", "t\\x1b", "b\\x1b")
    assert said["user"] == {"name": "b\\x1b"}
    nameless = replace(hole, by=None, ticket=None)
    assert "user" not in valid_record(lifecycle.override_started(stamp(), nameless, ends, "test"))


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("no route to ('192.0.2.7', 443)", "no route to ('(address)', 443)"),
        ("192.0.2.7:51234 sent nonsense", "(address):51234 sent nonsense"),
        ("[2001:db8::7]:443, fe80::1%eth0, ::ffff:192.0.2.7.", "[(address)]:443, (address), (address)."),
        ("label too long: 'User1.Example.COM'", "label too long: '(name)'"),
        ("www.example.com:443 ended", "(name):443 ended"),
        ("No such file: '/etc/tokgate/policy.yaml'", "No such file: '/etc/tokgate/policy.yaml'"),
        ("gate-0 ended with signal 9 at 12:34:56", "gate-0 ended with signal 9 at 12:34:56"),
        ("'NoneType' object has no attribute 'value'; 3.13", "'NoneType' object has no attribute 'value'; 3.13"),
    ],
)
def test_what_an_error_says_names_nobody(said: str, written: str, valid_record: Valid) -> None:
    """Exceptions quote what they failed on: neither a client nor a name comes into the log that way."""
    try:
        try:
            raise OSError(said)
        except OSError as error:
            raise ValueError(said) from error
    except ValueError as error:
        record = valid_record(lifecycle.internal_error(stamp(), error, "gate"))
    assert record["error"]["message"] == record["event"]["reason"] == written
    assert record["message"] == f"gate failed with ValueError: {written}."
    assert record["error"]["stack_trace"].count(written) == 2
    assert "test_lifecycle.py" in record["error"]["stack_trace"]


def test_an_error_without_words(valid_record: Valid) -> None:
    """It says so; and what an exception can hold is bounded, its end being what helps."""
    record = valid_record(lifecycle.internal_error(stamp(), ValueError(), "w" * 200))
    assert record["message"].endswith(" failed with ValueError: no message.")
    assert len(record["tokgate"]["where"]) == 128
    bad = lifecycle.internal_error(stamp(), ValueError("bad\x1b[31m name"), "next_layer")
    assert bad["message"] == "next_layer failed with ValueError: bad\\x1b[31m name."
    long = valid_record(lifecycle.internal_error(stamp(), ValueError("y" * 20_000 + " z"), "gate"))
    assert len(long["error"]["stack_trace"]) == lifecycle.MAX_TRACE
    assert long["error"]["stack_trace"].endswith("y z\n")


@pytest.mark.parametrize("more", [0, 1])
def test_long_lists_are_cut(more: int) -> None:
    """At fifty names, or twenty errors; the rest is counted, and nothing is said of a rest that there is not."""
    names = tuple(f"b{number}" for number in range(50 + more))
    policy = replace(SNAPSHOT.policy, held=names)
    changes = [DefinitionChange("bans", "new", ChangeKind.ADDED)] * (50 + more)
    loaded = lifecycle.policy_loaded(stamp(), policy, effects=BanEffects(ended=names), changes=changes)
    said, kept = loaded["tokgate"]["policy"], list(names[:50])
    assert (said["bans_ended"], said["bans_held"], len(said["changes"])) == (kept, kept, 50)
    assert said.get("more_changes") == (more or None)
    assert loaded["message"].count(" and 1 more.") == 2 * more
    found = [f"d{number}" for number in range(20 + more)]
    differs = lifecycle.gateway_changed(stamp(), EventAction.GATEWAY_DIFFERS, found, "v1")
    assert differs["tokgate"]["gateway"]["differences"] == found[:20]
    assert differs["message"] == f"The gateway's kernel differs: d0 (and {19 + more} more)."


_WHEN = "between 2023-03-10T11:00:00.123456Z and 2023-03-10T11:00:00.123456Z"
_TORN = "torn: 1 byte of records whose writing was interrupted."


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: log_state.log_gap(stamp(), 1, NOON, NOON), f"1 record was dropped {_WHEN}; enforcement went on."),
        (lambda: log_state.log_gap(stamp(), 2, NOON, NOON), f"2 records were dropped {_WHEN}; enforcement went on."),
        (
            lambda: log_state.log_continued(stamp(), file="a.ndjson", records=1, size=99, why="full"),
            "The log continues from a.ndjson (1 record, 99 bytes): full.",
        ),
        (
            lambda: log_state.log_continued(stamp(), file=None, records=0, size=0, why="gone", last=Head("c0ffee")),
            "The log continues from a file that is gone: gone.",
        ),
        (lambda: log_state.log_recovered(stamp(), TORN), f"The line before this one is {_TORN}"),
        (lambda: log_state.log_recovered(stamp(), TORN | {"lines": 3}), f"The 3 lines before this one are {_TORN}"),
        (lambda: log_state.log_deleted(stamp(), ["a"], 1), "1 file of the log was older than 1 day: deleted."),
        (lambda: log_state.log_deleted(stamp(), ["a", "b"], 7), "2 files of the log were older than 7 days: deleted."),
        (
            lambda: log_state.log_foreign(stamp(), FOREIGN),
            "1 line of this log, from line 7 of a.ndjson, was not written by tokgate: while tokgate was writing it.",
        ),
        (
            lambda: log_state.log_foreign(stamp(), FOREIGN | {"lines": 2, "running": False}),
            "2 lines of this log, from line 7 of a.ndjson, were not written by tokgate: since tokgate last wrote it.",
        ),
    ],
)
def test_the_logs_own_sentences(build: Callable[[], dict[str, Any]], said: str, valid_record: Valid) -> None:
    """Who reads the log alone, without its fields, is told what happened to it."""
    told = valid_record(build())
    assert told["message"] == said
    assert "sequence" not in told["tokgate"].get("continues", {}), "of a log without a record"
    assert told["tokgate"].get("torn", {}).get("lines") == (3 if "3 lines" in said else None)
    assert (told["event"]["outcome"] == "failure") is ("dropped" in said or "not written" in said)


def test_a_clock_that_jumps(valid_record: Valid) -> None:
    """By how much, to the millisecond, and from when."""
    back = valid_record(log_state.clock_set_back(stamp(), NOON.add(milliseconds=1500, nanoseconds=600_000)))
    assert back["message"].startswith("The clock was set back by 1.5 s, from 2023-03-10T11:00:01.624056Z")
    assert back["tokgate"]["clock"] == {"before": "2023-03-10T11:00:01.624056Z", "seconds": 1.501}
    forward = valid_record(log_state.clock_set_forward(stamp(), NOON.subtract(milliseconds=1500, microseconds=600)))
    assert forward["message"] == "The clock was set forward by 1.5 s, from 2023-03-10T10:59:58.622856Z."
    assert forward["tokgate"]["clock"]["seconds"] == 1.501


def test_the_gateways_kernel(valid_record: Valid) -> None:
    """What differed is said, in a record that failed and one that put it right."""
    found = ["chain forward is missing", "net.ipv4.ip_forward is 0"]
    differs = valid_record(lifecycle.gateway_changed(stamp(), EventAction.GATEWAY_DIFFERS, found, "0c2bfe1dd0f4"))
    assert differs["message"] == "The gateway's kernel differs: chain forward is missing (and 1 more)."
    assert differs["event"]["outcome"] == "failure"
    assert differs["tokgate"]["gateway"] == {"differences": found}
    restored = valid_record(lifecycle.gateway_changed(stamp(), EventAction.GATEWAY_RESTORED, found[:1], "0c2bfe1dd0f4"))
    assert restored["message"] == "The gateway's kernel was restored: chain forward is missing."
    assert restored["event"]["outcome"] == "success"
    failed = valid_record(lifecycle.gateway_changed(stamp(), EventAction.CANARY_FAILED, found, "0c2bfe1dd0f4"))
    recovered = valid_record(lifecycle.gateway_changed(stamp(), EventAction.CANARY_RECOVERED, found, "0c2bfe1dd0f4"))
    assert [(each["event"]["action"], each["event"]["outcome"]) for each in (failed, recovered)] == [
        ("canary-failed", "failure"),
        ("canary-recovered", "success"),
    ]
