"""SQL queries of the review page to the index: counts, rankings, lines. All input is passed as parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from whenever import Instant

from tokgate.analytics.coverage import sum_coverage
from tokgate.analytics.index.source import Source
from tokgate.analytics.report.time_buckets import Buckets, buckets
from tokgate.blocklog.records.coverage import Share
from tokgate.webui.log_query import FACETS, PAGE_ROWS, UTC, About, LogQuery

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
VERDICTS: Final = ("block", "warn", "monitor", "allow")
SUGGESTED: Final = 200
"""Most values of a facet that are offered."""
_COLUMN: Final = {"name": "target"}


@dataclass(frozen=True, slots=True)
class Count:
    """A value of a facet: its events, the first and the last. `value` is None for lines without one."""

    value: str | None
    events: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class FacetRanking:
    """The most frequent values of a facet; `keys` is how many there are, `other` counts the events of the rest."""

    facet: str
    rows: tuple[Count, ...]
    keys: int
    other: int

    @property
    def said(self) -> bool:
        """Whether at least one line has a value for the facet."""
        return any(row.value is not None for row in self.rows)


@dataclass(frozen=True, slots=True)
class Overview:
    """The counts on the overview page, over all lines that the filters accept."""

    records: int
    events: int
    verdicts: dict[str, int]
    clients: int
    names: int
    first: datetime | None
    last: datetime | None
    pieces: Buckets | None
    over_time: dict[str, list[int]]
    rankings: tuple[FacetRanking, ...]
    dropped: int
    unreadable: int
    coverage: dict[str, Share]
    """By network: the share of traffic in the period whose name was visible."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A page of lines, newest first; `total` counts all, `upto` is the number of the last line that it counts."""

    rows: tuple[dict[str, Any], ...]
    total: int
    upto: int


def overview(index: Source, query: LogQuery) -> Overview:
    """The counts at the head of the overview page, for what the query asks."""
    where, said = query.where()
    records, events, clients, names, first, last = index.ask(
        "SELECT count(*), coalesce(sum(events), 0), count(DISTINCT client), count(DISTINCT target), min(first_time), "
        f"max(last_time) FROM lines WHERE {where}",
        said,
    )[0]
    unreadable, dropped = index.ask(
        "SELECT count(*) FILTER (NOT readable), coalesce(sum(dropped) FILTER (readable), 0) FROM lines "
        "WHERE NOT readable OR dropped IS NOT NULL"
    )[0]
    pieces, over_time = over(index, query, first, last)
    verdicts = {verdict: sum(numbers) for verdict, numbers in over_time.items()}
    return Overview(
        records=records, events=int(events), verdicts=verdicts, clients=clients, names=names, first=first, last=last,
        pieces=pieces, over_time=over_time, rankings=tuple(ranking(index, query, facet) for facet in RANKED),
        dropped=int(dropped), unreadable=unreadable, coverage=coverage(index, query),
    )  # fmt: skip


def coverage(index: Source, query: LogQuery) -> dict[str, Share]:
    """Visibility by network in the chosen period; of the filters only `network` applies."""
    where, said = LogQuery(since=query.since, until=query.until, about=About.TOKGATE).where()
    rows = index.ask(
        f"SELECT CAST(coverage AS VARCHAR), count(*) FROM lines WHERE coverage IS NOT NULL AND {where} GROUP BY 1", said
    )
    network = query.value("network")
    return {name: Share(seen) for name, seen in sum_coverage(rows).items() if network in ("", name)}


def over(
    index: Source, query: LogQuery, first: datetime | None, last: datetime | None
) -> tuple[Buckets | None, dict[str, list[int]]]:
    """Events by verdict in equal intervals of the chosen period, or of the period that the log covers.

    The intervals are those of the view's zone, in its local time: where clocks are set back, one is longer.
    """
    where, said = query.where()
    zone = query.view.zone
    local = "time" if zone == UTC else "timezone($zone, timezone('UTC', time))"
    if zone != UTC:
        said |= {"zone": zone}
    (edges,) = index.ask(f"SELECT min({local}), max({local}) FROM lines WHERE {where}", said)
    if first is None or last is None or edges[0] is None:
        return None, {}
    start = edges[0] if query.since is None else wall_time(query.since, zone)
    end = edges[1] + timedelta(microseconds=1) if query.until is None else wall_time(query.until, zone)
    pieces = buckets(start, max(end, start + timedelta(minutes=1)))
    place = {piece: number for number, piece in enumerate(pieces.starts)}
    counts = {verdict: [0] * len(place) for verdict in VERDICTS}
    rows = index.ask(
        f"SELECT date_trunc('{pieces.unit}', {local}), coalesce(verdict, action), sum(events) FROM lines WHERE {where} "
        "AND time IS NOT NULL GROUP BY ALL",
        said,
    )
    for piece, verdict, events in rows:
        if piece in place:
            counts.setdefault(verdict, [0] * len(place))[place[piece]] = int(events)
    return pieces, {verdict: numbers for verdict, numbers in counts.items() if any(numbers)}


