"""Who, what, when, why: counts over the log's records about traffic, exact and in bounded memory, in one reading.

Each event is counted once in each table, so every table adds up to `events`: a record is one event, or as many as it
says it stands for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from tokgate.blocklog.document import EventAction
from tokgate.blocklog.reader import Junk
from tokgate.review.coverage import added_up
from tokgate.review.sql import Answer, Progress, Row, quoted

ABSENT: Final = "-"


class By(StrEnum):
    """The tables of a summary."""

    CLIENT = "client"
    NAME = "name"
    BAN = "ban"
    SERVICE = "service"
    NETWORK = "network"
    SIGNAL = "signal"
    REASON = "reason"
    ACTION = "action"
    VERDICT = "verdict"
    ATTEMPT = "attempt"
    """Client, name, ban and network together: one row answers who, what and why."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a key was met, and its earliest and latest instants, in whatever order they came."""

    key: tuple[str, ...]
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Table:
    """Tallies, most frequent first; `other` counts what belongs to none of them, `keys` is how many there were."""

    rows: tuple[Tally, ...]
    other: int
    keys: int

    @property
    def total(self) -> int:
        """All events."""
        return sum(row.count for row in self.rows) + self.other


@dataclass(frozen=True, slots=True)
class Summary:
    """`records` are all lines that were read, `events` what those about traffic stand for, `dropped` what gaps tell."""

    records: int
    events: int
    unreadable: int
    dropped: int
    first: str | None
    last: str | None
    tables: dict[By, Table]
    coverage: dict[str, dict[str, int]]
    """Connections and requests by network and visibility, allowed ones too; empty where no record tells."""
    junk: tuple[Junk, ...]
    """The first few lines that could not be read."""


class Engine(Protocol):
    """What answers: DuckDB over files (`Review`), or a ClickHouse that holds the tables of clickhouse.py.

    Everything asked here is in SQL that both understand.
    """

    @property
    def damage(self) -> Sequence[Junk]:
        """Files whose rest could not be unpacked."""

    def answer(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> Answer:
        """The answer to a SELECT."""

    def one(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> Row:
        """The one row of an answer."""

    def do(self, sql: str, parameters: object = None, *, progress: Progress | None = None) -> None:
        """A statement that has no rows to give."""

    def unreadable(self, files: Iterable[str], limit: int) -> Iterable[Junk]:
        """The first `limit` lines of files that hold no record, with their places."""


_COLUMN: Final[dict[By, str]] = {by: by.value for by in By} | {By.NAME: "target"}
_ATTEMPT: Final = (By.CLIENT, By.NAME, By.BAN, By.NETWORK)
_KEYS: Final = tuple(by for by in By if by is not By.ATTEMPT)
_GAP: Final = f"\"action\" = '{EventAction.LOG_GAP}'"


def summarise(
    review: Engine, *, tables: Iterable[By] = tuple(By), top: int | None = None, told: int = 0,
    source: str = "wanted", progress: Progress | None = None,
) -> Summary:  # fmt: skip
    """Read the log once; each table is cut to its `top` most frequent rows. Places of `told` unreadable lines.

    `source` has the columns of `events`, and `readable` and `file`: also the lines that hold no record.
    """
    _count_combinations(review, source, progress)
    records, events, dropped, first, last = review.one(
        """SELECT coalesce(sum("records"), 0), coalesce(sum("events") FILTER (WHERE "traffic"), 0),
        coalesce(sum("dropped"), 0), min("first") FILTER (WHERE "traffic"), max("last") FILTER (WHERE "traffic")
        FROM combinations WHERE readable"""
    )
    junk_in = list(
        review.answer('SELECT "file", sum("records") FROM combinations WHERE NOT readable GROUP BY 1 ORDER BY 1').rows
    )
    lines = sum(count for _, count in junk_in)
    junk = (*review.damage, *review.unreadable((file for file, _ in junk_in), told))
    return Summary(
        records=int(records),
        events=int(events),
        unreadable=int(lines) + len(review.damage),
        dropped=int(dropped),
        first=_shown(first) if events else None,
        last=_shown(last) if events else None,
        tables={by: _table(review, by, top) for by in tables},
        coverage=added_up(
            review.answer(
                'SELECT "coverage", sum("records") FROM combinations WHERE "coverage" IS NOT NULL GROUP BY 1'
            ).rows
        ),
        junk=junk,
    )


def _count_combinations(review: Engine, source: str, progress: Progress | None) -> None:
    """The one pass over the files: how often each combination of keys occurs. All tables are made of that."""
    keys = ", ".join(quoted(_COLUMN[by]) for by in _KEYS)
    review.do(
        f'CREATE OR REPLACE TEMPORARY TABLE combinations AS SELECT {keys}, "traffic", readable, "coverage", '
        f'CASE WHEN NOT readable THEN "file" END AS "file", count(*) AS "records", sum("events") AS "events", '
        f'sum("dropped") FILTER (WHERE {_GAP}) AS "dropped", min("first_time") AS "first", max("last_time") AS "last" '
        f"FROM {source} GROUP BY ALL",
        progress=progress,
    )


def _table(review: Engine, by: By, top: int | None) -> Table:
    parts = _ATTEMPT if by is By.ATTEMPT else (by,)
    keys = ", ".join(f"coalesce({quoted(_COLUMN[part])}, '{ABSENT}') AS {quoted(part.value)}" for part in parts)
    grouped = (
        f'SELECT {keys}, sum("events") AS "count", min("first") AS "first", max("last") AS "last" '
        'FROM combinations WHERE "traffic" GROUP BY ALL'
    )
    number, total = review.one(f'SELECT count(*), coalesce(sum("count"), 0) FROM ({grouped})')
    order = ", ".join(str(position + 1) for position in range(len(parts)))
    limit = "" if top is None else f" LIMIT {int(top)}"
    found = review.answer(f'SELECT * FROM ({grouped}) ORDER BY "count" DESC, {order}{limit}').rows
    rows = tuple(Tally(tuple(row[:-3]), int(row[-3]), _shown(row[-2]), _shown(row[-1])) for row in found)
    return Table(rows, int(total) - sum(row.count for row in rows), int(number))


def _shown(at: datetime | None) -> str:
    """As in the log; empty where records don't say."""
    return "" if at is None else at.isoformat(timespec="microseconds") + "Z"
