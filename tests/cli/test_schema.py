"""The schemas that are printed are those committed, and notice what is off them; tests/conftest.py checks output."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from labs.command_line import Command, Outcome
from labs.json_outputs import check_output, output_of
from tokgate.cli.schema import OUTPUTS, file_name, json_schema, schema_text
from tokgate.cli.setup.completion import whole_parser

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "schema" / "json"


def test_each_has_its_file() -> None:
    """A program finds the schema of each output under its name and version, and no other."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(map(file_name, OUTPUTS))


def commands_with_json(parser: argparse.ArgumentParser, name: str = "") -> Iterator[str]:
    """The commands that have `--json`, as the parser knows them; one that takes an action, once for each action."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, each in action.choices.items():
                yield from commands_with_json(each, f"{name}-{word}".lstrip("-"))
    if any("--json" in action.option_strings for action in parser._actions):
        actions = next((a.choices for a in parser._actions if a.dest == "action" and not a.option_strings), None)
        yield from [name] if actions is None else [f"{name}-{each}" for each in actions]


def test_each_command_has_its_schema() -> None:
    """A command with `--json` can't be added without one.

    `log tail` prints records, of which `schema log` speaks, and `gateway boot`, for a service alone, prints nothing.
    """
    assert set(commands_with_json(whole_parser())) - OUTPUTS.keys() == {"log-tail", "gateway-boot"}


COMMITTED = {name: FOLDER / file_name(name) for name in OUTPUTS}
COMMITTED |= {name: ROOT / "schema" / f"{name}.schema.json" for name in ("policy", "log")}


@pytest.mark.parametrize("name", COMMITTED)
def test_printed_is_committed(tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Byte for byte, wherever it is called from: run `make schema` after a change. Each is a valid schema."""
    monkeypatch.chdir(tmp_path)
    outcome = tokgate("schema", name)
    assert (outcome.code, outcome.err, outcome.out) == (0, "", COMMITTED[name].read_text("utf-8"))
    schema = json.loads(outcome.out)
    Draft202012Validator.check_schema(schema)
    assert name not in OUTPUTS or schema["$id"] == f"urn:tokgate:json:{name}:{OUTPUTS[name].version}"


def test_all_are_written(tokgate: Command, tmp_path: Path) -> None:
    """What `make schema` calls writes every file."""
    assert tokgate("schema", "--json-outputs", str(tmp_path)).code == 0
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {
        file_name(name): schema_text(name) for name in OUTPUTS
    }


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_strange_output_is_noticed(name: str) -> None:
    """An object without the keys, and one with a key that the schema lacks, fail the check that other tests rely on."""
    arguments = OUTPUTS[name].command.replace("ID", "1").split()
    assert output_of(arguments) == name
    with pytest.raises(AssertionError, match="off its schema"):
        check_output(arguments, Outcome(0, "{}\n", ""))
    assert "required" in json_schema(name)


def test_an_unknown_key_is_noticed() -> None:
    """A key that nobody documented is a fault of ours, though programs are to bear it."""
    known = {"at": "2026-01-01T00:00:00Z", "overrides": []}
    arguments = ("override", "list", "--json")
    assert check_output(arguments, Outcome(0, json.dumps(known), "")) == "override-list"
    with pytest.raises(AssertionError, match="surprise"):
        check_output(arguments, Outcome(0, json.dumps(known | {"surprise": 1}), ""))
    assert Draft202012Validator(json_schema("override-list")).is_valid(known | {"surprise": 1})
