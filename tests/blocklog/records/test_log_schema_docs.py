"""docs/log.md explains everything that a line of the log can say."""

import re
from pathlib import Path

from tokgate.blocklog.records.log_schema import log_schema
from tokgate.blocklog.records.record import EventAction

TEXT = (Path(__file__).parents[3] / "docs" / "log.md").read_text(encoding="utf-8")
EXPLAINED = set(re.findall(r"`([a-z0-9_-]+)`", TEXT))


def test_every_action_is_explained() -> None:
    """No `event.action` is missing from the table."""
    assert {action.value for action in EventAction} <= EXPLAINED


def test_every_own_field_is_explained() -> None:
    """No field under `tokgate` is missing from the table."""
    assert set(log_schema()["properties"]["tokgate"]["properties"]) <= EXPLAINED
