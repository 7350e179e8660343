"""What the log holds as questions that can be asked again."""

from typing import Any

import pytest

from labs.builders import at, present
from labs.logs import refusal, repeats
from labs.samples import NAME
from tokgate.blocklog.read.reader import Line
from tokgate.blocklog.read.replay_query import alias_of, recorded
from tokgate.blocklog.records.record import encode
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal


def line(record: dict[str, Any]) -> Line:
    return Line("block.ndjson", 1, record, encode(record))


def test_a_refusal_asked_again() -> None:
    """A policy that is compared over last month's log is asked what the clients asked, when they asked it."""
    found = present(recorded(line(refusal())))
    assert (found.client, found.at, found.count) == ("192.0.2.7", at("2023-03-10T11:00:00Z"), 1)
    assert found.sightings == (Sighting(Signal.SNI, NAME),)
    assert (found.identity, found.version, found.field("ban")) == (None, "test", "ban")


@pytest.mark.parametrize(("count", "weight"), [(3, 3), (1, 1), (0, 1), (-3, 1), (True, 1), ("3", 1), (None, 1)])
def test_what_a_record_weighs(count: object, weight: int) -> None:
    """As many events as it says, where that is a number of events; it is asked at the first of them."""
    record = repeats(9, "2023-03-10T11:00:01Z", "2023-03-10T11:00:59Z")
    record["tokgate"]["repeats"]["count"] = count
    found = present(recorded(line(record), "192.0.2.99"))
    assert (found.count, found.client, found.at) == (weight, "192.0.2.99", at("2023-03-10T11:00:01Z"))


@pytest.mark.parametrize(
    "change",
    [
        {"event": {"action": "policy-loaded"}},
        {"source": {}},
        {"@timestamp": "yesterday"},
        {"tokgate": {}, "destination": {}},
        {"tokgate": {"names": {"sni": [7], "other": ["x"]}}, "destination": {}},
        *({"tokgate": {"names": names}, "destination": {}} for names in ({"sni": NAME}, {"sni": 7}, [NAME], NAME)),
        {"tokgate": {"names": {"sni": [NAME]}, "repeats": {"first": "yesterday"}}},
    ],
)
def test_what_asks_nothing(change: dict[str, Any]) -> None:
    """A line without client, time or name is passed over: it must not count as something that a policy would allow."""
    assert recorded(line(refusal() | change)) is None


def test_an_address_where_no_name_was_seen() -> None:
    """What was refused by its address is asked by its address."""
    found = present(recorded(line(refusal() | {"tokgate": {}, "destination": {"ip": "203.0.113.5"}})))
    assert found.sightings == (Sighting(Signal.ADDRESS, "203.0.113.5"),)


@pytest.mark.parametrize(
    ("source", "reason", "shown"),
    [
        ({"ip": "192.0.2.7"}, None, None),
        ({"address": "p1-abc"}, None, "p1-abc"),
        ({"address": "192.0.2.0/24"}, None, "192.0.2.0/24"),
        ({"address": "192.0.2.7"}, None, None),
        ({"address": "nowhere"}, "invalid-client", None),
        ({"ip": "192.0.2.7", "address": "p1-abc"}, None, None),
    ],
)
def test_clients_under_other_names(source: dict[str, str], reason: str | None, shown: str | None) -> None:
    """A pseudonym is no address: nobody may be told that a policy treats the client in no network otherwise."""
    record = refusal() | {"source": source, "tokgate": {"reason": reason, "names": {"sni": [NAME]}}}
    assert alias_of(record) == shown


def test_who_it_was() -> None:
    """Users, groups, devices and interfaces are asked with, but a user's pseudonym is nobody's name."""
    record = refusal()
    record["user"] = {"name": "alice"}
    record["source"]["mac"] = "00-53-00-00-00-07"
    record["observer"]["ingress"] = {"interface": {"name": "eth1"}}
    record["tokgate"]["groups"] = ["press", 7]
    found = present(recorded(line(record)))
    assert found.identity is not None
    assert (found.identity.user, found.identity.groups) == ("alice", frozenset({"press"}))
    assert (found.identity.device, found.identity.interface) == ("00-53-00-00-00-07", "eth1")
    hidden = present(recorded(line(record | {"source": {"address": "p1-abc"}}), client="192.0.2.7"))
    assert hidden.identity is not None
    assert (hidden.client, hidden.identity.user) == ("192.0.2.7", None)
