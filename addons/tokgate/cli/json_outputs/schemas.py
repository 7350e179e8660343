"""The JSON Schema of each `--json`, by name and version.

Within a version keys may be added; what is there keeps its name, type and meaning. Anything else is a new version.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pydantic import TypeAdapter

from tokgate.cli.json_outputs import decisions, logs, operations, policies, running, services


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """An output: the command that prints it, its type, and the version of its format. `lines`: one object a line."""

    command: str
    type: Any
    version: int = 1
    lines: bool = False


OUTPUTS: Final[Mapping[str, JsonOutput]] = MappingProxyType(
    {
        "check": JsonOutput("check --json", policies.Checked),
        "explain": JsonOutput("explain --json", decisions.Explained),
        "explain-event": JsonOutput("explain --event ID --json", decisions.ExplainedEvent),
        "simulate": JsonOutput("simulate", decisions.Simulated, lines=True),
        "diff": JsonOutput("diff --json", policies.Difference),
        "timeline": JsonOutput("timeline --json", policies.Timeline),
        "service-list": JsonOutput("service list --json", services.ServiceList),
        "service-show": JsonOutput("service show NAME --json", services.ServiceShown),
        "service-test": JsonOutput("service test NAME HOST --json", services.ServiceTested),
        "service-import": JsonOutput("service import FILE --name NAME --json", services.ServiceImported),
        "service-update": JsonOutput("service update NAME NEWLIST --json", services.ServiceUpdated),
        "override-list": JsonOutput("override list --json", policies.OverrideList),
        "status": JsonOutput("status --json", running.Status),
        "reload": JsonOutput("reload --json", running.ReloadAnswer),
        "restart": JsonOutput("restart --json", operations.Restarted),
        "doctor": JsonOutput("doctor --json", operations.Examined),
        "gateway-up": JsonOutput("gateway up --json", operations.GatewayLoaded),
        "gateway-down": JsonOutput("gateway down --json", operations.GatewayRemoved),
        "gateway-show": JsonOutput("gateway show --json", operations.GatewayCompared),
        "gateway-check": JsonOutput("gateway check --json", operations.GatewayCompared),
        "evasion": JsonOutput("evasion --json", running.EvasionResult),
        "authority-show": JsonOutput("authority show --json", running.AuthorityShown),
        "phone-list": JsonOutput("phone list --json", running.PhoneList),
        "log-verify": JsonOutput("log verify --json", logs.Verified),
        "log-summary": JsonOutput("log summary --json", logs.Summarised),
        "log-query": JsonOutput("log query --json", logs.QUERY_ROW, lines=True),
    }
)


def json_schema(name: str) -> dict[str, Any]:
    """The schema of an output. Keys that it doesn't name are allowed: a later tokgate may print them."""
    output = OUTPUTS[name]
    each = "each line of " if output.lines else ""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tokgate:json:{name}:{output.version}",
        **TypeAdapter(output.type).json_schema(mode="serialization"),
        "title": f"{each}`tokgate {output.command}`, version {output.version}",
    }


def schema_text(name: str) -> str:
    return json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n"


def file_name(name: str) -> str:
    """The file of an output's schema in schema/json."""
    return f"{name}.v{OUTPUTS[name].version}.schema.json"
