"""`tokgate log query`: records that match filters, or the result of an SQL query over the view `events`."""

import argparse
import sys
from itertools import islice
from typing import Any, Final

from tokgate.analytics.columns import listing
from tokgate.analytics.formats import json_lines, plain, write_csv
from tokgate.analytics.sql import QueryResult
from tokgate.cli.arguments import whole_number
from tokgate.cli.commands import Exit, Subparsers, add_subcommand
from tokgate.cli.log.source import add_whole_log, open_log, source_files, tell_of_lost, wanted_of
from tokgate.cli.terminal import narrate, show_rows, visible
from tokgate.config.extras import Extra

ROWS_SHOWN: Final = 100
"""Rows of a table, unless --limit says otherwise; JSON and CSV have all."""

_EPILOG: Final = """\
examples:
  tokgate log query --client 10.32.1.7 --since 2023-03-10
  tokgate log query --sql "SELECT client, sum(events) AS n FROM events WHERE traffic GROUP BY 1 ORDER BY n DESC LIMIT 5"
  tokgate log query --name tiktok.com --csv > tiktok.csv
  tokgate log query --json --sql "SELECT time::DATE AS day, sum(events) AS n FROM events WHERE traffic GROUP BY 1"

SQL is DuckDB's (https://duckdb.org/docs/sql/introduction), one SELECT; it sees the view `events` and nothing else: no
other file, no network. With --clickhouse it is ClickHouse's SQL. The filters narrow what the view holds.
docs/log-queries.md has its columns. Times are UTC."""


def add_parsers(commands: Subparsers) -> None:
    parser = add_subcommand(commands, "query", "ask the log a question", _EPILOG)
    add_whole_log(parser)
    parser.add_argument("--sql", metavar="SELECT", help="one SELECT over the view `events`")
    parser.add_argument(
        "--limit",
        type=whole_number("number of rows"),
        metavar="N",
        help=f"most rows; 0 for all (default: {ROWS_SHOWN} in a table, else all)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a row, with every column")
    form.add_argument("--csv", action="store_true", help="CSV with a header and every column")
    parser.set_defaults(log_run=query, extra=Extra.REVIEW)


def query(args: argparse.Namespace) -> Exit:
    """Run the query and print its result as a table, JSON or CSV."""
    as_table = not (args.json or args.csv)
    limit = (ROWS_SHOWN if as_table else None) if args.limit is None else args.limit or None
    with open_log(args, source_files(args), wanted_of(args)) as database:
        if args.sql is not None:
            answer = database.answer_query(args.sql)
        else:  # one more than is shown, to know whether there are more
            wide = not as_table
            answer = database.answer(listing(wide=wide, limit=limit and limit + 1))
        rows = QueryResult(answer.columns, answer.types, answer.rows if limit is None else islice(answer.rows, limit))
        if args.json:
            sys.stdout.writelines(json_lines(rows))
        elif args.csv:
            write_csv(rows, sys.stdout)
        else:
            numbers = ("BIGINT", "INTEGER", "HUGEINT", "DOUBLE", "NUMBER")
            right = [kind in numbers or kind.startswith("DECIMAL") for kind in rows.types]
            show_rows(rows.columns, [[_cell(value) for value in row] for row in rows.rows], right=right)
        if limit is not None and next(answer.rows, None) is not None:
            narrate(f"tokgate: the first {limit} rows; --limit N for more, --limit 0 for all")
        tell_of_lost(database)
    return Exit.DONE


def _cell(value: object) -> str:
    value = plain(value)
    return "" if value is None else visible(str(value))


def row_type() -> Any:
    """A line of `tokgate log query --json` without `--sql`: an event with every column, null where it says nothing."""
    from pydantic import create_model

    from tokgate.analytics.columns import COLUMNS

    types: dict[str, Any] = {
        "VARCHAR": str, "TIMESTAMP": str, "BIGINT": int, "BOOLEAN": bool, "JSON": dict[str, Any] | list[Any],
    }  # fmt: skip
    columns: dict[str, Any] = {column.name: (types[column.type] | None, ...) for column in COLUMNS}
    return create_model("QueryRow", **columns)
