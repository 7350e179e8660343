"""`tokgate log candidates`: names in the log that resemble a banned service and match no pattern."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from whenever import Instant

from tokgate.blocklog.read.reader import Filter
from tokgate.cli.commands import Subparsers
from tokgate.cli.exits import Exit
from tokgate.cli.log.engine import add_server, open_log, source_files
from tokgate.cli.log.files import add_no_rotated
from tokgate.cli.log.output import tell_of
from tokgate.cli.log.query import AddSource, FilterFactory
from tokgate.cli.policy_source import snapshot_if_valid
from tokgate.cli.terminal import Patience
from tokgate.config.extras import Extra
from tokgate.policy.services import NO_MATCH

if TYPE_CHECKING:
    from tokgate.analytics.near_miss_report import Candidate

_EPILOG: Final = """\
examples:
  tokgate log candidates                            what the log here offers, as YAML with the evidence
  tokgate log candidates --since 2027-03-01 --json  for programs

There is something to show only where the policy says `settings.log.near_misses: true`. What the policies in --policies
match by now, in any service, is left out."""


def add_parser(commands: Subparsers, add_source: AddSource, wanted_of: FilterFactory) -> None:
    summary = "names that resemble a banned service, for its file"
    parser = commands.add_parser("candidates", help=summary, description=f"Show {summary}.", epilog=_EPILOG)
    add_source(parser)
    add_server(parser)
    add_no_rotated(parser)
    parser.add_argument(
        "--policies", type=Path, default=Path("policies"), metavar="DIR",
        help="whose names are left out (default: ./policies, if it is there)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(log_run=lambda args: offer(args, wanted_of(args)), extra=Extra.CANDIDATES)


def offer(args: argparse.Namespace, wanted: Filter) -> Exit:
    """Print the candidates in the log that match nothing in the policies now."""
    from tokgate.analytics.near_miss_report import as_json, candidates, fragment

    with open_log(args, source_files(args), wanted) as database, Patience("reading") as patience:
        found = candidates(database, progress=patience)
        tell_of(database.damage, len(database.damage))
    found = _unknown(found, args.policies)
    if args.json:
        sys.stdout.writelines(json.dumps(as_json(each), ensure_ascii=False) + "\n" for each in found)
    else:
        sys.stdout.write(fragment(found))
    return Exit.DONE


def _unknown(found: "tuple[Candidate, ...]", policies: Path) -> "tuple[Candidate, ...]":
    """The candidates that match nothing in the policies as they are now."""
    otherwise = "names that it matches are shown, too"
    snapshot = snapshot_if_valid(policies, Instant.now(), otherwise) if found else None
    if snapshot is None:
        return found
    return tuple(each for each in found if snapshot.services.match(each.name) is NO_MATCH)
