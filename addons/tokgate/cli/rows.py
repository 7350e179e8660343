"""Whether rows can be read as a table on a terminal, and if they can't: each as lines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tokgate.cli.terminal import shown

if TYPE_CHECKING:
    from rich.console import Console

_READABLE: Final = 12
"""Characters of a cell that a line must have room for."""


def fit(
    width: int,
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    whole: Sequence[bool],
    *,
    readable: int = _READABLE,
) -> bool:
    """Whether a table is narrow enough: cells may be folded to `readable` characters, except in `whole` columns."""
    columns = zip(zip(names, *rows, strict=True), whole, strict=True)
    needed = sum(
        2 + max(len(cell) if is_whole else min(len(cell), readable) for cell in cells) for cells, is_whole in columns
    )
    return needed <= width


def show_one_by_one(console: "Console", names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Each row as lines of name and value, without what is empty."""
    from rich.text import Text

    widest = max(map(len, names))
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, cell in zip(names, row, strict=True):
            if cell:
                console.print(Text.assemble((f"{shown(name):<{widest}}  ", "dim"), cell), soft_wrap=True)
