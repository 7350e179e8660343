"""`tokgate log case`: a case file about one client, or about one event and what its client did around it."""

import argparse
from dataclasses import replace
from typing import Final

from tokgate.analytics.sources import LogError
from tokgate.blocklog.read.reader import UNREADABLE, Filter, Line, client_filter
from tokgate.blocklog.records.record import instant_of, text_at
from tokgate.cli.commands import Subparsers
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log.engine import source_files
from tokgate.cli.log.query import AddSource, FilterFactory
from tokgate.cli.log.reports.report import add_period, add_presentation, write_report
from tokgate.config.extras import Extra

AROUND: Final = 60
"""Minutes before and after an event that its case file covers."""
_EPILOG: Final = """\
examples:
  tokgate log case --client 10.32.1.7 --from 2023-03-10 --to 2023-03-17 -o case.pdf --why "complaint" --ticket HR-17
  tokgate log case --event 01862000-0000-7000-8000-000000000001 -o case.html

The bans, every record of the client in the period, the integrity of the log, and who wrote the file and why. With the
reference of an event it is about that event's client, an hour before and after. Each record can be proved: tokgate log
prove."""


def add_parser(commands: Subparsers, add_source: AddSource, wanted_of: FilterFactory) -> None:
    parser = commands.add_parser(
        "case",
        help="a file about one client or event",
        description="Write a case file about one client or event.",
        epilog=_EPILOG,
    )
    add_source(parser)
    add_period(parser)
    add_presentation(parser)
    parser.add_argument("--event", metavar="EVENT-ID", help="the event that it is about, by the block page's reference")
    parser.set_defaults(log_run=lambda args: case(args, wanted_of(args)), extra=Extra.REPORT, case=True)


def case(args: argparse.Namespace, wanted: Filter) -> Exit:
    """Write the report of one event's, client's or user's case."""
    if args.event is None:
        if wanted.client is None and wanted.user is None:
            raise CommandError("name the case: --event EVENT-ID, --client or --user", Exit.USAGE)
        return write_report(args, wanted)
    if args.clickhouse is not None:
        raise CommandError(
            "ClickHouse holds no lines to find an event in: name --client or --user, --from and --to", Exit.USAGE
        )
    line = _event(args)
    at = instant_of(line.record)
    client = text_at(line.record, "source", "ip") or text_at(line.record, "source", "address")
    if client is None or at is None:
        raise CommandError(f"the event {args.event} is about no client", Exit.FINDINGS)
    since, until = wanted.since or at.subtract(minutes=AROUND), wanted.until or at.add(minutes=AROUND)
    return write_report(args, replace(wanted, client=client_filter(client), since=since, until=until))


def _event(args: argparse.Namespace) -> Line:
    from tokgate.analytics.index.record_lookup import line_in  # brings DuckDB

    try:
        for path in reversed(source_files(args)):
            if (line := line_in(path, args.event)) is not None:
                return line
    except (*UNREADABLE, LogError) as error:
        raise CommandError(f"the log can't be read: {error}") from error
    raise CommandError(f"no record has the id {args.event}", Exit.FINDINGS)
