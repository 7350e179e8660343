"""Where every command finds policies, log and tokgate's own folder, unless an option says otherwise.

The environment says so, else one file with lines as systemd's EnvironmentFile= has them: /etc/tokgate/tokgate.conf, or
that which TOKGATE_CONF names.
"""

import argparse
import os
import shlex
from pathlib import Path
from typing import Final

from tokgate.cli.commands import CommandError, Exit

FILE: Final = Path("/etc/tokgate/tokgate.conf")
POLICIES: Final = "TOKGATE_POLICIES"
LOG: Final = "TOKGATE_LOG"
CONFDIR: Final = "TOKGATE_CONFDIR"
_OTHERS: Final = ("TOKGATE_OPTIONS", "TOKGATE_CLICKHOUSE_PASSWORD", "TOKGATE_DEBUG")
"""What the file may hold besides: for a service's command line, and for the environment of commands."""


def default_policies() -> Path:
    """The folder of policies: ./policies where nothing says otherwise. Raises CommandError, OSError."""
    return _path(POLICIES) or Path("policies")


def default_log() -> Path:
    """The block log: ./block.ndjson where nothing says otherwise. Raises CommandError, OSError."""
    from tokgate.blocklog.paths import DEFAULT_LOG

    return _path(LOG) or DEFAULT_LOG


def default_confdir() -> Path | None:
    """tokgate's own folder, as the environment or the file says; None without a word. Raises CommandError, OSError."""
    return _path(CONFDIR)


def add_confdir_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--confdir`; None where neither it nor the configuration says anything."""
    default = default_confdir()
    said = f"{what} (default: {default or '~/.tokgate'})"
    parser.add_argument("--confdir", metavar="DIR", type=Path, default=default, help=said)


def _path(name: str) -> Path | None:
    text = os.environ.get(name) or _stated().get(name)
    return Path(text) if text else None


def _stated() -> dict[str, str]:
    """What the file says; nothing where there is none."""
    path = Path(os.environ.get("TOKGATE_CONF") or FILE)
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8", Exit.USAGE) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise CommandError(f"{path}:{number}: {error}", Exit.USAGE) from None
        if not words:
            continue
        name, equals, value = words[0].partition("=")
        if len(words) > 1 or not equals:
            raise CommandError(f"{path}:{number}: a line is NAME=VALUE, with quotes around spaces", Exit.USAGE)
        if name.startswith("TOKGATE_") and name not in (POLICIES, LOG, CONFDIR, *_OTHERS):
            from tokgate.config.diagnostics import did_you_mean  # only then

            hint = did_you_mean(name, (POLICIES, LOG, CONFDIR, *_OTHERS))
            raise CommandError(f"{path}:{number}: unknown name {name}{hint}", Exit.USAGE)
        if name in (POLICIES, LOG, CONFDIR) and value and not value.startswith("/"):
            raise CommandError(f"{path}:{number}: {name} is a whole path: /…", Exit.USAGE)
        found[name] = value
    return found
