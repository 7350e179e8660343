"""Counts of a log's lines, for the review page and for the report: totals, rankings, over time, coverage.

They are asked of a table `lines` with the columns of `events`: an index has one, and a report makes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from tokgate.analytics.sql import Chosen, Row
from tokgate.analytics.summary import sum_coverage
from tokgate.blocklog.records.coverage import Share

VERDICTS: Final = ("block", "warn", "monitor", "allow")
MAX_BARS: Final = 186
_MINUTES, _HOURS, _DAYS, _WEEKS = MAX_BARS / 1440, MAX_BARS / 24, MAX_BARS, MAX_BARS * 7


class Lines(Protocol):
    """What has the table `lines`."""

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run tokgate's own SQL. Raises LogError."""


@dataclass(frozen=True, slots=True)
class Count:
    """A value: its events, the first and the last. `value` is None for lines without one."""

    value: str | None
    events: int
    first: datetime | None
    last: datetime | None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    """Events by verdict, if they were asked for."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The most frequent values of a column (`of`); there are `keys` values, and `other` events of the rest."""

    of: str
    rows: tuple[Count, ...]
    keys: int
    other: int

    @property
    def said(self) -> bool:
        """Whether at least one line has a value."""
        return any(row.value is not None for row in self.rows)


@dataclass(frozen=True, slots=True)
class Totals:
    """How many lines and events there are, of how many clients and names, and the first and the last instant."""

    records: int
    events: int
    clients: int
    names: int
    first: datetime | None
    last: datetime | None


def totals(log: Lines, chosen: Chosen) -> Totals:
    records, events, *rest = log.ask(
        "SELECT count(*), coalesce(sum(events), 0), count(DISTINCT client), count(DISTINCT target), min(first_time), "
        f"max(last_time) FROM lines WHERE {chosen.where}",
        chosen.said,
    )[0]
    return Totals(int(records), int(events), *rest)


def by_verdict(log: Lines, chosen: Chosen) -> dict[str, int]:
    """The number of events by verdict; records without a verdict by their action."""
    rows = log.ask(
        f"SELECT coalesce(verdict, action), sum(events) FROM lines WHERE {chosen.where} GROUP BY 1", chosen.said
    )
    return {verdict: int(events) for verdict, events in rows}


def ranking(
    log: Lines, chosen: Chosen, column: str, top: int, *, least: int = 1, verdicts: Sequence[str] = ()
) -> Ranking:
    """The `top` most frequent values of a column; those of fewer than `least` clients are among the others.

    With `verdicts` each value's events are also counted by these.
    """
    more = "".join(f", coalesce(sum(lines.events) FILTER (verdict = '{name}'), 0) AS \"{name}\"" for name in verdicts)
    clients = "count(DISTINCT client)" if least > 1 else str(least)
    rows = log.ask(
        f'WITH counted AS (SELECT "{column}" AS value, sum(events) AS events, min(first_time) AS first, '
        f"max(last_time) AS last, {clients} AS clients{more} FROM lines WHERE {chosen.where} GROUP BY 1) "
        "SELECT *, count(*) OVER () AS keys, sum(events) OVER () AS total FROM counted "
        "ORDER BY clients >= $least DESC, events DESC, value NULLS LAST LIMIT $top",
        {**chosen.said, "top": top, "least": least},
    )
    counts = tuple(
        Count(value, int(events), first, last, {name: int(count) for name, count in zip(verdicts, each, strict=False)})
        for value, events, first, last, known, *each in rows
        if known >= least
    )
    keys, total = (rows[0][-2], int(rows[0][-1])) if rows else (0, 0)
    return Ranking(column, counts, keys, total - sum(count.events for count in counts))


def coverage(log: Lines, chosen: Chosen, table: str = "lines") -> dict[str, Share]:
    """The share of traffic whose name was visible, by network; `table` has the records that count it."""
    rows = log.ask(
        f"SELECT CAST(coverage AS VARCHAR), count(*) FROM {table} WHERE coverage IS NOT NULL AND {chosen.where} "
        "GROUP BY 1",
        chosen.said,
    )
    return {network: Share(seen) for network, seen in sum_coverage(rows).items()}


def over_time(log: Lines, chosen: Chosen, pieces: "Buckets", local: str = "time") -> dict[str, list[int]]:
    """Events by verdict in each bucket, or by action where there is no verdict; `local` is SQL for the time."""
    place = {piece: number for number, piece in enumerate(pieces.starts)}
    counts = {verdict: [0] * len(place) for verdict in VERDICTS}
    rows = log.ask(
        f"SELECT date_trunc('{pieces.unit}', {local}), coalesce(verdict, action), sum(events) FROM lines "
        f"WHERE {chosen.where} AND time IS NOT NULL GROUP BY ALL",
        chosen.said,
    )
    for piece, verdict, events in rows:
        if piece in place:
            counts.setdefault(verdict, [0] * len(place))[place[piece]] = int(events)
    return {verdict: numbers for verdict, numbers in counts.items() if any(numbers)}


@dataclass(frozen=True, slots=True)
class Buckets:
    """`unit` is a word of SQL's date_trunc; `starts` has the beginning of every bucket, also of empty ones."""

    unit: str
    starts: tuple[datetime, ...]
    end: datetime

    def fraction(self, at: datetime) -> float:
        """The position of an instant on the time axis, from 0 to 1."""
        if not self.starts:
            return 0.0
        whole = (self.end - self.starts[0]).total_seconds()
        return min(1.0, max(0.0, (at - self.starts[0]).total_seconds() / whole))

    def label(self, start: datetime) -> str:
        """The label of the bucket that begins at `start`, for an axis."""
        return start.strftime(
            {"minute": "%m-%d %H:%M", "hour": "%m-%d %H:%M", "month": "%Y-%m"}.get(self.unit, "%Y-%m-%d")
        )

    def name(self, start: datetime) -> str:
        """The same with the year."""
        return start.strftime("%Y-%m-%d %H:%M") if self.unit in ("minute", "hour") else self.label(start)


def buckets(start: datetime, end: datetime) -> Buckets:
    """Divide `[start, end)` by the smallest unit that gives at most MAX_BARS buckets."""
    days = (end - start) / timedelta(days=1)
    longest = {"minute": _MINUTES, "hour": _HOURS, "day": _DAYS, "week": _WEEKS}
    unit = next((unit for unit, most in longest.items() if days <= most), "month")
    starts, at = [], _floor(start, unit)
    while at < end:
        starts.append(at)
        at = _next(at, unit)
    return Buckets(unit, tuple(starts), at)


def _floor(at: datetime, unit: str) -> datetime:
    if unit == "minute":
        return at.replace(second=0, microsecond=0)
    if unit == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _next(at: datetime, unit: str) -> datetime:
    if unit == "month":
        return _floor(at + timedelta(days=32), "month")
    return at + timedelta(**{f"{unit}s": 1})
