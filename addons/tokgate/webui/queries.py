"""What the page asks of the index: counts, rankings, lines. All input is passed as parameters.

Queries run in threads, a few at a time, and their results are cached until the log changes.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from anyio import CapacityLimiter, to_thread
from whenever import Instant

from tokgate.analytics import counts
from tokgate.analytics.counts import Buckets, Ranking, Totals, buckets
from tokgate.analytics.index import Index, IndexState
from tokgate.analytics.sql import Chosen
from tokgate.blocklog.read.reader import Line
from tokgate.blocklog.records.coverage import Share
from tokgate.blocklog.records.record import EventAction
from tokgate.blocklog.records.requests import ANSWERED
from tokgate.webui.log_query import FACETS, PAGE_ROWS, UTC, About, LogQuery

if TYPE_CHECKING:
    from tokgate.analytics.clickhouse_log import ClickHouseIndex

type Source = Index | ClickHouseIndex
"""The table `lines` and the lines that it is made of. Every method blocks, and any thread may call it."""

RANKED: Final = ("client", "name", "user", "network", "ban", "service", "signal", "action", "reason")
"""The facets that the overview ranks."""
TOP: Final = 10
MAX_ROWS: Final = 100_000
"""Maximum rows of a download."""
SHOWN: Final = (
    "time", "verdict", "action", "client", "user", "name", "destination_ip", "network", "ban", "service", "rule",
    "signal", "reason", "exemption", "events", "first_time", "last_time", "gateway", "policy", "event_id",
)  # fmt: skip
"""The columns of a line, on the page and in a download."""
SUGGESTED: Final = 200
"""Most values of a facet that are offered."""
_COLUMN: Final = {"name": "target"}


@dataclass(frozen=True, slots=True)
class Overview:
    """The counts on the overview page, over all lines that the filters accept."""

    totals: Totals
    pieces: Buckets | None
    over_time: dict[str, list[int]]
    rankings: tuple[Ranking, ...]
    dropped: int
    unreadable: int
    coverage: dict[str, Share]
    """By network: the share of traffic in the period whose name was visible."""

    @property
    def verdicts(self) -> dict[str, int]:
        """Events by verdict."""
        return {verdict: sum(numbers) for verdict, numbers in self.over_time.items()}


@dataclass(frozen=True, slots=True)
class Lines:
    """A page of lines, newest first; `total` counts all, `upto` is the number of the last line that it counts."""

    rows: tuple[dict[str, Any], ...]
    total: int
    upto: int


def overview(index: Source, query: LogQuery) -> Overview:
    """The counts of the overview page, for what the query asks."""
    chosen = query.chosen()
    ((unreadable, dropped),) = index.ask(
        "SELECT count(*) FILTER (NOT readable), coalesce(sum(dropped) FILTER (readable), 0) FROM lines "
        "WHERE NOT readable OR dropped IS NOT NULL"
    )
    pieces, over_time = _over_time(index, query, chosen)
    counted = tuple(ranking(index, query, facet) for facet in RANKED)
    return Overview(
        counts.totals(index, chosen), pieces, over_time, counted, int(dropped), int(unreadable), coverage(index, query)
    )


def coverage(index: Source, query: LogQuery) -> dict[str, Share]:
    """Visibility by network in the chosen period; of the filters only `network` applies."""
    found = counts.coverage(index, LogQuery(since=query.since, until=query.until, about=About.TOKGATE).chosen())
    networks = query.values("network")
    return {name: share for name, share in found.items() if not networks or name in networks}


CROSSED: Final = {"weekday": "Day of the week", "hour": "Hour", **FACETS}
"""By what a table can count, down and across."""
_TIMES: Final = {"weekday": ("isodow", range(1, 8)), "hour": ("hour", range(24))}
"""SQL's function, and all its values."""
_MOST: Final = {"down": 25, "across": 24}


