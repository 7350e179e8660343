"""Which log a command reads: its files or its server, the filters, and what could not be read of it."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tokgate.analytics.sql import Engine, LogError
from tokgate.blocklog.paths import whole_log, with_rotated
from tokgate.blocklog.read.reader import Filter, Junk, client_filter
from tokgate.blocklog.records.record import EventAction
from tokgate.cli.arguments import settle, time_argument
from tokgate.cli.commands import CommandError, Exit, need
from tokgate.cli.configuration import default_log
from tokgate.cli.log.access import add_purpose
from tokgate.cli.terminal import narrate, visible
from tokgate.config.extras import Extra
from tokgate.policy.decision import Verdict
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.prefixes import IPNetwork

if TYPE_CHECKING:
    from tokgate.analytics.clickhouse_server import ServerAddress
    from tokgate.analytics.engine import LogDatabase
PASSWORD: Final = "TOKGATE_CLICKHOUSE_PASSWORD"  # noqa: S105  (a variable's name)
"""The environment's variable with a server's password."""


class _Extend(argparse.Action):
    """Collects files of the option and of the arguments in one list; argparse lets each replace the other's."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest, None) or []), *values])


class UnreadableLineReporter:
    """Reports unreadable lines on stderr: the first few in full, then the number of the others."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, junk: Junk) -> None:
        self.count += 1
        if self.count <= MAX_JUNK_SHOWN:
            narrate(f"tokgate: {visible(str(junk))}")

    def close(self) -> None:
        if self.count > MAX_JUNK_SHOWN:
            narrate(f"tokgate: {self.count - MAX_JUNK_SHOWN} more lines could not be read")


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options for a log in ClickHouse."""
    server = parser.add_argument_group("a fleet's log in ClickHouse, instead of files")
    server.add_argument(
        "--clickhouse", metavar="URL", help="https://USER@HOST[:PORT][/DATABASE], with the tables of deploy/siem"
    )
    server.add_argument(
        "--clickhouse-password", type=Path, metavar="FILE", help=f"the password's file (default: ${PASSWORD}, or none)"
    )


def server_of(args: argparse.Namespace) -> "ServerAddress | None":
    """The server that holds the log; None where files do. Raises CommandError."""
    if args.clickhouse is None:
        return None
    if args.log:
        raise CommandError("a log is in files or in ClickHouse: give FILE or --clickhouse", Exit.USAGE)
    need(Extra.CLICKHOUSE)
    from tokgate.analytics.clickhouse_server import ServerAddress

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
        if database.foreign:
            narrate(
                "tokgate: left out are records that tokgate did not write, as the log itself tells: tokgate log verify"
            )
        yield database


@contextmanager
def open_log(args: argparse.Namespace, files: Sequence[Path], wanted: Filter | None = None) -> Iterator[Engine]:
    """A context with the log of `files`, or of the server that `--clickhouse` names, opened for queries."""
    address = server_of(args)
    if address is None:
        with open_database(files, wanted) as database:
            yield database
        return
    from tokgate.analytics.clickhouse_log import ClickHouseLog  # of an extra

    with told_as_command_errors(), ClickHouseLog(address, wanted) as log:
        yield log


def source_files(args: argparse.Namespace) -> list[Path]:
    """The files to read, oldest first; none where a server holds the log. Raises CommandError."""
    if server_of(args) is not None:
        return []
    return files_of(args.log or [default_log()], rotated=not args.no_rotated)


@contextmanager
def told_as_command_errors() -> Iterator[None]:
    """A context that turns errors of the log or a query into CommandError."""
    try:
        yield
    except LogError as error:
        raise CommandError(str(error), Exit.FAILURE) from error


def tell_of_lost(database: Engine) -> None:
    """Warn of lines that could not be read. Call it after the query, which counts them."""
    lost = database.unreadable_counts()
    tell_of((*database.damage, *database.unreadable(lost, MAX_JUNK_SHOWN)), sum(lost.values()) + len(database.damage))


def add_files(parser: argparse.ArgumentParser, said: str = "files to read, .gz and .zst too") -> None:
    """Add FILE… and `--log`, which mean the same: `log` is a list of them, empty or None without any."""
    said += f" (default: {default_log()})"
    parser.add_argument("log", nargs="*", action=_Extend, type=Path, metavar="FILE", help=said)
    parser.add_argument("--log", nargs="+", action=_Extend, type=Path, metavar="FILE", help="the same, as an option")


def add_one_file(parser: argparse.ArgumentParser) -> None:
    """Add `--log` for a command that is about one log: `log` is its path."""
    parser.add_argument("--log", type=Path, default=default_log(), metavar="FILE", help=f"default: {default_log()}")


def add_log_option(parser: argparse.ArgumentParser, said: str) -> None:
    """Add `--log FILE…` alone, where the arguments are something else: `log` is a list of files, or None."""
    parser.add_argument("--log", nargs="+", action="extend", type=Path, metavar="FILE", help=said)


def add_no_rotated(parser: argparse.ArgumentParser) -> None:
    """Add `--no-rotated`, for commands that otherwise read the files rotated away from those named as well."""
    parser.add_argument("--no-rotated", action="store_true", help="only the files named, not those rotated from them")


MAX_JUNK_SHOWN: Final = 5


def tell_of(junk: Sequence[Junk], unreadable: int) -> None:
    """Report unreadable lines on stderr: the first few with their positions, then the number of the others."""
    teller = UnreadableLineReporter()
    for line in junk:
        teller.tell(line)
    teller.count = max(teller.count, unreadable)
    teller.close()


def require(files: list[Path], *, rotated: bool = False) -> None:
    """Raise CommandError if a log does not exist."""
    for path in files:
        if not path.exists() and not (rotated and with_rotated(path) != [path]):
            raise CommandError(f"there is no log at {path}: name it with --log, or let `tokgate run` write it")


def add_whole_log(parser: argparse.ArgumentParser) -> None:
    """Add the options for a log with its rotated files, or in a server, for filters, and for who looks and why."""
    add_source(parser)
    add_server(parser)
    add_purpose(parser)
    add_no_rotated(parser)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options for files and for filters."""
    add_files(parser)
    wanted = parser.add_argument_group("filters")
    wanted.add_argument("--since", type=time_argument, metavar="TIME", help="not before; without offset it is UTC")
    wanted.add_argument("--until", type=time_argument, metavar="TIME", help="before")
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


def wanted_of(args: argparse.Namespace) -> Filter:
    """The filter that the options state. Raises CommandError."""
    since, until = (None if moment is None else settle(moment, "UTC") for moment in (args.since, args.until))
    if since is not None and until is not None and since >= until:
        raise CommandError("the period has to begin before it ends", Exit.USAGE)
    return Filter(**{each.name: getattr(args, each.name) for each in fields(Filter)} | {"since": since, "until": until})


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
