"""Output for people: colours, messages on stderr, escaped text, progress and tables; and who they are."""

import getpass
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from time import monotonic
from typing import Final, Self, TextIO

from tokgate.policy.values.text import columns, escaped


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


_PIPE: Final = 400
"""Characters of a line in a pipe or a file: what is not cut there."""
_HEADING: Final = "1"
_LABEL: Final = "2"


def show_rows(names: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> None:
    """Print rows of text on stdout. `right`: columns aligned to the right."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE
    headings = [visible(name) for name in names]
    widths = [max(map(columns, cells)) for cells in zip(headings, *rows, strict=True)]
    if sum(widths) + 2 * len(widths) - 1 > width:
        widest = max(map(len, headings))
        for number, row in enumerate(rows):  # one by one: lines of name and value, without empty values
            cells = ((name, cell) for name, cell in zip(headings, row, strict=True) if cell)
            named = [f"{styled(f'{name:<{widest}}', _LABEL)}  {cell}" for name, cell in cells]
            print_lines(["", *named] if number else named)
        return
    print_lines((styled(_line(headings, widths, right), _HEADING), " " + "─" * (sum(widths) + 2 * (len(widths) - 1))))
    print_lines(_line(row, widths, right) for row in rows)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of text with columns padded with spaces, for pipes and files: one line per row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    parts = []
    for cell, width, is_right in zip_longest(row, widths, right, fillvalue=False):
        blank = " " * (width - columns(str(cell)))
        parts.append(f"{blank}{cell}" if is_right else f"{cell}{blank}")
    return f" {'  '.join(parts)}".rstrip()