def ranking(index: Source, query: LogQuery, facet: str, top: int = TOP) -> FacetRanking:
    """The `top` most frequent values of a facet. Raises KeyError for a facet that is not in RANKED."""
    if facet not in RANKED:
        raise KeyError(facet)
    where, said = query.where()
    column = _COLUMN.get(facet, facet)
    rows = index.ask(
        f'WITH counted AS (SELECT "{column}" AS value, sum(events) AS events, min(first_time), max(last_time) '
        f"FROM lines WHERE {where} GROUP BY 1) "
        "SELECT *, count(*) OVER (), sum(events) OVER () FROM counted "
        "ORDER BY events DESC, value NULLS LAST LIMIT $top",
        said | {"top": top},
    )
    counts = tuple(Count(row[0], int(row[1]), row[2], row[3]) for row in rows)
    keys, events = (rows[0][4], int(rows[0][5])) if rows else (0, 0)
    return FacetRanking(facet, counts, keys, events - sum(count.events for count in counts))


def lines(index: Source, query: LogQuery) -> Lines:
    """The lines of one page, in the order of the view."""
    where, said = query.where()
    total, upto = index.ask(f"SELECT count(*), coalesce(max(n), 0) FROM lines WHERE {where}", said)[0]
    rows = index.ask(
        f"SELECT {_shown()}, message FROM lines WHERE {where} ORDER BY {query.view.order} LIMIT $rows OFFSET $skipped",
        said | {"rows": PAGE_ROWS, "skipped": PAGE_ROWS * (query.page - 1)},
    )
    return Lines(tuple(_records(rows, ("message",))), total, upto if query.upto is None else query.upto)


def newest(index: Source, query: LogQuery, rows: int) -> list[dict[str, Any]]:
    """The last `rows` lines that the filters accept, newest first."""
    where, said = query.where()
    found = index.ask(
        f"SELECT {_shown()}, message FROM lines WHERE {where} ORDER BY time DESC, rowid DESC LIMIT $rows",
        said | {"rows": rows},
    )
    return list(_records(found, ("message",)))


def after(index: Source, query: LogQuery, n: int, rows: int) -> list[dict[str, Any]]:
    """At most `rows` lines whose number `n` is greater, in ascending order; each row also has `n`.

    There may be more where the last ones have the same number, as lines of several gateways may have in ClickHouse.
    """
    where, said = query.where()
    found = index.ask(
        f"SELECT {_shown()}, message, n FROM lines WHERE n > $n AND {where} "
        "QUALIFY rank() OVER (ORDER BY n) <= $rows ORDER BY n",
        said | {"n": n, "rows": rows},
    )
    return list(_records(found, ("message", "n")))


def last_line(index: Source) -> int:
    """The number of the last line read; 0 for an empty log."""
    return int(index.ask("SELECT coalesce(max(n), 0) FROM lines")[0][0])


def download(index: Source, query: LogQuery) -> list[tuple[Any, ...]]:
    """The rows of all pages of lines, at most MAX_ROWS, in the order of the view."""
    where, said = query.where()
    return index.ask(
        f"SELECT {_shown()} FROM lines WHERE {where} ORDER BY {query.view.order} LIMIT $rows",
        said | {"rows": MAX_ROWS},
    )


def totals(index: Source, query: LogQuery) -> dict[str, int]:
    """The number of events by verdict; records without a verdict by their action."""
    where, said = query.where()
    rows = index.ask(f"SELECT coalesce(verdict, action), sum(events) FROM lines WHERE {where} GROUP BY 1", said)
    return {verdict: int(events) for verdict, events in rows}


def choices(index: Source, facet: str) -> list[str]:
    """The values of a facet in the log, in order; of many the most frequent. Raises KeyError for what is no facet."""
    if facet not in FACETS:
        raise KeyError(facet)
    rows = index.ask(
        f'SELECT "{facet}" FROM lines WHERE "{facet}" IS NOT NULL GROUP BY 1 ORDER BY sum(events) DESC, 1 LIMIT $most',
        {"most": SUGGESTED},
    )
    return sorted(row[0] for row in rows)


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


def _records(
    rows: Sequence[tuple[Any, ...]] | Iterator[tuple[Any, ...]], more: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield dict(zip((*SHOWN, *more), row, strict=True))
