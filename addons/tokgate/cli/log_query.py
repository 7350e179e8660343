"""`tokgate log query`: records that match filters, or the answer to an SQL question over the view `events`."""

import argparse
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.blocklog.reader import Filter
from tokgate.cli.exits import Exit
from tokgate.cli.log_output import console_on_stdout
from tokgate.cli.log_review import files_of, review_of, tell_of_lost
from tokgate.cli.rows import show_rows
from tokgate.cli.terminal import Patience, narrate, shown
from tokgate.review.query import listing
from tokgate.review.sql import Answer
from tokgate.review.tabular import json_lines, plain, write_csv

if TYPE_CHECKING:
    pass

ROWS_SHOWN: Final = 100
"""Rows of a table, unless --limit says otherwise; JSON and CSV have all."""

_EPILOG: Final = """\
examples:
  tokgate log query --client 10.32.1.7 --since 2023-03-10
  tokgate log query --sql "SELECT client, sum(events) AS n FROM events GROUP BY 1 ORDER BY n DESC LIMIT 10"
  tokgate log query --name tiktok.com --csv > tiktok.csv
  tokgate log query --json --sql "SELECT date_trunc('day', time) AS day, sum(events) AS n FROM events GROUP BY 1"

SQL is DuckDB's (https://duckdb.org/docs/sql/introduction), one SELECT; it sees the view `events` and nothing else: no
other file, no network. The filters narrow what the view holds. docs/log-queries.md has its columns. Times are UTC."""

type AddSource = Callable[[argparse.ArgumentParser], object]
type WantedOf = Callable[[argparse.Namespace], Filter]


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add_source: AddSource, wanted_of: WantedOf
) -> None:
    """Add `query`."""
    parser = commands.add_parser(
        "query", help="records, or SQL over them", description="Ask the log a question.", epilog=_EPILOG
    )
    add_source(parser)
    parser.add_argument("--no-rotated", action="store_true", help="only the files named, not those rotated from them")
    parser.add_argument("--sql", metavar="SELECT", help="one SELECT over the view `events`")
    parser.add_argument(
        "--limit", type=_limit, metavar="N", help=f"most rows; 0 for all (default: {ROWS_SHOWN} in a table, else all)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a row, with every column")
    form.add_argument("--csv", action="store_true", help="CSV with a header and every column")
    parser.set_defaults(log_run=lambda args: query(args, wanted_of(args)))


def query(args: argparse.Namespace, wanted: Filter) -> Exit:
    """Ask and print."""
    as_table = not (args.json or args.csv)
    limit = (ROWS_SHOWN if as_table else None) if args.limit is None else args.limit or None
    files = files_of(args.log or [Path(DEFAULT_LOG)], rotated=not args.no_rotated)
    with review_of(files, wanted) as review, Patience("reading") as patience:
        if args.sql is not None:
            answer = review.answer_query(args.sql, progress=patience)
        else:  # one more than is shown, to know whether there are more
            wide = not as_table
            answer = review.answer(listing(wide=wide, limit=limit and limit + 1), progress=patience)
        patience.close()
        _print(answer, limit, as_json=args.json, as_csv=args.csv)
        tell_of_lost(review)
    return Exit.DONE


def _print(answer: Answer, limit: int | None, *, as_json: bool, as_csv: bool) -> None:
    rows = Answer(answer.columns, answer.types, answer.rows if limit is None else islice(answer.rows, limit))
    if as_json:
        sys.stdout.writelines(json_lines(rows))
    elif as_csv:
        write_csv(rows, sys.stdout)
    else:
        _show(rows)
    if limit is not None and next(answer.rows, None) is not None:
        narrate(f"tokgate: the first {limit} rows; --limit N for more, --limit 0 for all")


def _show(answer: Answer) -> None:
    cells = [[_cell(value) for value in row] for row in answer.rows]
    numbers = [_is_number(kind) for kind in answer.types]
    whole = [kind.startswith("TIMESTAMP") or is_number for kind, is_number in zip(answer.types, numbers, strict=True)]
    show_rows(console_on_stdout(), answer.columns, cells, whole, right=numbers)


def _is_number(kind: str) -> bool:
    return kind in ("BIGINT", "INTEGER", "HUGEINT", "DOUBLE", "NUMBER") or kind.startswith("DECIMAL")


def _cell(value: object) -> str:
    value = plain(value)
    return "" if value is None else shown(str(value))


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows")
    return int(text)
