"""Quoting in SQL, and the result of a query. Nothing here imports DuckDB, which is slow to import."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from tokgate.blocklog.read.reader import Junk

type Progress = Callable[[int, int], None]
"""Called with (done, total), in any unit."""
type Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query; `types` are DuckDB's names, `rows` are fetched as they are iterated over."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Iterator[Row]


class Engine(Protocol):
    """Runs tokgate's SQL, in DuckDB's dialect: `LogDatabase` over the files of a log, `ClickHouseLog` over a server."""

    @property
    def damage(self) -> Sequence[Junk]:
        """Files whose rest could not be decompressed."""

    def answer(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> QueryResult:
        """Run a SELECT. Raises LogError."""

    def answer_query(self, sql: str, *, progress: Progress | None = None) -> QueryResult:
        """Run a user's SELECT, in the engine's own dialect. Raises LogError."""

    def one(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> Row:
        """The only row of the result. Raises LogError."""

    def do(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> None:
        """Run a statement that returns no rows. Raises LogError."""

    def unreadable_counts(self, *, progress: Progress | None = None) -> Mapping[str, int]:
        """How many lines of each file hold no record."""

    def unreadable(self, files: Iterable[str], limit: int) -> Iterable[Junk]:
        """The first `limit` lines of files that hold no record, with their positions."""


def rfc3339(at: datetime | None) -> str:
    """An instant that DuckDB returned, which is in UTC, with microseconds as in the log; empty for None."""
    return "" if at is None else at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def literal(text: str) -> str:
    """Text as an SQL literal, for places that take no parameter. Used for file names only, never for user input."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name as an SQL identifier."""
    return f'"{name}"'
