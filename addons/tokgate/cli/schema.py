"""`tokgate schema`: JSON Schemas of policy files, the block log and each `--json`.

The schema of an output is made of the type that its command prints. Within a version keys may be added; what is there
keeps its name, type and meaning. Anything else is a new version.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any, Final

from tokgate.cli.commands import Exit, Subparsers, add_command

EPILOG: Final = """\
examples:
  tokgate schema policy > policy.schema.json     for editors: # yaml-language-server: $schema=policy.schema.json
  tokgate schema log                             for whoever reads the block log
  tokgate schema explain                         what `tokgate explain --json` prints; likewise of each other --json
  tokgate schema --json-outputs schema/json      all of these, a file each"""
_PRINTED: Final = ("policy", "log")


@dataclass(frozen=True, slots=True)
class JsonOutput:
    """An output: the command that prints it, its type (or what makes it) as `module:name`, the version of its format.

    `lines`: one object a line.
    """

    command: str
    printed: str
    version: int = 1
    lines: bool = False

    @property
    def type(self) -> Any:
        """The type, of a module that is imported only then."""
        module, _, name = self.printed.partition(":")
        found = getattr(import_module(f"tokgate.cli.{module}"), name)
        return found() if isinstance(found, FunctionType) else found


OUTPUTS: Final[Mapping[str, JsonOutput]] = MappingProxyType(
    {
        "check": JsonOutput("check --json", "policy.check:Checked"),
        "explain": JsonOutput("explain --json", "policy.explain:ExplainedQuery"),
        "explain-event": JsonOutput("explain --event ID --json", "policy.explain:ExplainedEvent"),
        "simulate": JsonOutput("simulate", "policy.simulate:Simulated", lines=True),
        "diff": JsonOutput("diff --json", "policy.diff:Difference"),
        "timeline": JsonOutput("timeline --json", "policy.timeline:Timeline"),
        "service-list": JsonOutput("service list --json", "policy.service:ServiceList"),
        "service-show": JsonOutput("service show NAME --json", "policy.service:ServiceShown"),
        "service-test": JsonOutput("service test NAME HOST --json", "policy.service:ServiceTested"),
        "override-list": JsonOutput("override list --json", "policy.override:OverrideList"),
        "override-requests": JsonOutput("override requests --json", "policy.override:RequestList"),
        "override-approve": JsonOutput("override approve ID --json", "policy.override:ExceptionRequest"),
        "override-decline": JsonOutput("override decline ID --json", "policy.override:ExceptionRequest"),
        "status": JsonOutput("status --json", "service.status:Status"),
        "reload": JsonOutput("reload --json", "service.reload:ReloadAnswer"),
        "restart": JsonOutput("restart --json", "service.reload:Restarted"),
        "doctor": JsonOutput("doctor --json", "service.doctor:Examined"),
        "gateway-up": JsonOutput("gateway up --json", "service.gateway:GatewayLoaded"),
        "gateway-down": JsonOutput("gateway down --json", "service.gateway:GatewayRemoved"),
        "gateway-show": JsonOutput("gateway show --json", "service.gateway:GatewayCompared"),
        "gateway-check": JsonOutput("gateway check --json", "service.gateway:GatewayCompared"),
        "evasion": JsonOutput("evasion --json", "service.evasion:EvasionResult"),
        "authority-show": JsonOutput("authority show --json", "setup.authority:AuthorityShown"),
        "phone-list": JsonOutput("phone list --json", "service.phone:PhoneList"),
        "log-verify": JsonOutput("log verify --json", "log.verify:Verified"),
        "log-summary": JsonOutput("log summary --json", "log.summary:Summarised"),
        "log-query": JsonOutput("log query --json", "log.query:row_type", lines=True),
    }
)


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "schema", EPILOG)
    what = parser.add_mutually_exclusive_group(required=True)
    known = (*_PRINTED, *OUTPUTS)
    what.add_argument("what", metavar="WHAT", nargs="?", choices=known, help=f"one of {', '.join(known)}")
    what.add_argument("--json-outputs", metavar="DIR", type=Path, help="write the schema of each --json to this folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a schema. It is generated, so that the package needs no files for it."""
    if options.json_outputs is not None:
        for name in OUTPUTS:
            (options.json_outputs / file_name(name)).write_text(schema_text(name), encoding="utf-8")
    elif options.what == "log":
        from tokgate.blocklog.records import log_schema

        sys.stdout.write(log_schema.schema_text())
    elif options.what == "policy":
        from tokgate.config.format.policy_file import policy_schema

        sys.stdout.write(json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(schema_text(options.what))
    return Exit.DONE


def json_schema(name: str) -> dict[str, Any]:
    """The schema of an output. Keys that it doesn't name are allowed: a later tokgate may print them."""
    from pydantic import TypeAdapter

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
