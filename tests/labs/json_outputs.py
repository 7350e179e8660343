"""Checks what commands print in JSON against the schemas that are published for it."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from labs.command_line import Outcome
from tokgate.cli.schema import OUTPUTS, json_schema


def output_of(arguments: Sequence[str]) -> str | None:
    """The name of the JSON output that a command line asks for; None if it asks for none that has a schema."""
    words = [word for word in arguments[:2] if not word.startswith("-")]
    asked = "-".join(words) if "-".join(words) in OUTPUTS else words[0] if words else ""
    if asked == "explain" and "--event" in arguments:
        asked = "explain-event"
    as_json = "--json" in arguments or asked == "simulate"
    free = "--list" in arguments or "--sql" in arguments  # of which no schema speaks
    return asked if asked in OUTPUTS and as_json and not free else None


def check_output(arguments: Sequence[str], outcome: Outcome) -> str | None:
    """Check that a command's JSON is as its schema says, without a key that it doesn't name; the output's name."""
    name = output_of(arguments)
    if name is None or outcome.code not in (0, 1) or not outcome.out or "--help" in arguments:
        return None
    for text in outcome.out.splitlines() if OUTPUTS[name].lines else [outcome.out]:
        errors = [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(json.loads(text))]
        assert not errors, f"`tokgate {' '.join(arguments)}` is off its schema `{name}`: {errors}\n{text}"
    return name


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(_closed(json_schema(name)))


def _closed(schema: Any) -> Any:
    """The schema, allowing no key that it doesn't name."""
    if isinstance(schema, dict):
        closed = {key: _closed(value) for key, value in schema.items()}
        return closed | {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else closed
    return [_closed(each) for each in schema] if isinstance(schema, list) else schema
