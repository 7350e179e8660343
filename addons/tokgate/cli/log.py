"""`tokgate log`: the block log as a person reads it: `tail` for what happens, `summary` for who, what, when and why."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from tokgate.blocklog.document import EventAction
from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.blocklog.reader import Filter, client_filter
from tokgate.cli import log_candidates, log_export, log_privacy, log_query, log_report, log_verify
from tokgate.cli.commands import COMMANDS
from tokgate.cli.exits import Exit
from tokgate.cli.instants import settle, time_argument
from tokgate.cli.log_summary import summarise
from tokgate.cli.log_tail import tail
from tokgate.policy.decision import Verdict
from tokgate.policy.names import DomainName, normalise
from tokgate.policy.prefixes import IPNetwork
from tokgate.review.summary import By

_EPILOG: Final = """\
examples:
  tokgate log tail -f                               what is refused, as it happens
  tokgate log tail --client 10.32.0.0/14 --json | jq .tokgate.rule
  tokgate log summary --since 2023-03-10T00:00Z     who, what, when and why since the ban began"""
_TAIL_EPILOG: Final = """\
examples:
  tokgate log tail -f                               the last 20 records, then new ones as they come
  tokgate log tail -n 5 --name tiktok.com --verdict block
  tokgate log tail -f --json | jq -r '.source.ip'   the records themselves, one a line

Unreadable lines are reported on stderr and skipped. Ctrl-C ends --follow with exit code 0."""
_SUMMARY_EPILOG: Final = """\
examples:
  tokgate log summary                               ./block.ndjson and the files rotated away from it
  tokgate log summary --by client --top 50 --network federal-offices
  tokgate log summary --json | jq '.tables.client.rows[0]'

Each table counts every record about traffic once, so all add up to the same number of events.
`name` is the registrable domain (tiktok.com for www.tiktok.com), or the address where no name was seen."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `log` and its own commands."""
    parser = subparsers.add_parser("log", help=COMMANDS["log"], description="Read the block log.", epilog=_EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="log_command", required=True)
    latest = commands.add_parser(
        "tail", help="the latest records", description="Show the latest records.", epilog=_TAIL_EPILOG
    )
    _add_source(latest)
    latest.add_argument("-n", "--lines", type=_count, default=20, metavar="N", help="how many records (default: 20)")
    latest.add_argument("-f", "--follow", action="store_true", help="go on with new records, also after rotation")
    latest.add_argument("--json", action="store_true", help="the records themselves, one a line")
    latest.set_defaults(run=run, log_run=_tail)
    summary = commands.add_parser(
        "summary", help="who, what, when, why", description="Count who, what, when and why.", epilog=_SUMMARY_EPILOG
    )
    _add_source(summary)
    summary.add_argument("--no-rotated", action="store_true", help="only the files named, not those rotated from them")
    summary.add_argument(
        "--by", action="append", type=By, choices=list(By), help="only this table; may be given several times"
    )
    summary.add_argument("--top", type=_count, default=10, metavar="N", help="rows a table (default: 10)")
    summary.add_argument("--json", action="store_true", help="the same as one JSON object")
    summary.set_defaults(run=run, log_run=_summary)
    log_query.add_parser(commands, _add_source, _filter)
    log_export.add_parsers(commands, _add_source, _filter)
    log_report.add_parser(commands, _add_source, _filter)
    log_candidates.add_parser(commands, _add_files, _period)
    for command in commands.choices.values():
        command.set_defaults(run=run)
    log_verify.add_parsers(commands)
    log_privacy.add_parsers(commands)


def run(args: argparse.Namespace) -> int:
    """Run the command of `log` that was asked for."""
    return int(args.log_run(args))


def _add_source(parser: argparse.ArgumentParser) -> None:
    """Which files, and which records of them."""
    wanted = _add_files(parser)
    wanted.add_argument("--client", type=_client, metavar="IP|CIDR|PSEUDONYM", help="only these clients")
    wanted.add_argument("--user", metavar="USER", help="only this user of the proxy, as the log has the name")
    wanted.add_argument("--name", type=_name, metavar="NAME", help="only this name and names under it")
    wanted.add_argument("--ban", metavar="BAN", help="only this ban")
    wanted.add_argument("--network", metavar="NETWORK", help="only this network")
    wanted.add_argument("--verdict", choices=[verdict.value for verdict in Verdict], help="only this verdict")
    wanted.add_argument(
        "--action", choices=[action.value for action in EventAction], metavar="ACTION",
        help="only this event.action, such as tls-handshake-refused",
    )  # fmt: skip


def _add_files(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Which files, and of which time; returns the group of filters."""
    parser.add_argument(
        "--log", nargs="+", action="extend", type=Path, metavar="FILE",
        help=f"files to read, .gz and .zst too (default: ./{DEFAULT_LOG})",
    )  # fmt: skip
    wanted = parser.add_argument_group("filters")
    wanted.add_argument("--since", type=time_argument, metavar="TIME", help="not before; without offset it is UTC")
    wanted.add_argument("--until", type=time_argument, metavar="TIME", help="before")
    return wanted


def _period(args: argparse.Namespace) -> Filter:
    since, until = (None if moment is None else settle(moment, "UTC") for moment in (args.since, args.until))
    return Filter(since=since, until=until)


def _filter(args: argparse.Namespace) -> Filter:
    return replace(
        _period(args),
        client=args.client,
        user=args.user,
        name=args.name,
        ban=args.ban,
        action=args.action,
        verdict=args.verdict,
        network=args.network,
    )


def _tail(args: argparse.Namespace) -> Exit:
    files = args.log or [DEFAULT_LOG]
    return tail(files, _filter(args), lines=args.lines, follow=args.follow, as_json=args.json)


def _summary(args: argparse.Namespace) -> Exit:
    files, rotated = args.log or [DEFAULT_LOG], not args.no_rotated
    return summarise(files, _filter(args), rotated=rotated, by=args.by or [], top=args.top, as_json=args.json)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)


def _client(text: str) -> IPNetwork | str:
    try:
        return client_filter(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an address, a CIDR nor a pseudonym") from error


def _name(text: str) -> str:
    name = normalise(text)
    if not isinstance(name, DomainName):
        raise argparse.ArgumentTypeError(f"{text!r} is no domain name")
    return name.value
