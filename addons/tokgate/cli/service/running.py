"""Requests to the running tokgate, which is found by its folder."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tokgate.cli.exits import CommandError, Exit
from tokgate.runtime.control_socket import NAME, Call, ControlRequest, ask
from tokgate.service.privileges import confdir_of_running

_MITMPROXY: Final = Path("~/.mitmproxy")
"""The folder of mitmproxy, and so of the addon in a plain mitmproxy, unless it is told another."""


def add_confdir_option(parser: argparse.ArgumentParser) -> None:
    """Add `--confdir`, the folder in which the running tokgate's socket is."""
    parser.add_argument("--confdir", metavar="DIR", type=Path, help="as given to `tokgate run` (default: ~/.tokgate)")


def ask_running(
    confdir: Path | None, request: ControlRequest | Call, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """The answer of the running tokgate. If none answers, the command ends with exit code 3."""
    folder = confdir_of_running(NAME) if confdir is None else confdir.expanduser()
    try:
        answer = ask(folder, request, progress)
    except (OSError, ValueError) as error:
        raise CommandError(f"the tokgate of {folder} does not answer: {error}", Exit.FAILURE) from error
    if answer is None:
        beside = confdir is None and (_MITMPROXY.expanduser() / NAME).exists()
        hint = f"; the addon in mitmproxy has --confdir {_MITMPROXY}" if beside else ""
        raise CommandError(f"no tokgate runs with --confdir {folder}{hint}", Exit.FAILURE)
    return answer
