"""The JSON Schema of policy files, generated from the models, for editors and programs that write policies."""

import re
from typing import Any, Final

from tokgate.config.format.policy_file import PolicyFile

SCHEMA_URI: Final = "https://json-schema.org/draft/2020-12/schema"
NAMES: Final = "A name: letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first."
_NULL: Final = {"type": "null"}
_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def policy_schema() -> dict[str, Any]:
    """The schema; schema/policy.schema.json is its committed copy."""
    schema: dict[str, Any] = _tidied(PolicyFile.model_json_schema(by_alias=True))
    for section in schema["properties"].values():
        if "type" in section:  # a section whose entries are all commented out is empty
            section["type"] = [section["type"], "null"]
    schema = _named(schema)
    return {"$schema": SCHEMA_URI, "title": "tokgate policy file", **schema}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with words for the names of classes, which editors show: `proxy-auth` for `ProxyAuthModel`."""
    words = {name: _CAPITAL.sub("-", name.removesuffix("Model")).lower() for name in schema["$defs"]}

    def renamed(node: Any) -> Any:
        if isinstance(node, list):
            return [renamed(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: f"#/$defs/{words[value.removeprefix('#/$defs/')]}" if key == "$ref" else renamed(value)
            for key, value in node.items()
        }

    definitions = {
        words[name]: {"title": words[name].replace("-", " "), **renamed(each)} for name, each in schema["$defs"].items()
    }
    return {**renamed({key: value for key, value in schema.items() if key != "$defs"}), "$defs": definitions}


def _tidied(node: Any) -> Any:
    """The schema without pydantic's titles and nulls, and with descriptions that editors render as Markdown."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            tidy[key] = {name: _tidied(each) for name, each in value.items()}
        elif key == "patternProperties":
            ((pattern, entry),) = value.items()
            names = {"pattern": pattern, "patternErrorMessage": NAMES}
            tidy |= {"propertyNames": names, "additionalProperties": _tidied(entry)}
        elif key == "anyOf" and _NULL in value:
            tidy |= _tidied(next(option for option in value if option != _NULL))
        elif key == "description":
            tidy[key] = tidy["markdownDescription"] = " ".join(value.split())
        elif key in ("examples", "enum", "const"):
            tidy[key] = value
        elif not (key in ("title", "propertyNames") or (key == "default" and not isinstance(value, str | bool | int))):
            tidy[key] = _tidied(value)
    return tidy
