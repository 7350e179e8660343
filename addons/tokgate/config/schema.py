"""The JSON Schema of policy files, generated from the models: for editors, and for programs that write policies."""

from typing import Any, Final

from tokgate.config.models import PolicyFile

SCHEMA_URI: Final = "https://json-schema.org/draft/2020-12/schema"
_NULL: Final = {"type": "null"}


def policy_schema() -> dict[str, Any]:
    """The schema; schema/policy.schema.json is its committed copy."""
    schema: dict[str, Any] = _tidied(PolicyFile.model_json_schema(by_alias=True))
    for section in schema["properties"].values():
        if "type" in section:  # a section whose entries are all commented out is empty
            section["type"] = [section["type"], "null"]
    return {"$schema": SCHEMA_URI, "title": "tokgate policy file", **schema}


def _tidied(node: Any) -> Any:
    """Without titles and nulls that the format does not have; descriptions are Markdown, and say so to editors."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties" or key == "$defs":
            tidy[key] = {name: _tidied(each) for name, each in value.items()}
        elif key == "patternProperties":
            ((pattern, entry),) = value.items()
            tidy |= {"propertyNames": {"pattern": pattern}, "additionalProperties": _tidied(entry)}
        elif key == "anyOf" and _NULL in value:
            tidy |= _tidied(next(option for option in value if option != _NULL))
        elif key == "description":
            tidy[key] = tidy["markdownDescription"] = " ".join(value.split())
        elif key in ("examples", "enum", "const"):
            tidy[key] = value
        elif not (key in ("title", "propertyNames") or (key == "default" and not isinstance(value, str | bool | int))):
            tidy[key] = _tidied(value)
    return tidy
