"""The schema is what is committed, knows everything the code can say, and lets nothing else pass."""

import re
from pathlib import Path

from jsonschema import Draft202012Validator

from tokgate.blocklog.records.log_schema import log_schema, schema_text
from tokgate.blocklog.records.record import TRAFFIC, EventAction

SCHEMA = Path(__file__).parents[3] / "schema" / "log.schema.json"


def test_the_committed_schema_is_the_one_that_is_printed() -> None:
    """`tokgate schema log > schema/log.schema.json` changes nothing."""
    assert SCHEMA.read_text(encoding="utf-8") == schema_text()


def test_the_schema_is_one() -> None:
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


TEXT = (Path(__file__).parents[3] / "docs" / "log.md").read_text(encoding="utf-8")
EXPLAINED = set(re.findall(r"`([a-z0-9_-]+)`", TEXT))


def test_every_action_is_explained() -> None:
    assert {action.value for action in EventAction} <= EXPLAINED


def test_every_own_field_is_explained() -> None:
    assert set(log_schema()["properties"]["tokgate"]["properties"]) <= EXPLAINED
