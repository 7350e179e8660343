"""`tokgate schema`: JSON Schemas of policy files, the block log and each `--json`; the tables of log stores."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import Exit
from tokgate.cli.json_outputs.schemas import OUTPUTS, file_name, schema_text

EPILOG = """\
examples:
  tokgate schema policy > policy.schema.json     for editors: # yaml-language-server: $schema=policy.schema.json
  tokgate schema log                             for whoever reads the block log
  tokgate schema clickhouse | clickhouse-client  tables for the logs of a fleet (deploy/siem/clickhouse)
  tokgate schema elastic > mappings.json         an Elasticsearch component template (deploy/siem/elastic)
  tokgate schema sentinel > template.json        a table and its collection rule for Microsoft Sentinel
  tokgate schema explain                         what `tokgate explain --json` prints; likewise of each other --json
  tokgate schema --json-outputs schema/json      all of these, a file each"""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "schema", EPILOG)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "what",
        metavar="WHAT",
        nargs="?",
        choices=(*_PRINTED, *OUTPUTS),
        help=f"one of {', '.join((*_PRINTED, *OUTPUTS))}",
    )
    what.add_argument("--json-outputs", metavar="DIR", type=Path, help="write the schema of each --json to this folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a schema. It is generated, so that the package needs no files for it."""
    if options.json_outputs is not None:
        for name in OUTPUTS:
            (options.json_outputs / file_name(name)).write_text(schema_text(name), encoding="utf-8")
    else:
        sys.stdout.write(_PRINTED[options.what]() if options.what in _PRINTED else schema_text(options.what))
    return Exit.DONE


def _policy() -> str:
    from tokgate.config.policy_schema import policy_schema

    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def _log() -> str:
    from tokgate.blocklog.records import log_schema

    return log_schema.schema_text()


def _clickhouse() -> str:
    from tokgate.analytics.export.clickhouse import clickhouse_schema

    return clickhouse_schema()


def _elastic() -> str:
    from tokgate.analytics.export.elastic import template_text

    return template_text()


def _sentinel() -> str:
    from tokgate.analytics.export.sentinel import template_text

    return template_text()


_PRINTED: Final[dict[str, Callable[[], str]]] = {
    "policy": _policy,
    "log": _log,
    "clickhouse": _clickhouse,
    "elastic": _elastic,
    "sentinel": _sentinel,
}
