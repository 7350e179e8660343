"""The schema is what is committed, knows everything the code can say, and lets nothing else pass."""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from labs.builders import present
from labs.samples import SNAPSHOT, judged, seen, stamp
from tokgate.blocklog.records.log_schema import log_schema, schema_text
from tokgate.blocklog.records.record import TRAFFIC, EventAction
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.policy.observation import Stage

SCHEMA = Path(__file__).parents[3] / "schema" / "log.schema.json"
Valid = Callable[[dict[str, Any]], dict[str, Any]]


def test_the_committed_schema_is_the_one_that_is_printed() -> None:
    """`tokgate schema log > schema/log.schema.json` changes nothing."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_one() -> None:
    """It is valid JSON Schema 2020-12."""
    Draft202012Validator.check_schema(log_schema())


def test_every_action_has_a_condition() -> None:
    """No action exists of which nothing is required."""
    named = {
        action
        for rule in log_schema()["allOf"]
        for action in rule["if"]["properties"]["event"]["properties"]["action"]["enum"]
    }
    assert named == set(EventAction)
    assert set(EventAction) > TRAFFIC


def objects(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all objects inside a record, itself included."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from objects(inner, (*path, key))


def test_unknown_fields_are_errors_at_every_level(valid_record: Valid) -> None:
    """A field that the schema doesn't list fails, wherever it is put."""
    for stage in Stage:
        record = present(traffic_record(stamp(), seen(stage), judged(seen(stage)), SNAPSHOT))
        for path in objects(record):
            bent = copy.deepcopy(record)
            place = bent
            for key in path:
                place = place[key]
            place["surprise"] = "x"
            with pytest.raises(AssertionError, match="surprise"):
                valid_record(bent)


@pytest.mark.parametrize(
    "path",
    [
        ("@timestamp",), ("message",), ("ecs",), ("event", "id"), ("event", "action"), ("event", "code"), ("observer",),
        ("source",), ("network", "direction"), ("tls",), ("tls", "established"), ("tokgate", "verdict"),
        ("tokgate", "policy", "version"), ("tokgate", "visibility"), ("rule", "id"),
    ],
    ids=".".join,
)  # fmt: skip
def test_a_refused_handshake_needs_these(valid_record: Valid, path: tuple[str, ...]) -> None:
    """Without any one of these fields a TLS refusal is off schema."""
    record = present(traffic_record(stamp(), seen(), judged(seen()), SNAPSHOT))
    valid_record(record)
    place = record
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    with pytest.raises(AssertionError, match="off schema"):
        valid_record(record)


def test_a_refused_request_says_where_it_went(valid_record: Valid) -> None:
    """Without its URL a refused request would say nothing about what was refused."""
    record = present(traffic_record(stamp(), seen(Stage.HTTP), judged(seen(Stage.HTTP)), SNAPSHOT))
    del valid_record(record)["url"]
    with pytest.raises(AssertionError, match="off schema"):
        valid_record(record)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("@timestamp",), "2023-03-10T11:00:00Z"),
        (("event", "action"), "something-else"),
        (("event", "category"), "network"),
        (("source", "ip"), "192.0.2.300"),
        (("tls", "established"), True),
        (("tokgate", "verdict"), "monitor"),
        (("tokgate", "reason"), "because"),
        (("destination", "port"), 65536),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_values_are_errors(valid_record: Valid, path: tuple[str, ...], value: Any) -> None:
    """Closed sets, types and what belongs to the action are checked."""
    record = present(traffic_record(stamp(), seen(), judged(seen()), SNAPSHOT))
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError, match="off schema"):
        valid_record(record)


TEXT = (Path(__file__).parents[3] / "docs" / "log.md").read_text(encoding="utf-8")
EXPLAINED = set(re.findall(r"`([a-z0-9_-]+)`", TEXT))


def test_every_action_is_explained() -> None:
    """No `event.action` is missing from the table."""
    assert {action.value for action in EventAction} <= EXPLAINED


def test_every_own_field_is_explained() -> None:
    """No field under `tokgate` is missing from the table."""
    assert set(log_schema()["properties"]["tokgate"]["properties"]) <= EXPLAINED
