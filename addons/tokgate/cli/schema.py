"""`tokgate schema`: the JSON Schemas of policy files and of the block log, and the log's tables in other stores."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Final

from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import Exit

EPILOG = """\
examples:
  tokgate schema policy > policy.schema.json     for editors: # yaml-language-server: $schema=policy.schema.json
  tokgate schema log                             for whoever reads the block log
  tokgate schema clickhouse | clickhouse-client  tables for the logs of a fleet (deploy/siem/clickhouse)
  tokgate schema elastic > mappings.json         an Elasticsearch component template (deploy/siem/elastic)
  tokgate schema sentinel > template.json        a table and its collection rule for Microsoft Sentinel"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `schema`."""
    summary = COMMANDS["schema"]
    parser = subparsers.add_parser("schema", help=summary, description=summary, epilog=EPILOG)
    parser.add_argument("what", choices=tuple(_PRINTED), help="of policy files, or of the block log")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one schema; made from the code, so that an installed package needs no files for it."""
    sys.stdout.write(_PRINTED[options.what]())
    return Exit.DONE


def _policy() -> str:
    from tokgate.config.schema import policy_schema

    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def _log() -> str:
    from tokgate.blocklog.schema import schema_text

    return schema_text()


def _clickhouse() -> str:
    from tokgate.review.clickhouse import clickhouse_schema

    return clickhouse_schema()


def _elastic() -> str:
    from tokgate.blocklog.elastic import template_text

    return template_text()


def _sentinel() -> str:
    from tokgate.review.sentinel import template_text

    return template_text()


_PRINTED: Final[dict[str, Callable[[], str]]] = {
    "policy": _policy,
    "log": _log,
    "clickhouse": _clickhouse,
    "elastic": _elastic,
    "sentinel": _sentinel,
}
