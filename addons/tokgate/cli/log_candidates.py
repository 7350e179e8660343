"""`tokgate log candidates`: names that resemble a banned service, for whoever keeps the service files."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from whenever import Instant

from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.blocklog.reader import Filter
from tokgate.cli.exits import Exit
from tokgate.cli.log_output import tell_of
from tokgate.cli.log_query import AddSource, WantedOf
from tokgate.cli.log_review import files_of, review_of
from tokgate.cli.policies import compile_patiently, load_patiently
from tokgate.cli.terminal import Patience, narrate
from tokgate.policy.services import NO_MATCH

if TYPE_CHECKING:
    from tokgate.review.candidates import Candidate

_EPILOG: Final = """\
examples:
  tokgate log candidates                            what the log here offers, as YAML with the evidence
  tokgate log candidates --since 2027-03-01 --json  for programs

There is something to show only where the policy says `settings.log.near_misses: true`. What the policies in --policies
match by now, in any service, is left out."""


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add_source: AddSource, wanted_of: WantedOf
) -> None:
    """Add `candidates`."""
    summary = "names that resemble a banned service, for its file"
    parser = commands.add_parser("candidates", help=summary, description=f"Show {summary}.", epilog=_EPILOG)
    add_source(parser)
    parser.add_argument("--no-rotated", action="store_true", help="only the files named, not those rotated from them")
    parser.add_argument(
        "--policies", type=Path, default=Path("policies"), metavar="DIR",
        help="whose names are left out (default: ./policies, if it is there)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(log_run=lambda args: offer(args, wanted_of(args)))


def offer(args: argparse.Namespace, wanted: Filter) -> Exit:
    """Read, leave out what is known, show."""
    from tokgate.review.candidates import as_json, candidates, fragment

    files = files_of(args.log or [DEFAULT_LOG], rotated=not args.no_rotated)
    with review_of(files, wanted) as review, Patience("reading") as patience:
        found = candidates(review, progress=patience)
        tell_of(review.damage, len(review.damage))
    found = _unknown(found, args.policies)
    if args.json:
        sys.stdout.writelines(json.dumps(as_json(each), ensure_ascii=False) + "\n" for each in found)
    else:
        sys.stdout.write(fragment(found))
    return Exit.DONE


def _unknown(found: "tuple[Candidate, ...]", policies: Path) -> "tuple[Candidate, ...]":
    """Those that match nothing in the policies as they are now."""
    if not found or not policies.exists():
        return found
    policy = load_patiently(policies, Instant.now()).policy
    if policy is None:
        narrate(f"tokgate: {policies} has errors (see `tokgate check`): names that it matches are shown, too")
        return found
    services = compile_patiently(policy).services
    return tuple(each for each in found if services.match(each.name) is NO_MATCH)
