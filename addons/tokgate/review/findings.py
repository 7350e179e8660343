"""What a report says, asked of the log in one reading of its traffic and one of its records about tokgate itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.coverage import Share, share_of
from tokgate.review.buckets import Buckets, buckets
from tokgate.review.candidates import Candidate, gathered
from tokgate.review.conditions import utc_text
from tokgate.review.coverage import added_up
from tokgate.review.engine import Review
from tokgate.review.sql import Progress
from tokgate.review.summary import ABSENT

TOP: Final = 15
OFFENDER_DAYS: Final = 3
"""Different days on which a client must have been refused to count as a repeated offender."""
VERDICTS: Final = ("block", "warn", "monitor", "allow")

type Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The most frequent values: rows with `key`, `events`, `first`, `last`; `keys` is how many there are at all."""

    rows: tuple[Record, ...]
    keys: int
    other: int


@dataclass(frozen=True, slots=True)
class Findings:
    """All that the log has to say of a period `[start, end)`; instants are UTC."""

    start: datetime
    end: datetime
    log_start: datetime | None
    log_end: datetime | None
    verdicts: dict[str, int]
    clients: int
    names: int
    dropped: int
    unreadable: int
    buckets: Buckets
    over_time: dict[str, list[int]]
    clients_over_time: list[int]
    networks: Ranking
    by_client: Ranking
    by_name: Ranking
    signals: Ranking
    visibilities: Ranking
    offenders: tuple[Record, ...]
    new_clients: tuple[Record, ...]
    new_count: int
    exemptions: tuple[Record, ...]
    policies: tuple[Record, ...]
    phase_changes: tuple[Record, ...]
    incidents: tuple[Record, ...]
    coverage: dict[str, dict[str, int]]
    near_misses: tuple[Candidate, ...]
    gateways: tuple[str, ...]
    bans: frozenset[str]

    @property
    def events(self) -> int:
        """All of them."""
        return sum(self.verdicts.values())

    @property
    def share(self) -> Share:
        """What could be judged of all traffic that was counted."""
        return share_of(self.coverage)

    @property
    def shares(self) -> dict[str, Share]:
        """The same by network."""
        return {network: Share(seen) for network, seen in self.coverage.items()}

    @property
    def has_a_past(self) -> bool:
        """Whether the log reaches back before the period, so that `new` means something."""
        return self.log_start is not None and self.log_start < self.start


def find(
    review: Review, start: Instant | None, end: Instant | None, now: Instant, *, progress: Progress | None = None
) -> Findings:
    """Ask everything; without `start` or `end` the period is what the log spans, in whole days, or today."""
    log_start, log_end, unreadable = review.one(
        """SELECT min("first_time") FILTER (readable), max("last_time") FILTER (readable),
            count(*) FILTER (NOT readable) FROM wanted""",
        progress=progress,
    )
    first, last = _period(start, end, log_start, log_end, datetime.fromisoformat(utc_text(now)))
    pieces = buckets(first, last)
    bounds = [first, last]
    review.do(_ATTEMPTS.format(unit=pieces.unit), bounds, progress=progress)
    review.do(_STATE, progress=progress)
    verdicts = {verdict: int(count) for verdict, count in _rows(review, _VERDICTS)}
    clients, names = review.one("SELECT count(DISTINCT client), count(DISTINCT target) FROM attempts WHERE in_period")
    (dropped,) = review.one("SELECT coalesce(sum(dropped), 0) FROM state WHERE time >= ? AND time < ?", bounds)
    over_time, clients_over_time = _over_time(review, pieces)
    new = _new_clients(review)
    return Findings(
        start=first, end=last, log_start=log_start, log_end=log_end,
        verdicts=verdicts, clients=clients, names=names, dropped=int(dropped),
        unreadable=unreadable + len(review.damage),
        buckets=pieces, over_time=over_time, clients_over_time=clients_over_time,
        networks=_ranking(review, "network"), by_client=_ranking(review, "client"), by_name=_ranking(review, "target"),
        signals=_ranking(review, "signal"), visibilities=_ranking(review, "visibility"),
        offenders=_records(review, _OFFENDERS, [OFFENDER_DAYS, TOP]),
        new_clients=new[:TOP], new_count=len(new),
        exemptions=_records(review, _EXEMPTIONS), policies=_records(review, _POLICIES, bounds),
        phase_changes=_records(review, _PHASES, bounds), incidents=_records(review, _INCIDENTS, bounds),
        near_misses=gathered(_rows(review, _NEAR_MISSES, bounds)),
        coverage=added_up(_rows(review, _COVERAGE, bounds)),
        gateways=tuple(row[0] for row in _rows(review, _GATEWAYS)),
        bans=frozenset(row[0] for row in _rows(review, _BANS)),
    )  # fmt: skip


_ATTEMPTS: Final = """CREATE OR REPLACE TEMP TABLE attempts AS
    WITH marked AS (SELECT *, "time" >= $1 AND "time" < $2 AS in_period FROM events WHERE traffic AND "time" < $2)
    SELECT in_period, coalesce(client, '-') AS client,
        CASE WHEN in_period THEN date_trunc('{unit}', "time") END AS piece,
        CASE WHEN in_period THEN CAST("time" AS DATE) END AS day,
        CASE WHEN in_period THEN coalesce(network, '-') END AS network,
        CASE WHEN in_period THEN coalesce(target, '-') END AS target,
        CASE WHEN in_period THEN coalesce(signal, '-') END AS signal,
        CASE WHEN in_period THEN coalesce(visibility, '-') END AS visibility,
        CASE WHEN in_period THEN coalesce(verdict, '-') END AS verdict,
        CASE WHEN in_period THEN ban END AS ban,
        CASE WHEN in_period THEN exemption END AS exemption,
        CASE WHEN in_period THEN exemption_reason END AS exemption_reason,
        CASE WHEN in_period THEN exemption_until END AS exemption_until,
        CASE WHEN in_period THEN policy END AS policy,
        CASE WHEN in_period THEN gateway END AS gateway,
        sum(events) AS events, min(first_time) AS first, max(last_time) AS last
    FROM marked GROUP BY ALL"""
