"""The log's fields as stores want to have them: Elasticsearch's component template, Microsoft Sentinel's table.

Both are generated from the log's schema. In Elasticsearch ECS fields get the types that ECS defines, those under
`tokgate` the type that fits their JSON type.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from tokgate.analytics.columns import COLUMNS, Column, Path
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


def elastic_template() -> str:
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


TABLE: Final = "TokgateBlock_CL"
_STREAM: Final = f"Custom-{TABLE}"
_LINES: Final = (f"Custom-Text-{TABLE}", "Custom-TokgateLines")
"""Streams of whole lines: from the Azure Monitor Agent, and from the Logs Ingestion API."""
_TYPES: Final = {
    "VARCHAR": "string", "BIGINT": "long", "BOOLEAN": "boolean", "TIMESTAMP": "datetime", "JSON": "dynamic",
}  # fmt: skip
_CONVERT: Final = {
    "string": "tostring({})", "long": "tolong({})", "boolean": "tobool({})", "datetime": "todatetime({})",
    "dynamic": "{}",
}  # fmt: skip


def _also(name: str, kind: str, meaning: str, *path: str) -> Column:
    return Column(name, kind, meaning, path)


_ALSO: Final = (
    _also("dataset", "VARCHAR", "`tokgate.block`, `tokgate.unreadable` or `tokgate.state`", "event", "dataset"),
    _also("failed_in", "VARCHAR", "where an internal error was", "tokgate", "where"),
    _also("torn_bytes", "BIGINT", "bytes of a torn line", "tokgate", "torn", "bytes"),
    _also("continues_file", "VARCHAR", "the file before", "tokgate", "continues", "file"),
    _also("checkpoint_key", "VARCHAR", "the public key that signed", "tokgate", "checkpoint", "key"),
    _also("checkpoint_next_key", "VARCHAR", "the one that will", "tokgate", "checkpoint", "next_key"),
    _also("on_error", "VARCHAR", "what the policy decides on errors", "tokgate", "policy", "settings", "on_error"),
    _also("bans", "BIGINT", "how many bans the policy has", "tokgate", "policy", "bans"),
    _also("widest_ipv4", "BIGINT", "of an override: its shortest prefix", "tokgate", "widest", "ipv4"),
    _also("widest_ipv6", "BIGINT", "in IPv6", "tokgate", "widest", "ipv6"),
    _also("judged_total", "BIGINT", "connections and requests of an hour", "tokgate", "judged", "total"),
    _also("judged_named", "BIGINT", "those that showed a name", "tokgate", "judged", "named"),
    _also("judged_percent", "BIGINT", "the share of them, rounded down", "tokgate", "judged", "percent"),
)
"""Columns that the rules in deploy/siem/sigma need beyond those of the view."""


def _at(path: Path) -> str:
    """A field of the parsed line `r`, in brackets since `first`, `of` and `where` are KQL keywords."""
    return "r" + "".join(f'["{key}"]' for key in path)


def _first_of(*paths: Path) -> str:
    """The first non-empty text. Transformations don't support `coalesce`."""
    *others, last = (f"tostring({_at(path)})" for path in paths)
    sql = last
    for text in reversed(others):
        sql = f"iif(isnotempty({text}), {text}, {sql})"
    return sql


_NOW: Final = ("@timestamp",)
_REPEATS: Final = ("tokgate", "repeats")
_COMPOSED: Final = {
    "traffic": 'tostring(r["event"]["dataset"]) == "tokgate.block"',
    "events": f"iif(isnotnull({_at((*_REPEATS, 'count'))}), tolong({_at((*_REPEATS, 'count'))}), tolong(1))",
    "first_time": f"todatetime({_first_of((*_REPEATS, 'first'), _NOW)})",
    "last_time": f"todatetime({_first_of((*_REPEATS, 'last'), _NOW)})",
    "client": _first_of(("source", "ip"), ("source", "address")),
    "target": _first_of(("destination", "registered_domain"), ("destination", "domain"), ("destination", "ip")),
}


