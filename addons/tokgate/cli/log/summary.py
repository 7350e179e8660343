"""`tokgate log summary`: events by client, name, ban and reason, as tables or JSON."""

import argparse
import sys
from typing import Final

from tokgate.analytics import summary as counting
from tokgate.analytics.summary import KEY, By, Summarised, TableOutput
from tokgate.blocklog.records.coverage import Share, share_of
from tokgate.cli.arguments import whole_number
from tokgate.cli.commands import Exit, Subparsers, add_subcommand
from tokgate.cli.log.source import MAX_JUNK_SHOWN, add_whole_log, open_log, source_files, tell_of, wanted_of
from tokgate.cli.terminal import print_json, show_rows, styled, visible
from tokgate.config.extras import Extra

_EPILOG: Final = """\
examples:
  tokgate log summary                               ./block.ndjson and the files rotated away from it
  tokgate log summary --by client --top 50 --network federal-offices
  tokgate log summary --json | jq '.tables.client.rows[0]'

Each table counts every record about traffic once, so all add up to the same number of events.
`name` is the registrable domain (tiktok.com for www.tiktok.com), or the address where no name was seen."""
_BOLD: Final = "1"
_RED: Final = "1;31"
_TITLES: Final = {
    By.ATTEMPT: "Who tried what",
    By.CLIENT: "Clients",
    By.NAME: "Names",
    By.BAN: "Bans",
    By.SERVICE: "Services",
    By.NETWORK: "Networks",
    By.SIGNAL: "Seen in",
    By.REASON: "Reasons",
    By.ACTION: "What was done",
    By.VERDICT: "Verdicts",
}
_COVERAGE: Final = ("network", "connections", "judged by name", "what was visible")
_STAMP: Final = len("2023-03-10T08:00:00.000000Z")
_SHOWN_BY_DEFAULT: Final = (By.ATTEMPT, By.CLIENT, By.NAME, By.BAN, By.NETWORK, By.SIGNAL, By.ACTION)


def add_parsers(commands: Subparsers) -> None:
    parser = add_subcommand(commands, "summary", "count who, what, when and why", _EPILOG)
    add_whole_log(parser)
    parser.add_argument(
        "--by",
        action="append",
        type=By,
        choices=list(By),
        metavar="TABLE",
        help=f"only this table: {', '.join(By)}; may be given several times",
    )
    parser.add_argument(
        "--top", type=whole_number("number of rows"), default=10, metavar="N", help="rows a table (default: 10)"
    )
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.set_defaults(log_run=summarise, extra=Extra.REVIEW)


def summarise(args: argparse.Namespace) -> Exit:
    """Count events and print them; without `--by` the default tables, or all in JSON."""
    by, top, as_json = args.by or [], args.top, args.json
    tables = tuple(dict.fromkeys(by)) or (tuple(By) if as_json else _SHOWN_BY_DEFAULT)
    with open_log(args, source_files(args), wanted_of(args)) as database:
        summary, torn = counting.summarise(database, tables, top)
        tell_of((*database.damage, *database.unreadable(torn, MAX_JUNK_SHOWN)), summary["unreadable"])
    if as_json:
        print_json(summary, ascii_only=False)
    else:
        _show_summary(summary, tables)
    return Exit.DONE


def _show_summary(summary: Summarised, tables: tuple[By, ...]) -> None:
    when = f" from {summary['first']} to {summary['last']}" if summary["first"] is not None else ""
    _print(f"{summary['events']} events{when}, in {summary['records']} records", _BOLD)
    if summary["dropped"]:
        _print(f"{summary['dropped']} records were dropped (log-gap)", _RED)
    if summary["unreadable"]:
        _print(f"{summary['unreadable']} lines could not be read", _RED)
    for by in tables:
        if summary["tables"][by]["keys"]:
            _show_table(by, summary["tables"][by])
    if summary["coverage"] is not None:
        coverage, rows = summary["coverage"]["networks"], []
        for network, seen in coverage.items():
            seen_in = ", ".join(f"{visibility} {number}" for visibility, number in seen.items())
            rows.append([visible(network), str(Share(seen).total), Share(seen).percent, visible(seen_in)])
        _print("\nCoverage", _BOLD)
        show_rows(_COVERAGE, rows, right=(False, True, True, False))
        _print(" ".join(share_of(coverage).sentences()))


def _show_table(by: By, table: TableOutput) -> None:
    keys, rows = KEY[by], table["rows"]
    names = (*keys, "events", "first", "last")
    cells = [
        [*(visible(str(row[key])) for key in keys), str(row["count"]), *(_to_minute(str(row[e])) for e in names[-2:])]
        for row in rows
    ]
    if table["other"]:
        blank = [""] * (len(keys) - 1)
        cells.append([f"({table['keys'] - len(rows)} others)", *blank, str(table["other"]), "", ""])
    _print(f"\n{_TITLES[by]}", _BOLD)
    show_rows(names, cells, right=[name == "events" for name in names])


def _print(text: str, style: str = "") -> None:
    sys.stdout.write(f"{styled(text, style)}\n")


def _to_minute(timestamp: str) -> str:
    return visible(timestamp[:16].replace("T", " ") + "Z") if len(timestamp) == _STAMP else visible(timestamp)