_STATE: Final = "CREATE OR REPLACE TEMP TABLE state AS SELECT * FROM events WHERE NOT traffic"
_VERDICTS: Final = "SELECT verdict, sum(events) FROM attempts WHERE in_period GROUP BY 1"
_OFFENDERS: Final = """SELECT client, string_agg(DISTINCT network, ', ') AS network, count(DISTINCT day) AS days,
        sum(events) AS events, count(DISTINCT target) AS names, mode(target) AS most,
        min(first) AS first, max(last) AS last
    FROM attempts WHERE in_period AND verdict = 'block' GROUP BY client HAVING days >= ?
    ORDER BY days DESC, events DESC, client LIMIT ?"""
_NEW_CLIENTS: Final = """SELECT client, string_agg(DISTINCT network, ', ') AS network, sum(events) AS events,
        mode(target) AS most, min(first) AS first, max(last) AS last
    FROM attempts GROUP BY client HAVING bool_and(in_period) ORDER BY first, client"""
_EXEMPTIONS: Final = """SELECT exemption, any_value(ban) AS ban, any_value(exemption_reason) AS reason,
        max(exemption_until) AS until, count(DISTINCT client) AS clients, sum(events) AS events, min(first) AS first,
        max(last) AS last
    FROM attempts WHERE in_period AND exemption IS NOT NULL AND verdict = 'allow' GROUP BY 1 ORDER BY events DESC, 1"""
_POLICIES: Final = """SELECT policy, min(first) AS first, max(last) AS last, sum(events) AS events FROM (
        SELECT policy, first, last, events FROM attempts WHERE in_period UNION ALL
        SELECT policy, time, time, 0 FROM state WHERE time >= $1 AND time < $2)
    WHERE policy IS NOT NULL GROUP BY 1 ORDER BY first, 1"""
_PHASES: Final = """SELECT due, ban, transition, phase, phase_before, exemption, networks, message, count(*) AS records
    FROM state WHERE action = 'phase-changed' AND due >= ? AND due < ? GROUP BY ALL ORDER BY due, ban"""
_INCIDENTS: Final = """SELECT action, count(*) AS records, min(time) AS first, max(time) AS last,
        sum(coalesce(dropped, 0)) AS dropped FROM state WHERE time >= ? AND time < ? AND action IN
        ('started', 'stopped', 'policy-loaded', 'policy-load-failed', 'ban-near-expiry', 'log-gap', 'log-recovered',
         'internal-error') GROUP BY 1 ORDER BY 1"""
_COVERAGE: Final = """SELECT coverage, count(*) FROM state WHERE coverage IS NOT NULL AND time >= ? AND time < ?
    GROUP BY 1"""
_NEAR_MISSES: Final = """SELECT near_misses, since, time FROM state
    WHERE near_misses IS NOT NULL AND time >= ? AND time < ?"""
_GATEWAYS: Final = "SELECT DISTINCT gateway FROM attempts WHERE gateway IS NOT NULL ORDER BY 1"

_BANS: Final = "SELECT DISTINCT ban FROM attempts WHERE ban IS NOT NULL"


def _period(
    start: Instant | None, end: Instant | None, log_start: datetime | None, log_end: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    day = timedelta(days=1)
    stated = None if end is None else datetime.fromisoformat(utc_text(end))
    first = _midnight(log_start or stated or now) if start is None else datetime.fromisoformat(utc_text(start))
    last = stated or _midnight(log_end or first) + day
    return first, max(last, first + timedelta(hours=1))


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _rows(review: Review, sql: str, parameters: object = None) -> list[tuple[Any, ...]]:
    return list(review.answer(sql, parameters).rows)


def _records(review: Review, sql: str, parameters: object = None) -> tuple[Record, ...]:
    answer = review.answer(sql, parameters)
    return tuple(dict(zip(answer.columns, row, strict=True)) for row in answer.rows)


def _ranking(review: Review, column: str) -> Ranking:
    grouped = f"SELECT {column} AS key, sum(events) AS events, min(first) AS first, max(last) AS last"
    rows = _records(review, f"{grouped} FROM attempts WHERE in_period GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP}")
    keys, events = review.one(
        f"SELECT count(DISTINCT {column}), coalesce(sum(events), 0) FROM attempts WHERE in_period"
    )
    return Ranking(rows, keys, int(events) - sum(int(row["events"]) for row in rows))


def _over_time(review: Review, pieces: Buckets) -> tuple[dict[str, list[int]], list[int]]:
    place = {start: number for number, start in enumerate(pieces.starts)}
    counts = {verdict: [0] * len(place) for verdict in VERDICTS}
    for start, verdict, events in _rows(
        review, "SELECT piece, verdict, sum(events) FROM attempts WHERE in_period GROUP BY 1, 2"
    ):
        counts.setdefault(verdict, [0] * len(place))[place[start]] = int(events)
    clients = [0] * len(place)
    for start, number in _rows(review, "SELECT piece, count(DISTINCT client) FROM attempts WHERE in_period GROUP BY 1"):
        clients[place[start]] = number
    return {verdict: numbers for verdict, numbers in counts.items() if any(numbers)}, clients


def _new_clients(review: Review) -> tuple[Record, ...]:
    """Clients that were never met before the period."""
    return tuple(record for record in _records(review, _NEW_CLIENTS) if record["client"] != ABSENT)