@dataclass(frozen=True, slots=True)
class Cross:
    """Events by two fields: the values down and across, most events first, and the counts that are not 0."""

    down: tuple[str, ...]
    across: tuple[str, ...]
    counts: dict[tuple[str, str], int]
    other: int
    """Events of values that are not in the table."""


def cross(index: Source, query: LogQuery, down: str, across: str) -> Cross:
    """Count by two keys of CROSSED. Raises KeyError for others."""
    chosen, local = query.chosen(), ""
    if {down, across} & _TIMES.keys():
        chosen, local = _local(query, chosen)
    sql = {name: f"CAST({_crossed(by, local)} AS VARCHAR)" for name, by in (("down", down), ("across", across))}
    most = " AND ".join(
        f"{name} IN (SELECT {name} FROM counted GROUP BY 1 ORDER BY sum(events) DESC, 1 LIMIT {limit})"
        for name, limit in _MOST.items()
    )
    rows = index.ask(
        f"WITH counted AS (SELECT coalesce({sql['down']}, '–') AS down, coalesce({sql['across']}, '–') AS across, "
        f"sum(events) AS events FROM lines WHERE {chosen.where} GROUP BY 1, 2) "
        f"SELECT down, across, events, (SELECT sum(events) FROM counted) FROM counted WHERE {most}",
        chosen.said,
    )
    counts_of = {(one, other): int(events) for one, other, events, _ in rows}
    left = int(rows[0][3]) - sum(counts_of.values()) if rows else 0
    return Cross(_values_of(down, 0, counts_of), _values_of(across, 1, counts_of), counts_of, left)


def _crossed(by: str, local: str) -> str:
    if by in _TIMES:
        return f"{_TIMES[by][0]}({local})"
    if by not in FACETS:
        raise KeyError(by)
    return f'"{_COLUMN.get(by, by)}"'


def _values_of(by: str, place: int, counted: Mapping[tuple[str, str], int]) -> tuple[str, ...]:
    if by in _TIMES:
        return tuple(map(str, _TIMES[by][1]))
    sums = Counter[str]()
    for key, events in counted.items():
        sums[key[place]] += events
    return tuple(value for value, _ in sums.most_common())


def _local(query: LogQuery, chosen: Chosen) -> tuple[Chosen, str]:
    """The same lines, and SQL for their time in the view's zone."""
    zone = query.view.zone
    if zone == UTC:
        return chosen, "time"
    return replace(chosen, said={**chosen.said, "zone": zone}), "timezone($zone, timezone('UTC', time))"


def _over_time(index: Source, query: LogQuery, chosen: Chosen) -> tuple[Buckets | None, dict[str, list[int]]]:
    """Events by verdict in equal intervals of the chosen period, or of the period that the log covers.

    The intervals are those of the view's zone, in its local time: where clocks are set back, one is longer.
    """
    zone = query.view.zone
    chosen, local = _local(query, chosen)
    ((first, last),) = index.ask(f"SELECT min({local}), max({local}) FROM lines WHERE {chosen.where}", chosen.said)
    if first is None:
        return None, {}
    start = first if query.since is None else wall_time(query.since, zone)
    end = last + timedelta(microseconds=1) if query.until is None else wall_time(query.until, zone)
    pieces = buckets(start, max(end, start + timedelta(minutes=1)))
    return pieces, counts.over_time(index, chosen, pieces, local)


def ranking(index: Source, query: LogQuery, facet: str, top: int = TOP) -> Ranking:
    """The `top` most frequent values of a facet. Raises KeyError for a facet that is not in RANKED."""
    if facet not in RANKED:
        raise KeyError(facet)
    return replace(counts.ranking(index, query.chosen(), _COLUMN.get(facet, facet), top), of=facet)


