"""Output for people: colours, messages on stderr, escaped text, and progress; and who they are."""

import getpass
import json
import os
import shutil
import sys
from collections.abc import Iterable
from time import monotonic
from typing import Final, Self, TextIO

from tokgate.policy.values.text import escaped


def wants_color(stream: TextIO) -> bool:
    """Whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """Text in a style of SGR (ECMA-48 §8.3.117), such as `1;31` for bold red, where stdout takes colours."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and wants_color(sys.stdout) else text


def narrate(text: str) -> None:
    """Print a message on stderr; never data."""
    sys.stderr.write(f"{text}\n")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of data on stdout."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def print_json(document: object, *, indent: int | None = None, ascii_only: bool = True) -> None:
    """Print one JSON object on stdout, for programs."""
    sys.stdout.write(json.dumps(document, indent=indent, ensure_ascii=ascii_only) + "\n")


def visible(text: str) -> str:
    """Text from outside, with control and invisible characters escaped."""
    return escaped(text) or '""'


class Patience:
    """A callback for (done, total) that shows progress on stderr, a terminal, if the work takes long.

    It stands in one line, which is written again, and erased at the end.
    """

    _SECONDS: Final = 0.5
    """Before which nothing is shown."""
    _AGAIN: Final = 0.1
    """Seconds between two displays."""

    def __init__(self, what: str, *, size: bool = False) -> None:
        """`what` names the work in a word or two; with `size` the counts are bytes."""
        self._what: Final = what
        self._size: Final = size
        self._started: Final = monotonic()
        self._next: float = self._started + self._SECONDS
        self._visible = False

    def __call__(self, done: int, total: int | None) -> None:
        """Show how much is done, of how much where that is known."""
        now = monotonic()
        if now < self._next or not sys.stderr.isatty():
            return
        self._next, self._visible = now + self._AGAIN, True
        counts = self._count(done) if total is None else f"{self._count(done)} of {self._count(total)}"
        line = f"{self._what}: {counts}, {now - self._started:.0f} s"
        sys.stderr.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
        sys.stderr.flush()

    def _count(self, number: int) -> str:
        return f"{number / 1e6:,.1f} MB" if self._size else f"{number:,}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Erase the line before other output."""
        if self._visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._visible = False


def you() -> str:
    """The name of the user; behind `sudo`, of the user who called it."""
    try:
        return os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry anywhere
        return f"uid {os.getuid()}"
