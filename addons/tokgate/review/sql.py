"""Names and texts in SQL, and what an answer is. Nothing here needs DuckDB, which takes a while to import."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

type Progress = Callable[[int, int], None]
"""Told (done, total), in any unit."""
type Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows as they come; nothing is read before they are asked for."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Iterator[Row]


def literal(text: str) -> str:
    """Text as an SQL literal, for the few places that take no parameter; only names of files come here."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return f'"{name}"'