def lines(index: Source, query: LogQuery) -> Lines:
    """The lines of one page, in the order of the view."""
    chosen = query.chosen()
    total, upto = index.ask(f"SELECT count(*), coalesce(max(n), 0) FROM lines WHERE {chosen.where}", chosen.said)[0]
    skipped = PAGE_ROWS * (query.page - 1)
    rows = _records(index, chosen, f"ORDER BY {query.view.order} LIMIT $rows OFFSET {skipped}", PAGE_ROWS)
    return Lines(tuple(rows), total, upto if query.upto is None else query.upto)


def newest(index: Source, query: LogQuery, rows: int) -> list[dict[str, Any]]:
    """The last `rows` lines that the filters accept, newest first."""
    return _records(index, query.chosen(), "ORDER BY time DESC, rowid DESC LIMIT $rows", rows)


def after(index: Source, query: LogQuery, n: int, rows: int) -> list[dict[str, Any]]:
    """At most `rows` lines whose number `n` is greater, in ascending order; each row also has `n`.

    There may be more where the last ones have the same number, as lines of several gateways may have in ClickHouse.
    """
    chosen = query.chosen()
    chosen = replace(chosen, where=f"n > $n AND {chosen.where}", said={**chosen.said, "n": n})
    return _records(index, chosen, "QUALIFY rank() OVER (ORDER BY n) <= $rows ORDER BY n", rows, "n")


def last_line(index: Source) -> int:
    """The number of the last line read; 0 for an empty log."""
    return int(index.ask("SELECT coalesce(max(n), 0) FROM lines")[0][0])


def download(index: Source, query: LogQuery) -> list[tuple[Any, ...]]:
    """The rows of all pages of lines, at most MAX_ROWS, in the order of the view."""
    chosen = query.chosen()
    return index.ask(
        f"SELECT {_shown()} FROM lines WHERE {chosen.where} ORDER BY {query.view.order} LIMIT $rows",
        {**chosen.said, "rows": MAX_ROWS},
    )


def by_verdict(index: Source, query: LogQuery) -> dict[str, int]:
    """The number of events by verdict; records without a verdict by their action."""
    return counts.by_verdict(index, query.chosen())


def choices(index: Source, facet: str) -> list[str]:
    """The values of a facet in the log, in order; of many the most frequent. Raises KeyError for what is no facet."""
    if facet not in FACETS:
        raise KeyError(facet)
    rows = index.ask(
        f'SELECT "{facet}" FROM lines WHERE "{facet}" IS NOT NULL GROUP BY 1 ORDER BY sum(events) DESC, 1 LIMIT $most',
        {"most": SUGGESTED},
    )
    return sorted(row[0] for row in rows)


_REQUESTED: Final = EventAction.EXCEPTION_REQUESTED.value
_ANSWERED: Final = (EventAction.EXCEPTION_APPROVED.value, EventAction.EXCEPTION_DECLINED.value)
_REQUEST: Final = ("time", "action", "event_id", "ban", "client", "user", "message")
_MOST_REQUESTS: Final = 1000


def requests(index: Source) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """The latest requests for exceptions, newest first, each with the record of its answer, which names it."""
    columns = ", ".join("CAST(event_id AS VARCHAR)" if name == "event_id" else f'"{name}"' for name in _REQUEST)
    rows = index.ask(
        f"SELECT {columns} FROM lines WHERE action IN ($asked, $approved, $declined) ORDER BY time DESC LIMIT $rows",
        {"asked": _REQUESTED, "approved": _ANSWERED[0], "declined": _ANSWERED[1], "rows": _MOST_REQUESTS},
    )
    records = [dict(zip(_REQUEST, row, strict=True)) for row in rows]
    answers = {
        name: record
        for record in records
        if record["action"] in _ANSWERED
        for name in ANSWERED.findall(record["message"] or "")
    }
    return [(record, answers.get(record["event_id"])) for record in records if record["action"] == _REQUESTED]


def neighbours(index: Source, event: str) -> tuple[str | None, str | None]:
    """The event ids of the same client's lines before and after an event, by time; None where there is none."""
    return _neighbour(index, event, "<", "DESC"), _neighbour(index, event, ">", "ASC")


