"""Rows of text: on a terminal as a table if it fits, else as lines of name and value; aligned, for pipes and files."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Final
from unicodedata import combining, east_asian_width

from tokgate.cli.terminal import print_lines, styled, visible

_READABLE: Final = 12
"""Minimum width of a wrapped cell, in characters."""
_GAP: Final = 2
"""Spaces between columns."""
_PIPE: Final = 400
"""Characters of a line in a pipe or a file: what is not cut there."""
_HEADING: Final = "1"
_LABEL: Final = "2"


def show_rows(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    whole: Sequence[bool],
    *,
    right: Sequence[bool] = (),
    readable: int = _READABLE,
) -> None:
    """Print rows of text on stdout.

    `whole`: columns that are not wrapped; others may be, at `readable` characters. `right`: those aligned to the right.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE
    headings = [visible(name) for name in names]
    wanted = [max(map(_width, cells)) for cells in zip(headings, *rows, strict=True)]
    least = [each if is_whole else min(each, readable) for each, is_whole in zip(wanted, whole, strict=True)]
    spare = width - sum(least) - _GAP * len(least)
    lines = _one_by_one(headings, rows) if spare < 0 else _table(headings, rows, _shared(wanted, least, spare), right)
    print_lines(lines)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of text with columns padded with spaces, for pipes and files: one line per row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shared(wanted: Sequence[int], least: Sequence[int], spare: int) -> list[int]:
    """The widths of columns: what is spare goes to those that are to be wrapped, in equal shares as far as wanted."""
    widths = list(least)
    waiting = sorted(range(len(widths)), key=lambda column: wanted[column] - least[column])
    for number, column in enumerate(waiting):
        share = min(wanted[column] - least[column], spare // (len(waiting) - number))
        widths[column] += share
        spare -= share
    return widths


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool]
) -> Iterator[str]:
    yield from (styled(line, _HEADING) for line in _lines(headings, widths, right))
    yield " " + "─" * (sum(widths) + _GAP * (len(widths) - 1))
    for row in rows:
        yield from _lines(row, widths, right)


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> Iterator[str]:
    """A row, in as many lines as its longest cell takes."""
    cells = [_wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
    for number in range(max(map(len, cells))):
        parts = []
        for cell, width, is_right in zip(cells, widths, right or [False] * len(widths), strict=True):
            part = cell[number] if number < len(cell) else ""
            blank = " " * (width - _width(part))
            parts.append(blank + part if is_right else part + blank)
        yield f" {(' ' * _GAP).join(parts)}".rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    if _width(text) <= width:
        return [text]
    return wrap(text, width if _width(text) == len(text) else max(1, width // 2))  # half as many where some are wide


def _width(text: str) -> int:
    """Columns that text takes on a terminal (UAX 11: wide characters take two)."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 1 + (east_asian_width(each) in "WF") for each in text)


def _one_by_one(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Each row as lines of name and value, without empty values."""
    widest = max(map(len, headings))
    for number, row in enumerate(rows):
        if number:
            yield ""
        yield from (
            f"{styled(f'{name:<{widest}}', _LABEL)}  {cell}" for name, cell in zip(headings, row, strict=True) if cell
        )
