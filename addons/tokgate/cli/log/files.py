"""The files that a command of `tokgate log` reads: FILE…, or `--log FILE…`."""

import argparse
from pathlib import Path
from typing import Any

from tokgate.blocklog.paths import DEFAULT_LOG


class _Extend(argparse.Action):
    """Collects files of the option and of the arguments in one list; argparse lets each replace the other's."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest, None) or []), *values])


def add_files(parser: argparse.ArgumentParser, said: str = "files to read, .gz and .zst too") -> None:
    """Add FILE… and `--log`, which mean the same: `log` is a list of them, empty or None without any."""
    said += f" (default: ./{DEFAULT_LOG})"
    parser.add_argument("log", nargs="*", action=_Extend, type=Path, metavar="FILE", help=said)
    parser.add_argument("--log", nargs="+", action=_Extend, type=Path, metavar="FILE", help="the same, as an option")


def add_one_file(parser: argparse.ArgumentParser) -> None:
    """Add `--log` for a command that is about one log: `log` is its path."""
    parser.add_argument("--log", type=Path, default=DEFAULT_LOG, metavar="FILE", help=f"default: {DEFAULT_LOG}")


def add_log_option(parser: argparse.ArgumentParser, said: str) -> None:
    """Add `--log FILE…` alone, where the arguments are something else: `log` is a list of files, or None."""
    parser.add_argument("--log", nargs="+", action="extend", type=Path, metavar="FILE", help=said)


def add_no_rotated(parser: argparse.ArgumentParser) -> None:
    """Add `--no-rotated`, for commands that otherwise read the files rotated away from those named as well."""
    parser.add_argument("--no-rotated", action="store_true", help="only the files named, not those rotated from them")
