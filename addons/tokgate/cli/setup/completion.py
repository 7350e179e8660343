"""`tokgate completion`: a script with which a shell completes commands, options, words and files."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tokgate.cli.commands import COMMANDS, Exit, Subparsers, add_command
from tokgate.cli.main import build_parser

SHELLS: Final = ("bash", "zsh", "fish")
EPILOG: Final = """\
examples:
  tokgate completion bash > ~/.local/share/bash-completion/completions/tokgate
  tokgate completion zsh > ~/.zfunc/_tokgate           with `fpath+=(~/.zfunc)` before compinit in ~/.zshrc
  tokgate completion fish > ~/.config/fish/completions/tokgate.fish

The script runs nothing: after an upgrade write it again. The manual page is in share/man of the installation:
man $(dirname $(which tokgate))/../share/man/man1/tokgate.1"""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "completion", EPILOG)
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import shtab

    sys.stdout.write(shtab.complete(whole_parser(), shell=options.shell))
    return Exit.DONE


def whole_parser() -> argparse.ArgumentParser:
    """The parser of all commands, which knows where files are named. deploy/man is made from it as well."""
    import shtab

    parser = build_parser(COMMANDS)
    for each in _parsers(parser):
        for action in each._actions:  # noqa: SLF001  (argparse has no other way to them)
            if isinstance(action.choices, Mapping) and not isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
                action.choices = tuple(action.choices)  # a mapping is taken for commands
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for each in dict.fromkeys(action.choices.values()):
                yield from _parsers(each)
