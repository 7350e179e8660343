"""Records who looked into the log with a command, when, at what and why, in a file beside the log."""

import argparse
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.paths import access_path_for, every_file
from tokgate.blocklog.records.record import this_observer
from tokgate.cli.commands import CommandError
from tokgate.cli.configuration import default_log
from tokgate.cli.terminal import narrate
from tokgate.webui.audit_log import AuditLog, NotRecorded

_SAID: Final = (
    *("pseudonyms", "event", "sql", "since", "until", "client", "user", "name", "ban", "network"),
    *("verdict", "action", "format", "output", "clickhouse"),
)
"""The arguments that say what was looked at."""


def add_purpose(parser: argparse.ArgumentParser, *, needed: bool = False) -> None:
    """Add the options that say why somebody looks; with `needed`, `--why` has to be given."""
    looks = parser.add_argument_group("who looks, and why")
    add_reason(looks, needed=needed)
    said = "where that is kept (default: block.access.ndjson beside the log)"
    looks.add_argument("--access-log", type=Path, metavar="FILE", help=said)


def add_reason(looks: "argparse._ArgumentGroup", *, needed: bool = False) -> None:
    """Add `--why` and `--ticket`, which are kept with each look."""
    looks.add_argument("--why", required=needed, metavar="TEXT", help="the purpose; kept with who, when and what")
    looks.add_argument("--ticket", metavar="ID", help="the ticket of the request")


def purpose_of(args: argparse.Namespace) -> dict[str, str]:
    """What was given of `--why` and `--ticket`."""
    return {key: value for key in ("why", "ticket") if (value := getattr(args, key)) is not None}


def record_look(args: argparse.Namespace, command: str, *, needed: bool = False) -> None:
    """Record a look before anything is shown. Raises CommandError if `needed` and it can't be; else stderr says so."""
    logs = [args.log] if isinstance(args.log, Path) else args.log or [default_log()]
    there = [each for each in logs if each.exists() or every_file(each)]
    if not (needed or there or getattr(args, "follow", False) or getattr(args, "clickhouse", None)):
        return  # nothing to look at, which the command will say: a mistyped name makes no file
    path = args.access_log or access_path_for((there or logs)[0])
    given = {key: value for key in _SAID if (value := getattr(args, key, None)) is not None}
    said = {key: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for key, value in given.items()}
    try:
        AuditLog(this_observer(), Instant.now, lambda _: None, path, purpose_of(args)).record(
            user_name(), "local", command, said
        )
    except (NotRecorded, OSError) as error:
        why = f"this look can't be recorded in {path}: {error.__cause__ or error}"
        if needed:
            raise CommandError(why) from error
        narrate(f"tokgate: {why}")


def user_name() -> str:
    """The user who runs the command, and whom sudo says that this is for."""
    name = str(os.getuid())
    with suppress(KeyError):
        name = pwd.getpwuid(os.getuid()).pw_name
    by = os.environ.get("SUDO_USER")
    return f"{by} as {name}" if by else name
