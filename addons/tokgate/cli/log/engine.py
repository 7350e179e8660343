"""Opens a whole log for the commands that query it, and turns its errors into command errors."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokgate.analytics.clickhouse.address import ServerAddress
from tokgate.analytics.sources import LogError, whole_log
from tokgate.analytics.sql import Engine
from tokgate.blocklog.paths import DEFAULT_LOG
from tokgate.blocklog.read.reader import Filter
from tokgate.cli.exits import CommandError, Exit, need
from tokgate.cli.log.output import MAX_JUNK_SHOWN, require, tell_of
from tokgate.cli.terminal import Patience
from tokgate.config.extras import Extra

if TYPE_CHECKING:
    from tokgate.analytics.engine import LogDatabase


PASSWORD: Final = "TOKGATE_CLICKHOUSE_PASSWORD"  # noqa: S105  (a variable's name)
"""The environment's variable with a server's password."""


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options for a log in ClickHouse."""
    server = parser.add_argument_group("a fleet's log in ClickHouse, instead of files")
    server.add_argument(
        "--clickhouse", metavar="URL", help="https://USER@HOST[:PORT][/DATABASE], with the tables of deploy/siem"
    )
    server.add_argument(
        "--clickhouse-password", type=Path, metavar="FILE", help=f"the password's file (default: ${PASSWORD}, or none)"
    )


def server_of(args: argparse.Namespace) -> ServerAddress | None:
    """The server that holds the log; None where files do. Raises CommandError."""
    if args.clickhouse is None:
        return None
    if args.log:
        raise CommandError("a log is in files or in ClickHouse: give FILE or --clickhouse", Exit.USAGE)
    need(Extra.CLICKHOUSE)
    try:
        given: Path | None = args.clickhouse_password
        password = os.environ.get(PASSWORD, "") if given is None else given.read_text("utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the password can't be read: {error}") from error
    try:
        return ServerAddress.parse(args.clickhouse, password)
    except ValueError as error:
        raise CommandError(f"--clickhouse: {error}", Exit.USAGE) from error


def files_of(named: list[Path], *, rotated: bool) -> list[Path]:
    """The files to read, oldest first. Raises CommandError if there are none."""
    files = whole_log(named, rotated=rotated)
    missing = [path for path in named if not path.exists() and not (rotated and set(files) - set(named))]
    require(missing)
    return [path for path in files if path.exists()]


@contextmanager
def open_database(
    files: Sequence[Path], wanted: Filter | None = None, *, also_write: Sequence[Path] = ()
) -> Iterator["LogDatabase"]:
    """A context with the log opened for queries. Errors of the log or a query end the command with exit code 3."""
    from tokgate.analytics.engine import LogDatabase  # brings DuckDB, which `tail` and `verify` need not wait for

    with told_as_command_errors(), LogDatabase(files, wanted, also_write=also_write) as database:
        yield database


@contextmanager
def open_log(args: argparse.Namespace, files: Sequence[Path], wanted: Filter | None = None) -> Iterator[Engine]:
    """A context with the log of `files`, or of the server that `--clickhouse` names, opened for queries."""
    address = server_of(args)
    if address is None:
        with open_database(files, wanted) as database:
            yield database
        return
    from tokgate.analytics.clickhouse.log import ClickHouseLog  # of an extra

    with told_as_command_errors(), ClickHouseLog(address, wanted) as log:
        yield log


def source_files(args: argparse.Namespace) -> list[Path]:
    """The files to read, oldest first; none where a server holds the log. Raises CommandError."""
    if server_of(args) is not None:
        return []
    return files_of(args.log or [Path(DEFAULT_LOG)], rotated=not args.no_rotated)


@contextmanager
def told_as_command_errors() -> Iterator[None]:
    """A context that turns errors of the log or a query into CommandError."""
    try:
        yield
    except LogError as error:
        raise CommandError(str(error), Exit.FAILURE) from error


def tell_of_lost(database: Engine) -> None:
    """Warn of lines that could not be read. Call it after the query, which counts them."""
    with Patience("counting unreadable lines") as patience:
        lost = database.unreadable_counts(progress=patience)
    tell_of((*database.damage, *database.unreadable(lost, MAX_JUNK_SHOWN)), sum(lost.values()) + len(database.damage))
