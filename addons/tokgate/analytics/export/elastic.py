"""The log's fields as an Elasticsearch component template, generated from the log's schema.

ECS fields get the types that ECS defines; those under `tokgate` the type that fits their JSON type.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from tokgate.blocklog.records.log_schema import IP, TIME, log_schema
from tokgate.blocklog.records.record import ECS_VERSION, MAX_TEXT

type Mapped = dict[str, Any]

_KEYWORD: Final[Mapped] = {"type": "keyword", "ignore_above": MAX_TEXT}
_SEARCHED: Final[Mapped] = {"type": "match_only_text"}
_ECS: Final[dict[str, Mapped]] = {
    "@timestamp": {"type": "date"},
    "message": _SEARCHED,
    "error.message": _SEARCHED,
    "error.stack_trace": {"type": "wildcard", "fields": {"text": _SEARCHED}},
    "url.path": {"type": "wildcard"},
    "user_agent.original": _KEYWORD | {"fields": {"text": _SEARCHED}},
    "user.name": _KEYWORD | {"fields": {"text": _SEARCHED}},
    "related.ip": {"type": "ip"},
}
"""Fields whose ECS type differs from the one that their JSON type would give."""
_OWN: Final[dict[str, Mapped]] = {
    # Prefixes: `tokgate.clients.range: 10.32.9.7` finds the overrides that an address was under.
    "tokgate.clients": _KEYWORD | {"fields": {"range": {"type": "ip_range"}}},
    "tokgate.policy.problems": _SEARCHED,
}


def component_template() -> dict[str, Any]:
    """The body of `PUT _component_template/tokgate@mappings`."""
    fields = _object("", log_schema())
    return {
        "template": {"mappings": {"dynamic": False, "date_detection": False, **fields}},
        "_meta": {"description": f"Block log of tokgate, ECS {ECS_VERSION}. Made by `tokgate schema elastic`."},
    }


def template_text() -> str:
    """The JSON that `tokgate schema elastic` prints; `deploy/siem/elastic/mappings.json` is its copy."""
    return json.dumps(component_template(), indent=2, ensure_ascii=False) + "\n"


def _object(path: str, schema: Mapping[str, Any]) -> Mapped:
    prefix = f"{path}." if path else ""
    return {"properties": {name: _field(prefix + name, inner) for name, inner in schema["properties"].items()}}


def _field(path: str, schema: Mapping[str, Any]) -> Mapped:
    """The mapping of a field. Elasticsearch has no list type: a list is mapped as its items."""
    if schema.get("type") == "array":
        return _field(path, schema["items"]) if path not in _ECS | _OWN else (_ECS | _OWN)[path]
    if schema.get("type") == "object":
        return _object(path, schema) if "properties" in schema else {"type": "flattened"}
    if (known := (_ECS | _OWN).get(path)) is not None:
        return known
    if schema == IP:
        return {"type": "ip"}
    if schema == TIME:
        return {"type": "date"}
    return {"integer": {"type": "long"}, "number": {"type": "double"}, "boolean": {"type": "boolean"}}.get(
        str(schema.get("type")), _KEYWORD
    )
