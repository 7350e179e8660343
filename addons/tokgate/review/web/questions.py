"""What the page asks of the index: counts, rankings, lines. Everything that was typed is a parameter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tokgate.blocklog.coverage import Share
from tokgate.review.buckets import Buckets, buckets
from tokgate.review.coverage import added_up
from tokgate.review.index import Index
from tokgate.review.web.look import PAGE_ROWS, About, Look

RANKED: Final = ("client", "name", "user", "network", "ban", "service", "signal", "action", "reason")
"""What the overview counts by."""
TOP: Final = 10
MAX_ROWS: Final = 100_000
"""Most rows that one download has."""
SHOWN: Final = (
    "time", "verdict", "action", "client", "user", "name", "destination_ip", "network", "ban", "service", "rule",
    "signal", "reason", "exemption", "events", "first_time", "last_time", "gateway", "policy", "event_id",
)  # fmt: skip
"""The columns of a line, on the page and in a download."""
VERDICTS: Final = ("block", "warn", "monitor", "allow")
_COLUMN: Final = {"name": "target"}


@dataclass(frozen=True, slots=True)
class Count:
    """How often a value was met, when first and last; `value` is None where lines say none."""

    value: str | None
    events: int
    first: datetime | None
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The most frequent values of a facet; `keys` is how many there are, `other` counts the events of the rest."""

    facet: str
    rows: tuple[Count, ...]
    keys: int
    other: int

    @property
    def said(self) -> bool:
        """Whether any line says one."""
        return any(row.value is not None for row in self.rows)


@dataclass(frozen=True, slots=True)
class Overview:
    """What the first page says."""

    records: int
    events: int
    verdicts: dict[str, int]
    clients: int
    names: int
    first: datetime | None
    last: datetime | None
    pieces: Buckets | None
    over_time: dict[str, list[int]]
    rankings: tuple[Ranking, ...]
    dropped: int
    unreadable: int
    coverage: dict[str, Share]
    """By network: how much of all traffic in that time showed a name."""


@dataclass(frozen=True, slots=True)
class Lines:
    """A page of lines, newest first; `total` is how many there are, `upto` the last that was there."""

    rows: tuple[dict[str, Any], ...]
    total: int
    upto: int


def overview(index: Index, look: Look) -> Overview:
    """Counts of everything that a look accepts."""
    where, said = look.where()
    records, events, clients, names, first, last = index.ask(
        "SELECT count(*), coalesce(sum(events), 0), count(DISTINCT client), count(DISTINCT target), min(first_time), "
        f"max(last_time) FROM lines WHERE {where}",
        said,
    )[0]
    unreadable, dropped = index.ask(
        "SELECT count(*) FILTER (NOT readable), coalesce(sum(dropped) FILTER (readable), 0) FROM lines "
        "WHERE NOT readable OR dropped IS NOT NULL"
    )[0]
    pieces, over_time = over(index, look, first, last)
    verdicts = {verdict: sum(numbers) for verdict, numbers in over_time.items()}
    return Overview(
        records=records, events=int(events), verdicts=verdicts, clients=clients, names=names, first=first, last=last,
        pieces=pieces, over_time=over_time, rankings=tuple(ranking(index, look, facet) for facet in RANKED),
        dropped=int(dropped), unreadable=unreadable, coverage=coverage(index, look),
    )  # fmt: skip


def coverage(index: Index, look: Look) -> dict[str, Share]:
    """What could be seen in the time that is looked at; of the filters only the network applies to it."""
    where, said = Look(since=look.since, until=look.until, about=About.TOKGATE).where()
    rows = index.ask(
        f"SELECT CAST(coverage AS VARCHAR), count(*) FROM lines WHERE coverage IS NOT NULL AND {where} GROUP BY 1", said
    )
    network = look.value("network")
    return {name: Share(seen) for name, seen in added_up(rows).items() if network in ("", name)}


