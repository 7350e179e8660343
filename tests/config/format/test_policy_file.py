"""The JSON Schema: current, complete, and of the same mind as the loader."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tokgate.config.format.policy_file import policy_schema

ROOT = Path(__file__).parents[3]
DATA = Path(__file__).parents[1] / "data"
OK = [*sorted((DATA / "ok").glob("*.yaml")), *sorted((ROOT / "policies").rglob("*.yaml"))]


VALIDATOR = Draft202012Validator(policy_schema())


class Core(yaml.SafeLoader):
    """YAML as editors read it: the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


Core.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))
Core.add_implicit_resolver("tag:yaml.org,2002:int", re.compile("-?[0-9]+$"), list("-0123456789"))
Core.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("~|null|$"), ["~", "n", ""])
Core.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])


def errors(path: Path) -> list[str]:
    """What the schema finds wrong with a file."""
    said = yaml.load(path.read_text(), Loader=Core)
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(said)]


def test_committed_copy_is_current() -> None:
    """schema/policy.schema.json is what the models say: write it anew with `tokgate schema policy`."""
    committed = json.loads((ROOT / "schema" / "policy.schema.json").read_text())
    assert committed == policy_schema()


def test_is_a_schema() -> None:
    Draft202012Validator.check_schema(policy_schema())


@pytest.mark.parametrize("path", OK, ids=lambda path: str(path.relative_to(ROOT)))
def test_accepts_what_loads(path: Path) -> None:
    if path.stem != "only-comments":
        assert errors(path) == []


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key == "properties":
            yield from ((f"{path}.{name}", each) for name, each in value.items())
        yield from properties(value, f"{path}.{key}")


def test_every_key_is_explained() -> None:
    """Each key has a description, also in the form that editors render."""
    found = list(properties(policy_schema()))
    assert len(found) > 50
    assert [path for path, each in found if not each.get("description") or not each.get("markdownDescription")] == []


def offers(node: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether an editor has something to complete a value with."""
    if "$ref" in node:
        node = {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}
    return bool(node.get("examples") or node.get("enum") or "const" in node or node.get("type") == "boolean")


def test_every_key_completes() -> None:
    """At each key an editor can offer values: an enumeration, true and false, or examples."""
    schema = policy_schema()
    assert [path for path, each in properties(schema) if not offers(each, schema)] == []


def test_objects_are_closed_and_say_what_they_need() -> None:
    """An editor marks unknown keys and completes the required ones: every object of the format states both."""
    schema = policy_schema()
    for name, each in {"the file": schema, **schema["$defs"]}.items():
        if each.get("type") == "object":
            assert each["additionalProperties"] is False, name
            assert set(each.get("required", ())) <= set(each["properties"]), name
            assert each["markdownDescription"], name


def test_every_enumerated_word_is_explained() -> None:
    """Beside each word that is offered stands what it means."""
    for path, each in properties(policy_schema()):
        if "enum" in each:
            for key in ("enumDescriptions", "markdownEnumDescriptions"):
                assert len(each[key]) == len(each["enum"]), path
                assert all(each[key]), path


def test_every_example_is_valid() -> None:
    """The examples that editors offer are accepted by the key that they stand at."""
    schema = policy_schema()
    for path, each in properties(schema):
        validator = Draft202012Validator({"$defs": schema["$defs"], **each})
        for example in each.get("examples", ()):
            assert validator.is_valid(example), (path, example)


def test_names_are_words() -> None:
    """An editor shows `proxy auth` above its keys, and not the name of a class; every reference leads somewhere."""
    schema = policy_schema()
    text = json.dumps(schema)
    assert "Model" not in text
    assert schema["$defs"]["proxy-auth"]["title"] == "proxy auth"
    assert set(re.findall(r'"#/\$defs/([^"]+)"', text)) == schema["$defs"].keys()


def test_whoever_errs_reads_a_sentence() -> None:
    """An editor says what is wanted where a value doesn't match, and not a regular expression."""
    found: list[dict[str, Any]] = []

    def look(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("pattern"), str):
                found.append(node)
            for each in node.values():
                look(each)
        elif isinstance(node, list):
            for each in node:
                look(each)

    look(policy_schema())
    assert len(found) > 20
    assert all(node.get("patternErrorMessage", "").endswith((".", "`")) for node in found)