def _neighbour(index: Source, event: str, beyond: str, direction: str) -> str | None:
    found = index.ask(
        "WITH this AS (SELECT time, rowid AS place, client FROM lines WHERE event_id = TRY_CAST($event AS UUID) "
        "ORDER BY rowid DESC LIMIT 1) "
        "SELECT CAST(event_id AS VARCHAR) FROM lines, this WHERE lines.client = this.client AND event_id IS NOT NULL "
        f"AND traffic AND (lines.time, lines.rowid) {beyond} (this.time, this.place) "
        f"ORDER BY lines.time {direction}, lines.rowid {direction} LIMIT 1",
        {"event": event},
    )
    return found[0][0] if found else None


def wall_time(at: Instant, zone: str) -> datetime:
    """The local time of a zone, without `tzinfo`."""
    return at.to_tz(zone).to_plain().to_stdlib()


def _shown() -> str:
    return ", ".join("CAST(event_id AS VARCHAR)" if name == "event_id" else f'"{name}"' for name in SHOWN)


def _records(index: Source, chosen: Chosen, rest: str, rows: int, *more: str) -> list[dict[str, Any]]:
    """The chosen lines, with their messages and `more` columns. `rest` is SQL behind the condition, with `$rows`."""
    columns = ("message", *more)
    sql = f"SELECT {_shown()}, {', '.join(columns)} FROM lines WHERE {chosen.where} {rest}"
    found = index.ask(sql, {**chosen.said, "rows": rows})
    return [dict(zip((*SHOWN, *columns), row, strict=True)) for row in found]


REMEMBERED: Final = 128
"""Results in the cache; beyond it the least recently used is dropped."""
_AT_ONCE: Final = 4
_PATIENCE: Final = 2.0
"""Seconds that a query waits for files that are not read yet; then its result is of what is read."""


class QueryCache:
    """A cache of query results from one index. A result is at most half a second behind the log."""

    def __init__(self, index: Source) -> None:
        """The caller closes the index."""
        self._index: Final = index
        self._limiter: Final = CapacityLimiter(_AT_ONCE)
        self._answers: Final[OrderedDict[tuple[Hashable, ...], Any]] = OrderedDict()

    @property
    def state(self) -> IndexState:
        """How much of the log the index has read."""
        return self._index.state

    async def catch_up(self, seconds: float = _PATIENCE) -> IndexState:
        """Read lines appended since the last call, for at most `seconds`; what is left is read by the next call."""
        return await to_thread.run_sync(self._index.catch_up, seconds, limiter=self._limiter)

    async def ask[A](self, question: Callable[..., A], *said: Hashable) -> A:
        """The result of `question(index, *said)`, from the cache if the log has not changed."""
        state = await self.catch_up()
        key = (state.version, question, *said)
        if key in self._answers:
            self._answers.move_to_end(key)
        else:
            self._answers[key] = await to_thread.run_sync(question, self._index, *said, limiter=self._limiter)
            while len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        answer: A = self._answers[key]
        return answer

    async def ask_afresh[A](self, question: Callable[..., A], *said: object) -> A:
        """The result of `question(index, *said)`, not cached: for downloads and streams."""
        await self.catch_up()
        return await to_thread.run_sync(question, self._index, *said, limiter=self._limiter)

    async def line(self, event: str) -> Line | None:
        """The line with an event id, or None; read once more if its file was rotated meanwhile."""
        await self.catch_up()
        try:
            return await to_thread.run_sync(self._index.line, event, limiter=self._limiter)
        except FileNotFoundError:
            await self.catch_up()
            return await to_thread.run_sync(self._index.line, event, limiter=self._limiter)

    async def related(self, line: Line) -> list[Line]:
        """The other lines about the same connection or repeats, in the same file; none if that was rotated just now."""
        with suppress(FileNotFoundError):
            return await to_thread.run_sync(self._index.related, line, limiter=self._limiter)
        return []
