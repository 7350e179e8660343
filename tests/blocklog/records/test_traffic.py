"""Records about traffic: one for each way a decision takes effect, on schema, readable and free of what is private."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs.builders import at, ban, present, snapshot, wall
from labs.samples import NAME, SNAPSHOT, judged, seen, stamp
from tokgate.blocklog.records.folding import Fold
from tokgate.blocklog.records.record import decode, encode
from tokgate.blocklog.records.traffic import repeats_record, traffic_record
from tokgate.policy.bans import Action, OnExpiry
from tokgate.policy.decide import Judgement, Sighting, decide_unreadable
from tokgate.policy.decision import HIDDEN, Reason, Response, Signal
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint, HttpSeen, Observation, Stage, Visibility
from tokgate.policy.settings import UnknownClients
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values import Origin

Valid = Callable[[dict[str, Any]], dict[str, Any]]


def record_of(
    observation: Observation, policy: Snapshot = SNAPSHOT, moment: str = "2023-03-10T11:00:00.123456Z"
) -> Any:
    """The record of an observation under a policy, as it comes back from a line."""
    record = present(traffic_record(stamp(moment), observation, judged(observation, moment, policy), policy))
    return decode(encode(record))


_OBSERVED = {"source", "destination", "network", "tls", "related"}
"""Of these fields all are in test_ecs_fields.py."""


def test_a_refused_handshake_in_full(valid_record: Valid) -> None:
    """The record of an SNI block, field by field."""
    record = valid_record(record_of(seen(connection="c-1")))
    assert {key: value for key, value in record.items() if key not in _OBSERVED} == {
        "@timestamp": "2023-03-10T11:00:00.123456Z",
        "message": (
            "192.0.2.7 (office) was refused www.clips.example.org: The ban [ban], decided by Example Council "
            "(Circular 7), until 2023-09-10 00:00 Europe/Brussels."
        ),
        "ecs": {"version": "9.4.0"},
        "event": {
            "id": "01862000-0000-7000-8000-000000000001",
            "kind": "event",
            "category": ["network"],
            "type": ["connection", "denied"],
            "action": "tls-handshake-refused",
            "outcome": "success",
            "reason": "The ban: Circular 7",
            "code": "ban-block",
            "module": "tokgate",
            "dataset": "tokgate.block",
        },
        "observer": {
            "type": "proxy",
            "vendor": "tokgate",
            "product": "tokgate",
            "version": "0.1.0",
            "hostname": "gw1.example.org",
            "name": "gate-0",
        },
        "tokgate": {
            "stage": "tls",
            "visibility": "sni",
            "connection": "c-1",
            "names": {"sni": [NAME]},
            "alpn": ["h2", "http/1.1"],
            "ja4": "t13d1516h2_8daaf6152771_02713d6af862",
            "ech": True,
            "verdict": "block",
            "mode": "enforce",
            "reason": "ban-block",
            "phase": "block",
            "service": "clips",
            "rule": "suffix:clips.example.org",
            "signal": "sni",
            "network": "office",
            "ban": "ban",
            "authority": "Example Council",
            "basis": "Circular 7",
            "contact": "desk@example.org",
            "until": "2023-09-09T22:00:00.000000Z",
            "response": "refuse",
            "next_change": "2023-09-09T22:00:00.000000Z",
            "mismatch": False,
            "policy": {"version": "test"},
        },
        "rule": {
            "id": "ban",
            "name": "The ban",
            "category": "clips",
            "version": "test",
            "description": "Circular 7",
            "reference": "https://example.org/circular-7",
            "uuid": record["rule"]["uuid"],
        },
    }


@pytest.mark.parametrize(
    ("stage", "action", "kinds", "protocol", "said"),
    [
        (Stage.TLS, "tls-handshake-refused", ["connection"], "tls", f"refused {NAME}"),
        (Stage.QUIC, "quic-refused", ["connection"], "quic", f"refused {NAME} over QUIC"),
        (Stage.CONNECT, "connect-refused", ["connection", "access"], "http", f"refused a tunnel to {NAME}"),
        (Stage.HTTP, "http-request-blocked", ["connection", "access"], "http", f"refused {NAME} over HTTP"),
        (Stage.DNS, "dns-query-blocked", ["protocol"], "dns", f"refused the address of {NAME}"),
        (Stage.ADDRESS, "connection-refused", ["connection"], None, "refused a connection to 203.0.113.5"),
        (Stage.LIVE, "connection-cut", ["connection", "end"], None, f"cut off from {NAME}"),
    ],
)
def test_a_block_at_each_stage(
    valid_record: Valid, stage: Stage, action: str, kinds: list[str], protocol: str | None, said: str
) -> None:
    """Each stage has its own action, with the categories that ECS expects of it."""
    record = valid_record(record_of(seen(stage)))
    assert record["event"]["action"] == action
    assert record["event"]["category"] == (["network", "web"] if "access" in kinds else ["network"])
    assert record["event"]["type"] == [*kinds, "denied"]
    assert record["network"].get("protocol") == protocol
    assert record["tokgate"]["ban"] == "ban"
    assert record["message"].startswith(f"192.0.2.7 (office) was {said}: The ban [ban], decided by Example Council (")


@pytest.mark.parametrize(
    ("action", "stage", "opened", "expected"),
    [
        (Action.MONITOR, Stage.TLS, False, "would-block"),
        (Action.MONITOR, Stage.DNS, False, "would-block"),
        (Action.WARN, Stage.TLS, True, "tls-opened"),
        (Action.WARN, Stage.TLS, False, "connection-warned"),
        (Action.WARN, Stage.HTTP, True, "http-request-warned"),
        (Action.BLOCK, Stage.TLS, True, "tls-opened"),
        (Action.BLOCK, Stage.HTTP, True, "http-request-blocked"),
    ],
)
def test_milder_verdicts_and_opened_connections(
    valid_record: Valid, action: Action, stage: Stage, opened: bool, expected: str
) -> None:
    """Warnings, would-blocks and connections opened for the page say so and are on schema."""
    policy = snapshot(ban(action=action, response=Response.PAGE))
    record = valid_record(record_of(seen(stage, opened=opened), policy))
    assert record["event"]["action"] == expected
    assert record["tokgate"]["mode"] == {"block": "enforce"}.get(action, action.value)
    assert "until lifted" in record["message"]
    assert record.get("tls", {}).get("established") is (True if opened else None)


def test_continuing_past_a_warning(valid_record: Valid) -> None:
    """Who, past which ban, and until when, in the zone of the people concerned."""
    policy = snapshot(ban(action=Action.WARN, response=Response.PAGE))
    observation = seen(Stage.HTTP, opened=True, continued_until=at("2023-03-10T19:00:00Z"))
    record = valid_record(record_of(observation, policy))
    assert record["event"]["action"] == "warning-continued"
    assert record["event"]["type"] == ["connection", "access", "allowed"]
    assert record["tokgate"]["continued_until"] == "2023-03-10T19:00:00.000000Z"
    assert "192.0.2.7 (office) continues to www.clips.example.org past the warning" in record["message"]
    assert record["message"].endswith("The page is not shown again until 2023-03-10 20:00 Europe/Brussels.")


def test_an_exemption_used_is_recorded_with_its_reason(valid_record: Valid) -> None:
    """Whoever passes by an exemption is named, with the reason and the end of the exemption."""
    record = valid_record(record_of(seen(client=Endpoint("192.0.2.9"))))
    assert record["event"]["action"] == "exemption-used"
    assert record["event"]["type"] == ["connection", "allowed"]
    assert record["tokgate"]["exemption"] == "press"
    assert record["tokgate"]["exemption_until"] == "2023-03-31T16:00:00.000000Z"
    assert "under exemption press (Monitoring of public statements, until 2023-03-31 18:00" in record["message"]


def test_a_block_without_a_ban_says_why(valid_record: Valid) -> None:
    """`unknown_clients: block` refuses without any ban: no rule, but a reason in words."""
    policy = snapshot(ban(), unknown_clients=UnknownClients.BLOCK)
    record = valid_record(record_of(seen(client=Endpoint("198.51.100.1")), policy))
    assert "rule" not in record
    assert record["event"]["code"] == "unknown-client"
    assert record["message"].endswith("the client belongs to no network of the policy.")


@pytest.mark.parametrize("stage", [Stage.TLS, Stage.QUIC, Stage.CONNECT, Stage.HTTP, Stage.ADDRESS, Stage.LIVE])
@pytest.mark.parametrize("reason", sorted(HIDDEN))
def test_what_could_not_be_read_names_no_ban_and_no_destination(
    valid_record: Valid, stage: Stage, reason: Reason
) -> None:
    """Neither in the record nor in that of its repeats, whatever was seen of the connection."""
    others = seen(stage, (Signal.SNI, "www.example.net"), (Signal.URL, "https://www.example.net/a"), connection="c-1")
    moment, client = at("2023-03-10T11:00:00.123456Z"), others.client.ip
    decision = present(decide_unreadable(SNAPSHOT, client, moment, reason))
    judgement = Judgement(decision, Sighting(Signal.SNI, "www.example.net"), mismatch=True)
    first = traffic_record(stamp(), others, judgement, SNAPSHOT)
    fold = Fold((), None, 0.0, 2, moment, moment)
    again = repeats_record(stamp(), others, judgement, SNAPSHOT, fold, stamp().id)
    for record in (first, again):
        assert record is not None
        valid_record(record)
        assert (record["event"]["action"], record["event"]["code"]) == ("unreadable-refused", reason)
        assert record["event"]["dataset"] == "tokgate.unreadable"
        assert record["source"]["ip"] == client
        assert (record["tokgate"]["network"], record["tokgate"]["stage"]) == ("office", stage)
        text = json.dumps(record | {"observer": None})
        for word in ("www.", "203.0.113.5", "The ban", "Example Council", "Circular", '"verdict"', "t13d", "/a"):
            assert word not in text, word
    assert first is not None
    assert first["destination"] == {"port": 443}
    assert again is not None
    assert again["tokgate"]["repeats"]["count"] == 2
    ban = replace(judgement, decision=replace(decision, ban="ban", reason=Reason.BAN_BLOCK))
    record = present(traffic_record(stamp(), others, ban, SNAPSHOT))
    assert record["rule"]["name"] == "The ban", "a ban's refusal names it"


def test_repeats_of_different_names(valid_record: Valid) -> None:
    """The first five are named, and the others counted; without repeats there is nothing to tell."""
    moment, names = at("2023-03-10T11:00:00Z"), {f"n{number}": None for number in range(7)}
    given = stamp(), seen(), judged(seen()), SNAPSHOT
    record = present(repeats_record(*given, Fold((), None, 0.0, 9, moment, moment, names), stamp().id))
    told = valid_record(record)["tokgate"]["repeats"]
    assert (told["count"], told["names"]) == (9, {"count": 7, "first": [f"n{number}" for number in range(5)]})
    assert " 9 times more, with 7 names (n0, n1, n2, n3, n4), from 2023" in record["message"]
    assert repeats_record(*given, Fold((), None, 0.0), stamp().id) is None


def test_a_ban_that_is_held_says_that_it_is_overdue(valid_record: Valid) -> None:
    """After its end, a held ban says since when it should have been over."""
    policy = snapshot(ban(expires=wall("2023-09-10T00:00"), on_expiry=OnExpiry.HOLD))
    record = valid_record(record_of(seen(), policy, "2024-01-01T00:00:00Z"))
    assert record["event"]["code"] == "ban-overdue"
    assert "held since its end on 2023-09-10 00:00 Europe/Brussels" in record["message"]


def test_mapped_and_scoped_addresses_are_plain(valid_record: Valid) -> None:
    """IPv4-mapped clients are IPv4, and an IPv6 zone is left out: ECS wants addresses."""
    mapped = valid_record(record_of(seen(client=Endpoint("::ffff:192.0.2.7"))))
    assert mapped["source"]["ip"] == "192.0.2.7"
    assert mapped["network"]["type"] == "ipv4"
    scoped = valid_record(record_of(seen(client=Endpoint("2001:db8:1::7%eth0", 5))))
    assert scoped["source"] == {"ip": "2001:db8:1::7", "port": 5}


def test_a_client_that_is_no_address_is_kept_as_text(valid_record: Valid) -> None:
    """Something that is no address never lands in a field of type ip."""
    policy = snapshot(ban(), unknown_clients=UnknownClients.BLOCK)
    record = valid_record(record_of(seen(client=Endpoint("unix:@\x1b[31m")), policy))
    assert record["source"] == {"address": "unix:@\\x1b[31m"}


def test_the_rule_uuid_depends_on_the_ban_alone() -> None:
    """All gateways name a ban alike; different bans differ."""
    one, same = record_of(seen()), record_of(seen(Stage.DNS))
    other = record_of(seen(), snapshot(ban("other")))
    assert one["rule"]["uuid"] == same["rule"]["uuid"] != other["rule"]["uuid"]


hostile = st.text(max_size=300) | st.text("\x00\x1b\u202e\ud800é/?#@:[]%.aZ", max_size=40)


@given(hostile, hostile, hostile, st.sampled_from(Stage), st.sampled_from(list(Signal)))
def test_whatever_a_client_sends_the_line_is_valid(
    valid_record: Valid, name: str, path: str, agent: str, stage: Stage, signal: Signal
) -> None:
    """No name, path or agent makes a line that is off schema, spans lines or moves a terminal's cursor."""
    policy = snapshot(ban(), unknown_clients=UnknownClients.BLOCK)
    if stage is Stage.DNS:
        signal = Signal.DNS_NAME
    observation = seen(
        stage,
        client=Endpoint("198.51.100.1"),
        names=(Sighting(signal, name),),
        visibility=Visibility.NONE,
        http=HttpSeen(method="GET", path=path, status=451, user_agent=agent),
    )
    record = present(traffic_record(stamp(), observation, judged(observation, policy=policy), policy))
    line = encode(record)
    text = line[:-1].decode()
    assert text.isprintable()
    assert len(line) < 32768
    valid_record(decode(line))


@pytest.mark.parametrize("interface", [None, "eth1"])
def test_the_interface_by_which_a_client_came(valid_record: Valid, interface: str | None) -> None:
    """Where a policy tells clients apart by their interface, an analyst sees by which one this client came."""
    record = valid_record(record_of(seen(identity=Identity(user="alice", interface=interface))))
    assert record["observer"].get("ingress") == (None if interface is None else {"interface": {"name": interface}})


def test_a_policy_file_whose_name_is_not_utf_8(valid_record: Valid) -> None:
    """Its octets are escaped: JSON readers take a line with half a surrogate pair for no record at all."""
    record = valid_record(record_of(seen(), snapshot(ban(origin=Origin("r\udce8gles.yaml", 1, 1)))))
    assert record["rule"]["ruleset"] == r"r\udce8gles.yaml"
