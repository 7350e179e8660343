"""`tokgate log`: the commands that read the block log, and those for its keys."""

import argparse
from dataclasses import replace
from typing import Final

from tokgate.analytics.summary import By
from tokgate.blocklog.paths import DEFAULT_LOG
from tokgate.blocklog.read.reader import Filter, client_filter
from tokgate.blocklog.records.record import EventAction
from tokgate.cli.arguments import settle, time_argument, whole_number
from tokgate.cli.commands import COMMANDS, Subparsers, add_subcommand
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log import evidence, export, privacy, query, report, verify
from tokgate.cli.log.access import add_purpose, record_look
from tokgate.cli.log.engine import add_server, server_of
from tokgate.cli.log.files import add_files, add_no_rotated
from tokgate.cli.log.summary import summarise
from tokgate.cli.log.tail import tail
from tokgate.config.extras import Extra
from tokgate.policy.decision import Verdict
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.prefixes import IPNetwork

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


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser("log", help=COMMANDS["log"], description="Read the block log.", epilog=_EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="log_command", required=True)
    latest = add_subcommand(commands, "tail", "show the latest records", _TAIL_EPILOG)
    _add_source(latest)
    add_purpose(latest)
    latest.add_argument(
        "-n",
        "--lines",
        type=whole_number("number of rows"),
        default=20,
        metavar="N",
        help="how many records (default: 20)",
    )
    latest.add_argument("-f", "--follow", action="store_true", help="go on with new records, also after rotation")
    latest.add_argument("--json", action="store_true", help="the records themselves, one a line")
    latest.set_defaults(run=run, log_run=_tail)
    summary = add_subcommand(commands, "summary", "count who, what, when and why", _SUMMARY_EPILOG)
    _add_whole_log(summary)
    summary.add_argument(
        "--by", action="append", type=By, choices=list(By), help="only this table; may be given several times"
    )
    summary.add_argument(
        "--top", type=whole_number("number of rows"), default=10, metavar="N", help="rows a table (default: 10)"
    )
    summary.add_argument("--json", action="store_true", help="the same as one JSON object")
    summary.set_defaults(run=run, log_run=_summary, extra=Extra.REVIEW)
    query.add_parser(commands, _add_whole_log, _filter)
    export.add_parsers(commands, _add_whole_log, _filter)
    report.add_report(commands, _add_whole_log, _filter)
    report.add_case(commands, _add_whole_log, _filter)
    for command in commands.choices.values():
        command.set_defaults(run=run)
    verify.add_parsers(commands)
    evidence.add_parsers(commands)
    privacy.add_parsers(commands)


def run(args: argparse.Namespace) -> int:
    """Run the chosen command of `log`. Looks at single records are recorded first."""
    if hasattr(args, "clickhouse"):
        server_of(args)  # an address with a password in it is refused before it is recorded
    if hasattr(args, "why"):
        record_look(args, f"tokgate log {args.log_command}")
    return int(args.log_run(args))


def _add_whole_log(parser: argparse.ArgumentParser) -> None:
    """Add the options for a log with its rotated files, or in a server, for filters, and for who looks and why."""
    _add_source(parser)
    add_server(parser)
    add_purpose(parser)
    add_no_rotated(parser)


def _add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options for files and for filters."""
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
    """Add the files and options for their period; returns the group of filters."""
    add_files(parser)
    wanted = parser.add_argument_group("filters")
    wanted.add_argument("--since", type=time_argument, metavar="TIME", help="not before; without offset it is UTC")
    wanted.add_argument("--until", type=time_argument, metavar="TIME", help="before")
    return wanted


def _period(args: argparse.Namespace) -> Filter:
    since, until = (None if moment is None else settle(moment, "UTC") for moment in (args.since, args.until))
    if since is not None and until is not None and since >= until:
        raise CommandError("the period has to begin before it ends", Exit.USAGE)
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
    return summarise(args, _filter(args))


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
