"""`tokgate schema`: the JSON Schemas of policy files and of the block log, as committed in schema/."""

import argparse
import json
import sys

from tokgate.cli.exits import Exit

EPILOG = """\
examples:
  tokgate schema policy > policy.schema.json     for editors: # yaml-language-server: $schema=policy.schema.json
  tokgate schema log                             for whoever reads the block log"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `schema`."""
    summary = "print a JSON Schema"
    parser = subparsers.add_parser("schema", help=summary, description=summary, epilog=EPILOG)
    parser.add_argument("what", choices=("policy", "log"), help="policy files, or the block log")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one schema; made from the code, so that an installed package needs no files for it."""
    sys.stdout.write(_policy() if options.what == "policy" else _log())
    return Exit.DONE


def _policy() -> str:
    from tokgate.config.schema import policy_schema

    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def _log() -> str:
    from tokgate.blocklog.schema import schema_text

    return schema_text()
