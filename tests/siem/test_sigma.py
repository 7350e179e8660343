"""The Sigma rules: valid, about fields that exist, and each right about lines of the log."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from sigma.backends.sqlite.sqlite import sqliteBackend
from sigma.collection import SigmaCollection
from sigma.correlations import SigmaCorrelationCondition, SigmaCorrelationRule
from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaRule
from sigma.validation import SigmaValidator
from sigma.validators.core import validators

from labs.examples import EXAMPLES
from labs.siem import elastic_fields, leaves
from tokgate.blocklog.records.log_schema import log_schema

FOLDER = Path(__file__).parents[2] / "deploy" / "siem" / "sigma"
RULES = sorted(str(path.relative_to(FOLDER))[:-4] for path in FOLDER.glob("*/*.yml") if path.parent.name != "pipelines")
NETWORKED = {"attacktag", "d3_fendtag"}
"""Validators that fetch lists from the internet."""


def parsed(name: str) -> SigmaCollection:
    return SigmaCollection.from_yaml((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))


def test_every_rule_has_examples() -> None:
    """None is shipped untried."""
    assert set(EXAMPLES) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_it_is_valid(name: str) -> None:
    """No error, and nothing that Sigma's own validators mind."""
    rules = parsed(name)
    assert not rules.errors
    validator = SigmaValidator({known for key, known in validators.items() if key not in NETWORKED})
    assert [str(issue) for issue in validator.validate_rules(iter(cast("list[SigmaRule]", rules.rules)))] == []


@pytest.mark.parametrize("name", RULES)
def test_its_fields_exist(name: str) -> None:
    """Every field that it asks for is one of the log's: a slip would make a rule that never fires."""
    properties = {"properties": elastic_fields()}
    for rule in parsed(name).rules:
        fields = _fields(rule) if isinstance(rule, SigmaRule) else _counted(rule)
        for field in fields:
            found = properties
            for key in field.split("."):
                found = found["properties"][key]
            assert "type" in found, field


@pytest.mark.parametrize("name", RULES)
def test_it_finds_what_it_should(name: str) -> None:
    """One alert at least from the lines that it is for, none from those that it is not for."""
    rule, example = FOLDER / f"{name}.yml", EXAMPLES[name]
    assert alerts(rule, FOLDER / "pipelines" / "elastic.yml", example.found) >= 1
    assert alerts(rule, FOLDER / "pipelines" / "elastic.yml", example.passed) == 0


@pytest.mark.parametrize("name", RULES)
def test_its_examples_are_lines_of_the_log(name: str, valid_record: Callable[[dict[str, Any]], object]) -> None:
    for record in [*EXAMPLES[name].found, *EXAMPLES[name].passed]:
        valid_record(record)


def test_ids_are_their_own() -> None:
    """Two rules with one id would replace each other."""
    ids = [rule.id for name in RULES for rule in parsed(name).rules]
    assert all(isinstance(one, UUID) for one in ids)
    assert len(ids) == len(set(ids))


def _fields(rule: SigmaRule) -> list[str]:
    found: list[str] = []
    pending = [item for detection in rule.detection.detections.values() for item in detection.detection_items]
    while pending:
        item = pending.pop()
        if hasattr(item, "detection_items"):
            pending += item.detection_items
        elif item.field is not None:
            found.append(item.field)
    return found


def _counted(rule: SigmaCorrelationRule) -> list[str]:
    condition = rule.condition
    assert isinstance(condition, SigmaCorrelationCondition)
    named = condition.fieldref if isinstance(condition.fieldref, list) else [condition.fieldref]
    return [*(rule.group_by or []), *(name for name in named if name is not None)]


def alerts(rule: Path, pipeline: Path, records: Sequence[Mapping[str, Any]]) -> int:
    """How many alerts a rule makes of records: as SQL, by SQLite, over lines flattened to columns."""
    backend = sqliteBackend(ProcessingPipeline.from_yaml(pipeline.read_text(encoding="utf-8")))
    (query,) = backend.convert(SigmaCollection.from_yaml(rule.read_text(encoding="utf-8")))
    query = query.replace("<TABLE_NAME>", "logs")
    with closing(sqlite3.connect(":memory:")) as database:
        database.create_function("REGEXP", 2, lambda pattern, text: text is not None and bool(re.search(pattern, text)))
        names = ["timestamp", *dict.fromkeys(name for name, _ in leaves(log_schema()["properties"]))]
        database.execute(f"CREATE TABLE logs ({', '.join(f'`{name}`' for name in names)})")
        for record in records:
            flat = {name: value for name, value in _flat(record) if name in names} | {"timestamp": record["@timestamp"]}
            columns = ", ".join(f"`{name}`" for name in flat)
            database.execute(f"INSERT INTO logs ({columns}) VALUES ({', '.join('?' * len(flat))})", list(flat.values()))
        return len(database.execute(query).fetchall())


def _flat(fields: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Fields by their names with dots. Lists stand for themselves: no rule looks into one."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", str(value) if isinstance(value, list) else value
