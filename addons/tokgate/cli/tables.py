"""Prints rows on a terminal: as a table if it fits, else as lines of name and value."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from tokgate.cli.terminal import shown

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod, OverflowMethod

_READABLE: Final = 12
"""Minimum width of a wrapped cell, in characters."""


def show_rows(
    console: "Console",
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    whole: Sequence[bool],
    *,
    right: Sequence[bool] = (),
    readable: int = _READABLE,
    overflow: "OverflowMethod" = "fold",
) -> None:
    """Print rows of text. `whole`: columns that are not wrapped; `right`: columns aligned to the right, if any.

    `readable` as for `_fit`; `overflow`: what happens to words that are too long for a column that is wrapped.
    """
    if not _fit(console.width, names, rows, whole, readable=readable):
        _show_one_by_one(console, names, rows)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name, is_whole, is_right in zip(names, whole, right or [False] * len(names), strict=True):
        justify: JustifyMethod = "right" if is_right else "left"
        grid.add_column(Text(shown(name)), justify=justify, no_wrap=is_whole, overflow=overflow)
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(grid)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of text with columns padded with spaces, for pipes and files: one line per row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _fit(
    width: int,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    whole: Sequence[bool],
    *,
    readable: int,
) -> bool:
    """Whether a table fits: cells may be wrapped at `readable` characters, except in `whole` columns."""
    columns = zip(zip(names, *rows, strict=True), whole, strict=True)
    needed = sum(
        2 + max(len(cell) if is_whole else min(len(cell), readable) for cell in cells) for cells, is_whole in columns
    )
    return needed <= width


def _show_one_by_one(console: "Console", names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as lines of name and value, without empty values."""
    from rich.text import Text

    widest = max(map(len, names))
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, cell in zip(names, row, strict=True):
            if cell:
                console.print(Text.assemble((f"{shown(name):<{widest}}  ", "dim"), cell), soft_wrap=True)
