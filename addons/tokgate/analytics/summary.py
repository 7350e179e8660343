"""Counts of the log's traffic events by client, name, ban and so on: exact, in bounded memory, in one pass.

Each table counts each event once, so every table adds up to `events`. A record stands for one event, or for
`tokgate.repeats.count`.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tokgate.analytics.sql import Engine, quoted, rfc3339
from tokgate.blocklog.read.reader import Junk

ABSENT: Final = "-"


class By(StrEnum):
    """The tables of a summary, by the column whose values they count."""

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
class KeyCount:
    """The events of one key, with the earliest and latest instant as RFC 3339."""

    key: tuple[str, ...]
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Table:
    """The keys with most events first; `other` counts the events of keys that are cut off, `keys` all keys."""

    rows: tuple[KeyCount, ...]
    other: int
    keys: int

    @property
    def total(self) -> int:
        """All events, also of the keys that are cut off."""
        return sum(row.count for row in self.rows) + self.other


@dataclass(frozen=True, slots=True)
class Summary:
    """`records` are the lines with a record, `events` those about traffic, `dropped` the sum of `log-gap` records."""

    records: int
    events: int
    unreadable: int
    dropped: int
    first: str | None
    last: str | None
    tables: dict[By, Table]
    coverage: dict[str, dict[str, int]]
    """Connections and requests by network and visibility, also allowed ones; from `coverage-counted` records."""
    junk: tuple[Junk, ...]
    """The first few lines that could not be read."""


_COLUMN: Final[dict[By, str]] = {by: by.value for by in By} | {By.NAME: "target"}
_ATTEMPT: Final = (By.CLIENT, By.NAME, By.BAN, By.NETWORK)
_KEYS: Final = tuple(by for by in By if by is not By.ATTEMPT)


def summarise(
    engine: Engine, *, tables: Iterable[By] = tuple(By), top: int | None = None, junk_limit: int = 0,
) -> Summary:  # fmt: skip
    """Read the log once. Each table has its `top` most frequent rows, `junk` the first `junk_limit` unreadable lines.

    Raises LogError.
    """
    _count_combinations(engine)
    ((records, events, dropped, first, last),) = engine.ask(
        """SELECT coalesce(sum("records"), 0), coalesce(sum("events") FILTER (WHERE "traffic"), 0),
        coalesce(sum("dropped"), 0), min("first") FILTER (WHERE "traffic"), max("last") FILTER (WHERE "traffic")
        FROM combinations WHERE readable"""
    )
    junk_in = engine.ask('SELECT "file", sum("records") FROM combinations WHERE NOT readable GROUP BY 1 ORDER BY 1')
    lines = sum(count for _, count in junk_in)
    junk = (*engine.damage, *engine.unreadable((file for file, _ in junk_in), junk_limit))
    return Summary(
        records=int(records),
        events=int(events),
        unreadable=int(lines) + len(engine.damage),
        dropped=int(dropped),
        first=rfc3339(first) if events else None,
        last=rfc3339(last) if events else None,
        tables={by: _table(engine, by, top) for by in tables},
        coverage=sum_coverage(
            engine.ask('SELECT "coverage", sum("records") FROM combinations WHERE "coverage" IS NOT NULL GROUP BY 1')
        ),
        junk=junk,
    )


def _count_combinations(engine: Engine) -> None:
    """Count each combination of keys, in the only pass over the files. All tables are made from these counts."""
    keys = ", ".join(quoted(_COLUMN[by]) for by in _KEYS)
    engine.ask(
        f'CREATE OR REPLACE TEMPORARY TABLE combinations AS SELECT {keys}, "traffic", readable, "coverage", '
        f'CASE WHEN NOT readable THEN "file" END AS "file", count(*) AS "records", sum("events") AS "events", '
        'sum("dropped") AS "dropped", min("first_time") AS "first", max("last_time") AS "last" '
        "FROM wanted GROUP BY ALL"
    )


def _table(engine: Engine, by: By, top: int | None) -> Table:
    parts = _ATTEMPT if by is By.ATTEMPT else (by,)
    keys = ", ".join(f"coalesce({quoted(_COLUMN[part])}, '{ABSENT}') AS {quoted(part.value)}" for part in parts)
    grouped = (
        f'SELECT {keys}, sum("events") AS "count", min("first") AS "first", max("last") AS "last" '
        'FROM combinations WHERE "traffic" GROUP BY ALL'
    )
    ((number, total),) = engine.ask(f'SELECT count(*), coalesce(sum("count"), 0) FROM ({grouped})')
    order = ", ".join(str(position + 1) for position in range(len(parts)))
    limit = "" if top is None else f" LIMIT {int(top)}"
    found = engine.answer(f'SELECT * FROM ({grouped}) ORDER BY "count" DESC, {order}{limit}').rows
    rows = tuple(KeyCount(tuple(row[:-3]), int(row[-3]), rfc3339(row[-2]), rfc3339(row[-1])) for row in found)
    return Table(rows, int(total) - sum(row.count for row in rows), int(number))


def sum_coverage(records: Iterable[tuple[Any, int]]) -> dict[str, dict[str, int]]:
    """Counts by network and visibility, sorted by name, from pairs of `tokgate.coverage` as JSON and its records.

    A value of another shape counts as nothing.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for text, times in records:
        networks = json.loads(text or "null")  # ClickHouse gives empty text where the field is absent
        for network, visible in networks.items() if isinstance(networks, dict) else ():
            for visibility, number in visible.items() if isinstance(visible, dict) else ():
                sums[network, visibility] += number * times if isinstance(number, int) else 0
    found: dict[str, dict[str, int]] = {}
    for (network, visibility), number in sorted(sums.items()):
        found.setdefault(network, {})[visibility] = number
    return found
