"""`tokgate`: finds the command, runs it, and maps errors to exit codes.

Only the module of the command is imported, so that `tokgate explain` starts without mitmproxy.
"""

import argparse
import io
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import groupby
from textwrap import wrap
from typing import Any, Final, NoReturn

from tokgate.cli.commands import COMMANDS, MODULES, CommandError, Exit, need

DESCRIPTION: Final = """\
Keep named services off your networks for a stated time and reason, and show that you did.
Everything else passes undecrypted."""

EPILOG: Final = """\
examples:
  tokgate init                                      a first policy, in ./policies
  tokgate check                                     errors, warnings and tests of ./policies
  tokgate explain --client 192.0.2.7 --host www.example.org
                                                    what would happen now, and every step that led to it
  tokgate run                                       explicit proxy on 127.0.0.1:8080
  tokgate gateway up                                make a Linux gateway send its clients through the proxy

exit codes:
  0 done, nothing found   1 findings (policy errors, failed tests)   2 usage   3 internal error or environment

`tokgate help COMMAND` has examples for each command. TOKGATE_DEBUG=1 or --debug shows full traces."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help whose sentences and examples fit the terminal. Indented lines stay lines; other text is wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        said: list[str] = []
        for indented, lines in groupby(text.splitlines(), lambda line: not line or line.startswith(" ")):
            if indented:
                said += [part for line in lines for part in _fitted(line, width)]
            else:
                said += wrap(" ".join(lines), width)
        return "\n".join(f"{indent}{line}" for line in said)


_GAP: Final = re.compile(r"(?<=\S) {2,}(?=\S)")
"""Between an example and what it does."""


def _fitted(line: str, width: int) -> list[str]:
    """An indented line; one that is too long in several: what an example does stands below it."""
    if len(line) <= width:
        return [line]
    indent, below = " " * min(len(line) - len(line.lstrip()), 6), " " * 6
    example, *does = _GAP.split(line.strip(), maxsplit=1)
    first = wrap(example, width - 2, initial_indent=indent, subsequent_indent=below, break_long_words=False)
    if example.startswith("tokgate "):  # which a shell takes as it stands
        first = [*(f"{part} \\" for part in first[:-1]), first[-1]]
    return first + [part for text in does for part in wrap(text, width, initial_indent=below, subsequent_indent=below)]


class CommandParser(argparse.ArgumentParser):
    """A parser that keeps the format of examples in help, accepts no abbreviations, and has `--debug`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As argparse's parser, with these defaults in place of its own."""
        kwargs.setdefault("formatter_class", _Help)
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("conflict_handler", "resolve")
        super().__init__(*args, **kwargs)
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="full trace of an error")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but an unknown argument is an error of the command, shown with its usage."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """As argparse's, with control characters escaped."""
        super().error(_readable(message))

    def print_help(self, file: Any = None) -> None:
        """As argparse's, but a failure to write is an error."""
        (file or sys.stdout).write(self.format_help())


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from tokgate.blocklog.records.record import installed_version

        sys.stdout.write(f"tokgate {installed_version() or '(source folder, not installed)'}\n")
        parser.exit()


def build_parser(commands: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The parser with these commands; without any, only with their names and help, since imports are slow."""
    parser = CommandParser(prog="tokgate", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True, parser_class=CommandParser
    )
    for command in commands:
        module, _, function = MODULES[command].partition(":")
        getattr(import_module(f"tokgate.cli.{module}"), function or "add_parser")(subparsers)
    if not subparsers.choices:
        for command, summary in COMMANDS.items():
            subparsers.add_parser(command, help=summary)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never raises, except what ends the interpreter anyway."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in arguments or bool(os.environ.get("TOKGATE_DEBUG"))
    _stand_in_for_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding lacks
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return Exit.READER_GONE
    except Exception as error:
        code = _failed(error, debug)
        try:
            sys.stdout.flush()
        except (OSError, ValueError):  # exit code 120 otherwise, from Python 3.14 on
            _abandon_stdout()
        return code


def _run(arguments: list[str]) -> int:
    # The program's own options take no values: the first word that is no option is the command.
    asked = next((word for word in arguments if not word.startswith("-")), None)
    if asked == "help":
        at = arguments.index("help")  # `tokgate help log tail` means `tokgate log tail --help`
        return _run([*arguments[:at], *arguments[at + 1 :], "--help"])
    try:
        parser = build_parser((asked,) if asked is not None and asked in COMMANDS else ())
        if asked is not None and asked not in COMMANDS:
            from tokgate.config.diagnostics import did_you_mean  # only then

            parser.error(f"unknown command {asked!r}{did_you_mean(asked, (*COMMANDS, 'help'))}")
        options = parser.parse_args(arguments)
        if "extra" in options:  # of a command that can do nothing without it
            need(options.extra)
        code = int(options.run(options))
    except SystemExit as leaving:  # argparse: 0 after help, 2 after a usage error
        code = leaving.code if isinstance(leaving.code, int) else Exit.DONE if leaving.code is None else Exit.FAILURE
    sys.stdout.flush()  # here, so that a full disk or a reader that went away is seen while it can be told
    return code


def _failed(error: Exception, debug: bool) -> int:
    """Print an error as one line, or with its traceback."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, CommandError):
        sys.stderr.write(f"tokgate: {_readable(str(error))}\n")
        return error.code
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"tokgate: {_readable(f'{where}{error.strerror or error}')}\n")
        return Exit.FAILURE
    hint = "" if debug else "\nThis is a defect: run again with --debug and report the trace."
    sys.stderr.write(f"tokgate: internal error: {type(error).__name__}: {_readable(str(error))}{hint}\n")
    return Exit.FAILURE


def _readable(text: str) -> str:
    """Text with what is invisible in it escaped, by a module that takes a while to import."""
    from tokgate.policy.values.text import readable_lines

    return readable_lines(text)


def _stand_in_for_closed_streams() -> None:
    """Open /dev/null for a closed stdout or stderr, so that no other file gets its descriptor."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def _abandon_stdout() -> None:
    """Point stdout at /dev/null: the interpreter flushes it again at exit and would report the error."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
