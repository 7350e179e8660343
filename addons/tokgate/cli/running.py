"""Asking the tokgate that runs, found by the folder of its keys."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokgate.cli.exits import CommandError, Exit
from tokgate.proxy.control import Request, ask
from tokgate.proxy.keys import DEFAULT_CONFDIR


def add_confdir_option(parser: argparse.ArgumentParser) -> None:
    """`--confdir`, as of `tokgate run`."""
    parser.add_argument("--confdir", metavar="DIR", type=Path, help="as given to `tokgate run` (default: ~/.tokgate)")


def ask_running(
    confdir: Path | None, request: Request, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """What the running tokgate answers; ends the command with exit code 3 where none does."""
    folder = (confdir or DEFAULT_CONFDIR).expanduser()
    try:
        answer = ask(folder, request, progress)
    except (OSError, ValueError) as error:
        raise CommandError(f"the tokgate of {folder} does not answer: {error}", Exit.FAILURE) from error
    if answer is None:
        raise CommandError(f"no tokgate runs with --confdir {folder}", Exit.FAILURE)
    return answer
