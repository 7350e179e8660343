"""`tokgate override`: a time-limited exception from a ban in force, made, listed and ended from the command line."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import Exit
from tokgate.cli.policies import add_policies_option
from tokgate.config import fields

_EPILOG = """\
examples:
  tokgate override add --ban offices-2027 --client 10.32.9.7 --for 2h --reason "Press conference"
  tokgate override list                             those in force and to come
  tokgate override end offices-2027-20270301T093000Z

An override is a YAML file in the folder overrides/ of the policies. A running tokgate sees it at once, records that it
starts and ends, and by whom; it ends by itself."""
_ADD_EPILOG = """\
examples:
  tokgate override add --ban offices-2027 --client 10.32.9.7 --for 2h --reason "Press conference"
  tokgate override add --ban offices-2027 --network press --until 2027-03-01T18:00 --reason "Election" --ticket CHG-1042

--for takes 30m, 2h, 1h30m, 1d (24 hours) or ISO 8601 (PT2H). --until without offset is wall time in the network's zone.
The name of the override is printed. Exit code 1: the policy does not allow it; nothing was written."""
_LIST_EPILOG = """\
examples:
  tokgate override list                             those in force and to come
  tokgate override list --all                       also those that are over
  tokgate override list --json                      one JSON object"""
_END_EPILOG = """\
examples:
  tokgate override end offices-2027-20270301T093000Z

The file stays, with the time and `ended_by`: it shows what was. An override that had not begun is removed."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `override` and its own commands."""
    summary = COMMANDS["override"]
    parser = subparsers.add_parser("override", help=summary, description=summary, epilog=_EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="override_command", required=True)
    _add_adding(commands)
    listing = commands.add_parser("list", help="show overrides", description="Show overrides.", epilog=_LIST_EPILOG)
    add_policies_option(listing)
    listing.add_argument("--all", action="store_true", help="also those that are over")
    listing.add_argument("--json", action="store_true", help="one JSON object")
    listing.set_defaults(run=run, override_run="list")
    ending = commands.add_parser("end", help="end one now", description="End an override now.", epilog=_END_EPILOG)
    ending.add_argument("name", metavar="NAME", help="as `tokgate override list` shows it")
    ending.add_argument("--by", type=_line, metavar="WHO", help="who ends it (default: you)")
    add_policies_option(ending)
    ending.set_defaults(run=run, override_run="end")


def _add_adding(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    adding = commands.add_parser("add", help="make one", description="Make an override.", epilog=_ADD_EPILOG)
    adding.add_argument("--ban", required=True, metavar="BAN", help="the ban to make an exception from")
    whom = adding.add_mutually_exclusive_group(required=True)
    whom.add_argument("--network", metavar="NETWORK", help="for all clients of this network of the ban")
    whom.add_argument(
        "--client", action="append", type=_cidr, metavar="IP|CIDR", help="for these clients; may be given several times"
    )
    long = adding.add_mutually_exclusive_group(required=True)
    long.add_argument("--for", dest="lasting", type=_lasting, metavar="DURATION", help="how long: 30m, 2h, 1d, PT2H")
    long.add_argument("--until", type=_until, metavar="TIME", help="first instant at which it no longer holds")
    adding.add_argument("--reason", required=True, type=_line, help="why; shown to those who review the log")
    adding.add_argument("--ticket", type=_line, help="where it was asked for")
    adding.add_argument("--by", type=_line, metavar="WHO", help="who makes it (default: you)")
    adding.add_argument("--name", metavar="NAME", help="what to call it (default: the ban and the time)")
    add_policies_option(adding)
    adding.set_defaults(run=run, override_run="add")


def run(options: argparse.Namespace) -> int:
    """Run the command of `override` that was asked for."""
    from tokgate.cli import override_change, override_list

    policies: Path = options.policies
    if options.override_run == "list":
        return override_list.show(policies, everything=options.all, as_json=options.json)
    if options.override_run == "end":
        return override_change.end(policies, options.name, options.by)
    wanted = override_change.Wanted(
        ban=options.ban,
        network=options.network,
        clients=tuple(options.client or ()),
        lasting=options.lasting,
        until=options.until,
        reason=options.reason,
        ticket=options.ticket,
        by=options.by,
        name=options.name,
    )
    return int(override_change.add(policies, wanted) or Exit.DONE)


def _argument[T](read: Callable[[Any], T]) -> Callable[[str], T]:
    """A reader of policy values, for argparse's `type=`."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except PydanticCustomError as error:
            raise argparse.ArgumentTypeError(error.message()) from error

    return convert


_cidr = _argument(fields.cidr)
_line = _argument(fields.one_line)
_until = _argument(fields.until)
_lasting = _argument(fields.lasting)
