"""Schema: what is printed is what is committed, from the code alone."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from labs.command_line import Command

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "schema"


@pytest.mark.parametrize("what", ["policy", "log"])
def test_printed_is_committed(tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Byte for byte, wherever it is called from, and a valid schema."""
    monkeypatch.chdir(tmp_path)
    outcome = tokgate("schema", what)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (SCHEMAS / f"{what}.schema.json").read_text(encoding="utf-8")
    Draft202012Validator.check_schema(json.loads(outcome.out))


@pytest.mark.parametrize(
    ("what", "file"),
    [
        ("clickhouse", "clickhouse/schema.sql"),
        ("elastic", "elastic/mappings.json"),
        ("sentinel", "sentinel/template.json"),
    ],
)
def test_what_stores_are_told_is_committed(tokgate: Command, what: str, file: str) -> None:
    """Byte for byte: a field that the log gains is in the shipped files too."""
    outcome = tokgate("schema", what)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (ROOT / "deploy" / "siem" / file).read_text(encoding="utf-8")
