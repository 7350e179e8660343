"""`tokgate log query`: records that match filters, or the result of an SQL query over the view `events`.
`tokgate log export`: the records in the formats of other systems.
"""

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tokgate.analytics.columns import EVERY_COLUMN, listing
from tokgate.analytics.formats import json_lines, plain, write_csv
from tokgate.analytics.sql import QueryResult, literal
from tokgate.cli.arguments import whole_number
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand
from tokgate.cli.log.source import add_whole_log, open_database, open_log, source_files, tell_of_lost, wanted_of
from tokgate.cli.output_file import becoming
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
FORMATS: Final = ("csv", "parquet")
_EXPORT_EPILOG: Final = """\
examples:
  tokgate log export --format csv -o march.csv --since 2023-03-01 --until 2023-04-01
  tokgate log export --format parquet -o march.parquet
  tokgate log export --format csv --ban belgium-federal-2023 | gzip > march.csv.gz

Both have the columns of docs/log-queries.md. A file is complete or isn't there. Parquet is made of files alone:
ClickHouse writes it itself (FORMAT Parquet)."""


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
    parser = add_subcommand(commands, "export", "write the log for other systems", _EXPORT_EPILOG)
    add_whole_log(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: stdout; not for parquet)")
    parser.set_defaults(log_run=export, extra=Extra.REVIEW)


def query(args: argparse.Namespace) -> Exit:
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


def export(args: argparse.Namespace) -> Exit:
    """Write the records that the filters accept, in the chosen format."""
    output: Path | None = args.output
    wanted = wanted_of(args)
    if args.format == "parquet" and output is None:
        raise CommandError("parquet can't be written to stdout: name a file with -o", Exit.USAGE)
    if args.clickhouse is not None and args.format == "parquet":
        raise CommandError("parquet is made of files: give FILE, or another format", Exit.USAGE)
    files = source_files(args)
    if output is not None and any(output.exists() and output.samefile(path) for path in files):
        raise CommandError(f"{output} is the log itself", Exit.USAGE)
    if args.format == "parquet" and output is not None:
        with becoming(output) as target, open_database(files, wanted, also_write=[target]) as parquet:
            parquet.ask(
                f"COPY (SELECT {EVERY_COLUMN} FROM events) TO {literal(str(target))} "  # noqa: S608  (quoted)
                "(FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)"
            )
            tell_of_lost(parquet)
        return Exit.DONE
    with open_log(args, files, wanted) as database:
        answer = database.answer(listing(wide=True, limit=None))
        if output is None:
            write_csv(answer, sys.stdout)
        else:
            with (
                becoming(output) as target,
                target.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream,
            ):
                write_csv(answer, stream)
        tell_of_lost(database)
    return Exit.DONE
