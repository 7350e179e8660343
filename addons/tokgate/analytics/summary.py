"""Counts of the log's traffic events by client, name, ban and so on: exact, in bounded memory, in one pass.

Each table counts each event once, so every table adds up to `events`. A record stands for one event, or for
`tokgate.repeats.count`.
"""

import json
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, TypedDict

from tokgate.analytics.sql import Engine, quoted, rfc3339
from tokgate.blocklog.records.coverage import share_of

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


class TableOutput(TypedDict):
    """How often each key occurred: `rows` have the columns of the key, `count`, `first` and `last`."""

    keys: int
    rows: list[dict[str, str | int | None]]
    other: int


class CoverageOutput(TypedDict):
    """How many connections there were, and how many were judged by name; by network and visibility."""

    total: int
    named: int
    networks: dict[str, dict[str, int]]


class Summarised(TypedDict):
    """`tokgate log summary --json`: tables by what they count."""

    first: str | None
    last: str | None
    records: int
    events: int
    dropped: int
    unreadable: int
    coverage: CoverageOutput | None
    tables: dict[str, TableOutput]


_COLUMN: Final[dict[By, str]] = {by: by.value for by in By} | {By.NAME: "target"}
_KEYS: Final = tuple(by for by in By if by is not By.ATTEMPT)
KEY: Final[dict[By, tuple[By, ...]]] = {by: (by,) for by in By} | {By.ATTEMPT: (By.CLIENT, By.NAME, By.BAN, By.NETWORK)}
"""The columns of a table's key."""


def summarise(engine: Engine, tables: Iterable[By] = tuple(By), top: int | None = None) -> tuple[Summarised, list[str]]:
    """Read the log once; each table has its `top` most frequent rows. Also the files with lines that hold no record.

    Raises LogError.
    """
    # Each combination of keys is counted in the only pass over the files. All tables are made from these counts.
    keys = ", ".join(quoted(_COLUMN[by]) for by in _KEYS)
    engine.ask(
        f'CREATE OR REPLACE TEMPORARY TABLE combinations AS SELECT {keys}, "traffic", readable, "coverage", '
        f'CASE WHEN NOT readable THEN "file" END AS "file", count(*) AS "records", sum("events") AS "events", '
        'sum("dropped") AS "dropped", min("first_time") AS "first", max("last_time") AS "last" '
        "FROM wanted GROUP BY ALL"
    )
    ((records, events, dropped, first, last),) = engine.ask(
        """SELECT coalesce(sum("records"), 0), coalesce(sum("events") FILTER (WHERE "traffic"), 0),
        coalesce(sum("dropped"), 0), min("first") FILTER (WHERE "traffic"), max("last") FILTER (WHERE "traffic")
        FROM combinations WHERE readable"""
    )
    junk_in = engine.ask('SELECT "file", sum("records") FROM combinations WHERE NOT readable GROUP BY 1 ORDER BY 1')
    coverage = sum_coverage(
        engine.ask('SELECT "coverage", sum("records") FROM combinations WHERE "coverage" IS NOT NULL GROUP BY 1')
    )
    share = share_of(coverage)
    summary: Summarised = {
        "first": rfc3339(first) if events else None,
        "last": rfc3339(last) if events else None,
        "records": int(records),
        "events": int(events),
        "dropped": int(dropped),
        "unreadable": int(sum(count for _, count in junk_in)) + len(engine.damage),
        "coverage": {"total": share.total, "named": share.named, "networks": coverage} if coverage else None,
        "tables": {by.value: _table(engine, by, top) for by in tables},
    }
    return summary, [file for file, _ in junk_in]


def _table(engine: Engine, by: By, top: int | None) -> TableOutput:
    keys = ", ".join(f"coalesce({quoted(_COLUMN[part])}, '{ABSENT}') AS {quoted(part.value)}" for part in KEY[by])
    grouped = (
        f'SELECT {keys}, sum("events") AS "count", min("first") AS "first", max("last") AS "last" '
        'FROM combinations WHERE "traffic" GROUP BY ALL'
    )
    ((number, total),) = engine.ask(f'SELECT count(*), coalesce(sum("count"), 0) FROM ({grouped})')
    order = ", ".join(str(position) for position, _ in enumerate(KEY[by], 1))
    limit = "" if top is None else f" LIMIT {int(top)}"
    found = engine.ask(f'SELECT * FROM ({grouped}) ORDER BY "count" DESC, {order}{limit}')
    rows: list[dict[str, str | int | None]] = [
        {**dict(zip(KEY[by], key, strict=True)), "count": int(count), "first": rfc3339(first), "last": rfc3339(last)}
        for *key, count, first, last in found
    ]
    return {"keys": int(number), "rows": rows, "other": int(total) - sum(int(row[-3]) for row in found)}


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
