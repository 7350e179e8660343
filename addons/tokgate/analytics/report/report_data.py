"""The data of a report: one pass over the log's traffic records and one over its records about tokgate itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from whenever import Instant

from tokgate.analytics.coverage import sum_coverage
from tokgate.analytics.filter_sql import utc_text
from tokgate.analytics.report.time_buckets import Buckets, buckets
from tokgate.analytics.sql import Engine, Progress
from tokgate.analytics.summary import ABSENT
from tokgate.blocklog.records.coverage import Share, share_of

TOP: Final = 15
REPEATED_DAYS: Final = 3
"""Different days on which a client must have been refused to count as one that tries repeatedly."""
VERDICTS: Final = ("block", "warn", "monitor", "allow")

type Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The most frequent values: rows with `key`, `events`, `first`, `last`; `keys` counts all values."""

    rows: tuple[Record, ...]
    keys: int
    other: int


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the log holds about a period `[start, end)`; instants are UTC, without `tzinfo`."""

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
    repeated: tuple[Record, ...]
    new_clients: tuple[Record, ...]
    new_count: int
    exemptions: tuple[Record, ...]
    policies: tuple[Record, ...]
    phase_changes: tuple[Record, ...]
    incidents: tuple[Record, ...]
    coverage: dict[str, dict[str, int]]
    gateways: tuple[str, ...]
    bans: frozenset[str]
    ban_rows: tuple[Record, ...] = ()
    """What the log's records say of each ban."""
    least: int = 1
    """Fewest clients that a count is shown for; 1 unless the log has pseudonyms."""

    @property
    def events(self) -> int:
        """Events of all verdicts in the period."""
        return sum(self.verdicts.values())

    @property
    def share(self) -> Share:
        """The share of all counted traffic that showed a name."""
        return share_of(self.coverage)

    @property
    def shares(self) -> dict[str, Share]:
        return {network: Share(seen) for network, seen in self.coverage.items()}

    @property
    def has_earlier_records(self) -> bool:
        """Whether the log begins before the period, without which no client is known to be new."""
        return self.log_start is not None and self.log_start < self.start


