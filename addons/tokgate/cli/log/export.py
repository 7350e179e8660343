"""`tokgate log export`: the log in the formats of other systems."""

import argparse
import sys
from pathlib import Path
from typing import Final

from tokgate.analytics.columns import EVERY_COLUMN, listing
from tokgate.analytics.formats import write_csv
from tokgate.analytics.sql import literal
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand
from tokgate.cli.log.source import add_whole_log, open_database, open_log, source_files, tell_of_lost, wanted_of
from tokgate.cli.output_file import becoming
from tokgate.config.extras import Extra

FORMATS: Final = ("csv", "parquet")

_EPILOG: Final = """\
examples:
  tokgate log export --format csv -o march.csv --since 2023-03-01 --until 2023-04-01
  tokgate log export --format parquet -o march.parquet
  tokgate log export --format csv --ban belgium-federal-2023 | gzip > march.csv.gz

Both have the columns of docs/log-queries.md. A file is complete or isn't there. Parquet is made of files alone:
ClickHouse writes it itself (FORMAT Parquet)."""


def add_parsers(commands: Subparsers) -> None:
    parser = add_subcommand(commands, "export", "write the log for other systems", _EPILOG)
    add_whole_log(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to (default: stdout; not for parquet)")
    parser.set_defaults(log_run=export, extra=Extra.REVIEW)


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
