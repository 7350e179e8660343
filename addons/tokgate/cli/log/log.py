"""`tokgate log`: the commands that read the block log, and those for its keys."""

import argparse
from typing import Final

from tokgate.cli.commands import COMMANDS, Subparsers
from tokgate.cli.log import evidence, privacy, query, report, summary, tail, verify
from tokgate.cli.log.access import record_look
from tokgate.cli.log.source import server_of

_EPILOG: Final = """\
examples:
  tokgate log tail -f                               what is refused, as it happens
  tokgate log tail --client 10.32.0.0/14 --json | jq .tokgate.rule
  tokgate log summary --since 2023-03-10T00:00Z     who, what, when and why since the ban began"""


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("log", help=COMMANDS["log"], description="Read the block log.", epilog=_EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="log_command", required=True)
    for reading in (tail, summary, query, report):
        reading.add_parsers(commands)
    for command in commands.choices.values():
        command.set_defaults(run=run)
    for other in (verify, evidence, privacy):
        other.add_parsers(commands)


def run(args: argparse.Namespace) -> int:
    """Run the chosen command of `log`. Looks at single records are recorded first."""
    if hasattr(args, "clickhouse"):
        server_of(args)  # an address with a password in it is refused before it is recorded
    if hasattr(args, "why"):
        record_look(args, f"tokgate log {args.log_command}")
    return int(args.log_run(args))