def collect(
    log: Engine,
    start: Instant | None,
    end: Instant | None,
    now: Instant,
    *,
    small_groups: int = 1,
    progress: Progress | None = None,
) -> ReportData:
    """Query the log. Under pseudonyms, counts of fewer clients than `small_groups` are withheld.

    Without `start` or `end` the period is the log's span in whole days, or today. Raises LogError.
    """
    log_start, log_end, unreadable = log.one(
        """SELECT min("first_time") FILTER (readable), max("last_time") FILTER (readable),
            count(*) FILTER (NOT readable) FROM wanted""",
        progress=progress,
    )
    first, last = _period(start, end, log_start, log_end, datetime.fromisoformat(utc_text(now)))
    pieces = buckets(first, last)
    bounds = [first, last]
    log.do(_ATTEMPTS.format(unit=pieces.unit), bounds, progress=progress)
    log.do(_STATE, progress=progress)
    verdicts = {verdict: int(count) for verdict, count in _rows(log, _VERDICTS)}
    clients, names = log.one("SELECT count(DISTINCT client), count(DISTINCT target) FROM attempts WHERE in_period")
    (dropped,) = log.one("SELECT coalesce(sum(dropped), 0) FROM state WHERE time >= ? AND time < ?", bounds)
    (disguised,) = log.one(_DISGUISED)
    least = small_groups if disguised else 1
    over_time, clients_over_time = _over_time(log, pieces)
    new = _new_clients(log, least)
    return ReportData(
        start=first, end=last, log_start=log_start, log_end=log_end,
        verdicts=verdicts, clients=clients, names=names, dropped=int(dropped),
        unreadable=unreadable + len(log.damage),
        buckets=pieces, over_time=over_time, clients_over_time=clients_over_time,
        networks=_ranking(log, "network", least), by_client=_ranking(log, "client", more=_BY_VERDICT),
        by_name=_ranking(log, "target", least),
        signals=_ranking(log, "signal", least), visibilities=_ranking(log, "visibility", least),
        repeated=_records(log, _REPEATED, [least, REPEATED_DAYS, TOP]),
        new_clients=new[:TOP], new_count=len(new),
        exemptions=_records(log, _EXEMPTIONS), policies=_records(log, _POLICIES, bounds),
        phase_changes=_records(log, _PHASES, bounds), incidents=_records(log, _INCIDENTS, bounds),
        coverage=sum_coverage(_rows(log, _COVERAGE, bounds)),
        gateways=tuple(row[0] for row in _rows(log, _GATEWAYS)),
        bans=frozenset(row[0] for row in _rows(log, _BANS)),
        ban_rows=_records(log, _BAN_FACTS, bounds),
        least=least,
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
_BY_VERDICT: Final = "".join(
    f""", coalesce(sum(attempts.events) FILTER (verdict = '{verdict}'), 0) AS "{verdict}\"""" for verdict in VERDICTS
)
_BAN_FACTS: Final = """SELECT ban, any_value(authority) AS authority, any_value(basis) AS basis,
        list(DISTINCT network) FILTER (network IS NOT NULL) AS networks,
        list(DISTINCT service) FILTER (service IS NOT NULL) AS services
    FROM events WHERE ban IS NOT NULL AND "time" >= ? AND "time" < ? GROUP BY 1 ORDER BY 1"""
_CASE: Final = """SELECT "time", client, message, event_id, events FROM events
    WHERE traffic AND "time" >= ? AND "time" < ? ORDER BY "time", CAST(event_id AS VARCHAR) LIMIT ?"""
_DISGUISED: Final = """SELECT count(*) FROM attempts
    WHERE in_period AND regexp_full_match(client, 'p[0-9]+-[a-z2-7]{16}|withheld')"""
_MOST: Final = """WITH shared AS (SELECT target FROM attempts WHERE in_period GROUP BY 1
        HAVING count(DISTINCT client) >= ?),
    tried AS (SELECT client, target, sum(events) AS tries FROM attempts WHERE in_period{more} GROUP BY ALL),
    most_tried AS (SELECT client, arg_max(target, (tries, target)) AS most FROM tried
        WHERE target IN (SELECT target FROM shared) GROUP BY 1)"""
_VERDICTS: Final = "SELECT verdict, sum(events) FROM attempts WHERE in_period GROUP BY 1"
_REPEATED: Final = (
    _MOST.format(more=" AND verdict = 'block'")
    + """
    SELECT client, string_agg(DISTINCT network, ', ') AS network, count(DISTINCT day) AS days, sum(events) AS events,
        count(DISTINCT target) AS names, any_value(most) AS most, min(first) AS first, max(last) AS last
    FROM attempts LEFT JOIN most_tried USING (client) WHERE in_period AND verdict = 'block' GROUP BY client
    HAVING days >= ? ORDER BY days DESC, events DESC, client LIMIT ?"""
)
_NEW_CLIENTS: Final = (
    _MOST.format(more="")
    + """
    SELECT client, string_agg(DISTINCT network, ', ') AS network, sum(events) AS events, any_value(most) AS most,
        min(first) AS first, max(last) AS last
    FROM attempts LEFT JOIN most_tried USING (client) GROUP BY client HAVING bool_and(in_period)
    ORDER BY first, client"""
)
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
         'log-foreign', 'log-cut', 'clock-set-back', 'clock-set-forward',
         'gateway-differs', 'canary-failed', 'internal-error') GROUP BY 1 ORDER BY 1"""
_COVERAGE: Final = """SELECT coverage, count(*) FROM state WHERE coverage IS NOT NULL AND time >= ? AND time < ?
    GROUP BY 1"""
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


def case_records(log: Engine, found: ReportData, most: int) -> tuple[Record, ...]:
    """The records about traffic in the report's period, in order of time; at most so many. Raises LogError."""
    return _records(log, _CASE, [found.start, found.end, most])


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _rows(log: Engine, sql: str, parameters: object = None) -> list[tuple[Any, ...]]:
    return list(log.answer(sql, parameters).rows)


def _records(log: Engine, sql: str, parameters: object = None) -> tuple[Record, ...]:
    answer = log.answer(sql, parameters)
    return tuple(dict(zip(answer.columns, row, strict=True)) for row in answer.rows)


def _ranking(log: Engine, column: str, least: int = 1, more: str = "") -> Ranking:
    """The most frequent values; those of fewer than `least` clients are among the others. `more` are more columns."""
    grouped = f"SELECT {column} AS key, sum(events) AS events, min(first) AS first, max(last) AS last{more}"
    shown = f"GROUP BY 1 HAVING count(DISTINCT client) >= {least} ORDER BY 2 DESC, 1 LIMIT {TOP}"
    rows = _records(log, f"{grouped} FROM attempts WHERE in_period {shown}")
    keys, events = log.one(f"SELECT count(DISTINCT {column}), coalesce(sum(events), 0) FROM attempts WHERE in_period")
    return Ranking(rows, keys, int(events) - sum(int(row["events"]) for row in rows))


def _over_time(log: Engine, pieces: Buckets) -> tuple[dict[str, list[int]], list[int]]:
    place = {start: number for number, start in enumerate(pieces.starts)}
    counts = {verdict: [0] * len(place) for verdict in VERDICTS}
    for start, verdict, events in _rows(
        log, "SELECT piece, verdict, sum(events) FROM attempts WHERE in_period GROUP BY 1, 2"
    ):
        counts.setdefault(verdict, [0] * len(place))[place[start]] = int(events)
    clients = [0] * len(place)
    for start, number in _rows(log, "SELECT piece, count(DISTINCT client) FROM attempts WHERE in_period GROUP BY 1"):
        clients[place[start]] = number
    return {verdict: numbers for verdict, numbers in counts.items() if any(numbers)}, clients


def _new_clients(log: Engine, least: int) -> tuple[Record, ...]:
    """Clients without a record before the period."""
    return tuple(record for record in _records(log, _NEW_CLIENTS, [least]) if record["client"] != ABSENT)