def over(
    index: Index, look: Look, first: datetime | None, last: datetime | None
) -> tuple[Buckets | None, dict[str, list[int]]]:
    """Events by verdict in equal pieces of the time that is looked at, or that there is."""
    where, said = look.where()
    (edges,) = index.ask(f"SELECT min(time), max(time) FROM lines WHERE {where}", said)
    if first is None or last is None or edges[0] is None:
        return None, {}
    start = edges[0] if look.since is None else naive(look.since.to_stdlib())
    end = edges[1] + timedelta(microseconds=1) if look.until is None else naive(look.until.to_stdlib())
    pieces = buckets(start, max(end, start + timedelta(minutes=1)))
    place = {piece: number for number, piece in enumerate(pieces.starts)}
    counts = {verdict: [0] * len(place) for verdict in VERDICTS}
    rows = index.ask(
        f"SELECT date_trunc('{pieces.unit}', time), coalesce(verdict, action), sum(events) FROM lines WHERE {where} "
        "AND time IS NOT NULL GROUP BY ALL",
        said,
    )
    for piece, verdict, events in rows:
        if piece in place:
            counts.setdefault(verdict, [0] * len(place))[place[piece]] = int(events)
    return pieces, {verdict: numbers for verdict, numbers in counts.items() if any(numbers)}


def ranking(index: Index, look: Look, facet: str, top: int = TOP) -> Ranking:
    """The most frequent values of a facet."""
    if facet not in RANKED:
        raise KeyError(facet)
    where, said = look.where()
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
    return Ranking(facet, counts, keys, events - sum(count.events for count in counts))


def lines(index: Index, look: Look) -> Lines:
    """The page of lines that a look names."""
    where, said = look.where()
    total, upto = index.ask(f"SELECT count(*), coalesce(max(n), 0) FROM lines WHERE {where}", said)[0]
    rows = index.ask(
        f"SELECT {_shown()}, message FROM lines WHERE {where} "
        "ORDER BY time DESC, rowid DESC LIMIT $rows OFFSET $skipped",
        said | {"rows": PAGE_ROWS, "skipped": PAGE_ROWS * (look.page - 1)},
    )
    return Lines(tuple(_records(rows, ("message",))), total, upto if look.upto is None else look.upto)


def newest(index: Index, look: Look, rows: int) -> list[dict[str, Any]]:
    """The last lines, newest first."""
    where, said = look.where()
    found = index.ask(
        f"SELECT {_shown()}, message FROM lines WHERE {where} ORDER BY time DESC, rowid DESC LIMIT $rows",
        said | {"rows": rows},
    )
    return list(_records(found, ("message",)))


def after(index: Index, look: Look, n: int, rows: int) -> list[dict[str, Any]]:
    """The lines that came after the `n`th, in their order, as many as `rows`; with `n`, to go on from."""
    where, said = look.where()
    found = index.ask(
        f"SELECT {_shown()}, message, n FROM lines WHERE n > $n AND {where} ORDER BY n LIMIT $rows",
        said | {"n": n, "rows": rows},
    )
    return list(_records(found, ("message", "n")))


def last_line(index: Index) -> int:
    """The number of the line that came last."""
    return int(index.ask("SELECT coalesce(max(n), 0) FROM lines")[0][0])


def download(index: Index, look: Look) -> list[tuple[Any, ...]]:
    """The rows of a download: what the pages of lines show, one after the other."""
    where, said = look.where()
    return index.ask(
        f"SELECT {_shown()} FROM lines WHERE {where} ORDER BY time DESC, rowid DESC LIMIT $rows",
        said | {"rows": MAX_ROWS},
    )


def choices(index: Index, facet: str) -> list[str]:
    """The values of a facet that the whole log has, for facets that have few."""
    if facet not in ("verdict", "action", "network", "ban", "service", "signal", "reason", "exemption", "gateway"):
        raise KeyError(facet)
    rows = index.ask(f'SELECT DISTINCT "{facet}" FROM lines WHERE "{facet}" IS NOT NULL ORDER BY 1 LIMIT 200')
    return [row[0] for row in rows]


def naive(at: datetime) -> datetime:
    """As DuckDB gives instants: UTC, without saying so."""
    return at.replace(tzinfo=None)


def _shown() -> str:
    return ", ".join("CAST(event_id AS VARCHAR)" if name == "event_id" else f'"{name}"' for name in SHOWN)


def _records(
    rows: Sequence[tuple[Any, ...]] | Iterator[tuple[Any, ...]], more: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield dict(zip((*SHOWN, *more), row, strict=True))
