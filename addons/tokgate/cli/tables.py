"""Rows of text: as a table if it fits the terminal, else as lines of name and value; aligned, for pipes and files."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Final
from unicodedata import combining, east_asian_width

from tokgate.cli.terminal import print_lines, styled, visible

_PIPE: Final = 400
"""Characters of a line in a pipe or a file: what is not cut there."""
_HEADING: Final = "1"
_LABEL: Final = "2"


def show_rows(names: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] = ()) -> None:
    """Print rows of text on stdout. `right`: columns aligned to the right."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE
    headings = [visible(name) for name in names]
    widths = [max(map(_width, cells)) for cells in zip(headings, *rows, strict=True)]
    if sum(widths) + 2 * len(widths) - 1 > width:
        print_lines(_one_by_one(headings, rows))
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
        blank = " " * (width - _width(str(cell)))
        parts.append(f"{blank}{cell}" if is_right else f"{cell}{blank}")
    return f" {'  '.join(parts)}".rstrip()


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