def name_of(column: Column) -> str:
    """A column's name in Sentinel: its own, except `TimeGenerated`, which every table must have."""
    return "TimeGenerated" if column.name == "time" else column.name


def columns() -> tuple[tuple[Column, str], ...]:
    """The table's columns and their types."""
    return tuple((column, _TYPES[column.type]) for column in (*COLUMNS, *_ALSO))


def transformation() -> str:
    """The KQL that turns a line into a row, in the subset that transformations support."""
    values = ",\n".join(f"    {name_of(column)} = {_value(column, kind)}" for column, kind in columns())
    seen = f"isnotempty(tostring({_at(('event', 'action'))}))"
    return f"source\n| extend r = parse_json(RawData)\n| where {seen}\n| project\n{values}"


def field_names() -> dict[str, str]:
    """The log's field names, which Sigma rules use, and the columns that hold them."""
    found = {".".join(column.path): name_of(column) for column, _ in columns() if column.path}
    return found | {"source.ip": "client", "source.address": "client"}


def sentinel_template() -> str:
    """The JSON that `tokgate schema sentinel` prints; `deploy/siem/sentinel/template.json` is its copy."""
    return json.dumps(_template(), indent=2, ensure_ascii=False) + "\n"


def _value(column: Column, kind: str) -> str:
    return _COMPOSED.get(column.name) or _CONVERT[kind].format(_at(column.path))


def _template() -> dict[str, Any]:
    table = [{"name": name_of(column), "type": kind, "description": column.meaning} for column, kind in columns()]
    text = {"type": "string"}
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "parameters": {
            "workspaceName": text,
            "dataCollectionEndpointId": text,
            "location": text | {"defaultValue": "[resourceGroup().location]"},
            "retentionInDays": {"type": "int", "defaultValue": 400},
            "filePattern": text | {"defaultValue": "/var/log/tokgate/block.ndjson"},
        },
        "resources": [_table(table), _rule()],
    }


def _table(table: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "type": "Microsoft.OperationalInsights/workspaces/tables",
        "apiVersion": "2022-10-01",
        "name": f"[concat(parameters('workspaceName'), '/{TABLE}')]",
        "properties": {
            "plan": "Analytics",
            "totalRetentionInDays": "[parameters('retentionInDays')]",
            "schema": {"name": TABLE, "columns": table},
        },
    }


def _rule() -> dict[str, Any]:
    workspace = "resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspaceName'))"
    table = f"[resourceId('Microsoft.OperationalInsights/workspaces/tables', parameters('workspaceName'), '{TABLE}')]"
    lines = [{"name": "TimeGenerated", "type": "datetime"}, {"name": "RawData", "type": "string"}]
    files = {
        "name": "blocklog",
        "streams": [_LINES[0]],
        "filePatterns": ["[parameters('filePattern')]"],
        "format": "text",
        "settings": {"text": {"recordStartTimestampFormat": "ISO 8601"}},
    }
    return {
        "type": "Microsoft.Insights/dataCollectionRules",
        "apiVersion": "2023-03-11",
        "name": "tokgate-block-log",
        "location": "[parameters('location')]",
        "kind": "Linux",
        "dependsOn": [table],
        "properties": {
            "dataCollectionEndpointId": "[parameters('dataCollectionEndpointId')]",
            "streamDeclarations": {stream: {"columns": lines} for stream in _LINES},
            "dataSources": {"logFiles": [files]},
            "destinations": {"logAnalytics": [{"name": "workspace", "workspaceResourceId": f"[{workspace}]"}]},
            "dataFlows": [
                {
                    "streams": list(_LINES),
                    "destinations": ["workspace"],
                    "transformKql": transformation(),
                    "outputStream": _STREAM,
                }
            ],
        },
    }  # fmt: skip
