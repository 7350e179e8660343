"""The data of a report: the page's counts over a period, what only a report tells, and what it says of each ban.

Bans are told from the policy files, or without these from the log's records. The log is read in one pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from whenever import Instant

from tokgate.analytics import counts
from tokgate.analytics.counts import VERDICTS, Buckets, Ranking, Totals, buckets
from tokgate.analytics.sql import Chosen, Engine, utc_text
from tokgate.analytics.summary import ABSENT
from tokgate.blocklog.records.coverage import Share, share_of
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import Snapshot, Track

HELD: Final = "held past its end"
"""The phase of a ban that blocks although its time is over."""


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """A ban in one phase from `start` until `end`, in UTC without `tzinfo`; `zone` is that of the ban's networks."""

    phase: str
    start: datetime
    end: datetime
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class BanPhases:
    """The phases of one ban within the period, in order of time; `exempt`: its exemptions by their names."""

    ban: str
    title: str
    spans: tuple[PhaseSpan, ...]
    exempt: tuple[PhaseSpan, ...] = ()


type _PhaseStart = tuple[datetime, str]
"""When a phase begins, and its name."""


def phases_of_policy(snapshot: Snapshot, start: datetime, end: datetime) -> list[BanPhases]:
    """The bans of a policy with a phase in the period. A ban in several zones has the times of the first zone."""
    lanes: dict[str, BanPhases] = {}
    for track in snapshot.tracks:
        holes = [
            PhaseSpan(name, first, last)
            for name, span in track.exemptions.items()
            if (first := max(_utc(span.start), start)) < (last := min(_utc(span.end), end))
        ]
        lane = BanPhases(track.ban.name, track.ban.title, _spans(_changes(track), start, end), tuple(holes))
        if lane.spans:
            lanes.setdefault(lane.ban, lane)
    return list(lanes.values())


def phases_of_log(
    changes: Iterable[tuple[str, datetime, str, str | None]], start: datetime, end: datetime
) -> list[BanPhases]:
    """The bans of the log's phase changes: (ban, due, phase, phase before), in order of time."""
    by_ban: dict[str, list[_PhaseStart]] = {}
    for ban, due, phase, before in changes:
        known = by_ban.setdefault(ban, [] if before is None else [(datetime.min, before)])
        known.append((due, phase))
    return [BanPhases(ban, ban, found) for ban, known in by_ban.items() if (found := _spans(known, start, end))]


def _changes(track: Track) -> list[_PhaseStart]:
    return [(_utc(change.at), HELD if change.overdue else change.phase.value) for change in track.schedule.changes]


def _spans(changes: Sequence[_PhaseStart], start: datetime, end: datetime) -> tuple[PhaseSpan, ...]:
    found = []
    for number, (at, phase) in enumerate(changes):
        until = changes[number + 1][0] if number + 1 < len(changes) else datetime.max
        first, last = max(at, start), min(until, end)
        if first < last and phase != Phase.EXPIRED:
            found.append(PhaseSpan(phase, first, last))
    return tuple(found)


def _utc(at: Instant) -> datetime:
    """UTC without `tzinfo`, as DuckDB returns instants; clamped to what datetime can hold."""
    if at <= Instant.from_utc(1, 1, 2):
        return datetime.min
    return datetime.max if at >= Instant.from_utc(9999, 12, 30) else at.to_stdlib().replace(tzinfo=None)


_MOST_PREFIXES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A network by its name and what makes a client one of it; `without`: who is none of it all the same."""

    name: str
    members: tuple[str, ...] = ()
    devices: int = 0
    users: int = 0
    groups: int = 0
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BanFacts:
    """One ban. What isn't known is None or empty."""

    name: str
    title: str
    authority: str | None = None
    basis: str | None = None
    reason: str | None = None
    reference: str | None = None
    phases: tuple[PhaseSpan, ...] = ()
    """Whole, until datetime.max if until lifted."""
    scope: tuple[Scope, ...] = ()
    services: tuple[str, ...] = ()


def facts_of_policy(snapshot: Snapshot, wanted: Iterable[str]) -> list[BanFacts]:
    """The bans with these names, as the policy states them, in its order. Raises nothing for others."""
    names, found = set(wanted), dict[str, BanFacts]()
    for track in snapshot.tracks:
        ban, policy = track.ban, snapshot.policy
        if ban.name not in names:
            continue
        spans = _spans(_changes(track), datetime.min, datetime.max)
        phases = tuple(replace(span, zone=track.zone) for span in spans if span.start > datetime.min)
        if (known := found.get(ban.name)) is not None:  # the same ban in another zone
            found[ban.name] = replace(known, phases=(*known.phases, *phases))
            continue
        found[ban.name] = BanFacts(
            name=ban.name,
            title=ban.title,
            authority=ban.authority,
            basis=ban.basis,
            reason=ban.reason,
            reference=ban.reference,
            phases=phases,
            scope=tuple(_scope(policy.networks[name]) for name in ban.networks),
            services=tuple(policy.services[name].title or name for name in ban.services) or (ban.what,),
        )
    return list(found.values())


def facts_of_log(rows: Iterable[Mapping[str, Any]]) -> list[BanFacts]:
    """The bans of rows with `ban`, `authority`, `basis`, `until`, `networks` and `services`."""
    return [
        BanFacts(
            name=row["ban"],
            title=row["ban"],
            authority=row["authority"],
            basis=row["basis"],
            scope=tuple(Scope(name=name) for name in row["networks"] or ()),
            services=tuple(row["services"] or ()),
        )
        for row in rows
    ]


def _scope(network: Network) -> Scope:
    more = ("…",) if len(network.cidrs) > _MOST_PREFIXES else ()
    return Scope(
        name=network.name,
        members=(*map(str, network.cidrs[:_MOST_PREFIXES]), *more, *network.networks),
        devices=len(network.devices),
        users=len(network.users),
        groups=len(network.groups),
        without=(*map(str, network.except_cidrs), *network.except_networks),
    )


TOP: Final = 15
REPEATED_DAYS: Final = 3
"""Different days on which a client must have been refused to count as one that tries repeatedly."""
type Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the log holds about a period `[start, end)`; instants are UTC, without `tzinfo`."""

    start: datetime
    end: datetime
    log_start: datetime | None
    log_end: datetime | None
    totals: Totals
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
    coverage: dict[str, Share]
    gateways: tuple[str, ...]
    bans: frozenset[str]
    ban_rows: tuple[Record, ...] = ()
    """What the log's records say of each ban."""
    least: int = 1
    """Fewest clients that a count is shown for; 1 unless the log has pseudonyms."""

    @property
    def verdicts(self) -> dict[str, int]:
        return {verdict: sum(numbers) for verdict, numbers in self.over_time.items()}

    @property
    def share(self) -> Share:
        """The share of all counted traffic that showed a name."""
        return share_of({network: share.seen for network, share in self.coverage.items()})

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
) -> ReportData:
    """Query the log. Under pseudonyms, counts of fewer clients than `small_groups` are withheld.

    Without `start` or `end` the period is the log's span in whole days, or today. Raises LogError.
    """
    ((log_start, log_end, unreadable),) = log.ask(
        """SELECT min("first_time") FILTER (readable), max("last_time") FILTER (readable),
            count(*) FILTER (NOT readable) FROM wanted"""
    )
    stated = None if end is None else datetime.fromisoformat(utc_text(end))
    today = datetime.fromisoformat(utc_text(now))
    first = _midnight(log_start or stated or today) if start is None else datetime.fromisoformat(utc_text(start))
    last = max(stated or _midnight(log_end or first) + timedelta(days=1), first + timedelta(hours=1))
    pieces = buckets(first, last)
    bounds = {"start": first, "end": last}
    log.ask(_LINES.format(unit=pieces.unit), bounds)
    ((disguised,),) = log.ask(_DISGUISED)
    least = small_groups if disguised else 1
    log.ask(_STATE)
    ((dropped,),) = log.ask("SELECT coalesce(sum(dropped), 0) FROM state WHERE time >= $start AND time < $end", bounds)
    clients: dict[datetime, int] = dict(
        log.ask(f"SELECT time, count(DISTINCT client) FROM lines WHERE {_IN_PERIOD.where} GROUP BY 1")
    )
    new = [row for row in _records(log, _NEW_CLIENTS, {"least": least}) if row["client"] != ABSENT]
    return ReportData(
        start=first, end=last, log_start=log_start, log_end=log_end,
        totals=counts.totals(log, _IN_PERIOD), dropped=int(dropped), unreadable=unreadable + len(log.damage),
        buckets=pieces, over_time=counts.over_time(log, _IN_PERIOD, pieces),
        clients_over_time=[clients.get(start, 0) for start in pieces.starts],
        networks=_ranking(log, "network", least), by_name=_ranking(log, "target", least),
        by_client=counts.ranking(log, _IN_PERIOD, "client", TOP, verdicts=VERDICTS),
        signals=_ranking(log, "signal", least), visibilities=_ranking(log, "visibility", least),
        repeated=_records(log, _REPEATED, {"least": least, "days": REPEATED_DAYS, "top": TOP}),
        new_clients=tuple(new[:TOP]), new_count=len(new),
        exemptions=_records(log, _EXEMPTIONS), policies=_records(log, _POLICIES, bounds),
        phase_changes=_records(log, _PHASES, bounds), incidents=_records(log, _INCIDENTS, bounds),
        coverage=counts.coverage(log, Chosen("time >= $start AND time < $end", bounds), "state"),
        gateways=tuple(row[0] for row in log.ask(_GATEWAYS)),
        bans=frozenset(row[0] for row in log.ask(_BANS)),
        ban_rows=_records(log, _BAN_FACTS, bounds),
        least=least,
    )  # fmt: skip


_IN_PERIOD: Final = Chosen("in_period")
_LINES: Final = """CREATE OR REPLACE TEMP TABLE lines AS
    WITH marked AS (SELECT *, "time" >= $start AND "time" < $end AS in_period FROM events
        WHERE traffic AND "time" < $end)
    SELECT in_period, coalesce(client, '-') AS client,
        CASE WHEN in_period THEN date_trunc('{unit}', "time") END AS "time",
        CASE WHEN in_period THEN CAST("time" AS DATE) END AS day,
        CASE WHEN in_period THEN coalesce(network, '-') END AS network,
        CASE WHEN in_period THEN coalesce(target, '-') END AS target,
        CASE WHEN in_period THEN coalesce(signal, '-') END AS signal,
        CASE WHEN in_period THEN coalesce(visibility, '-') END AS visibility,
        CASE WHEN in_period THEN coalesce(verdict, '-') END AS verdict,
        CASE WHEN in_period THEN action END AS action,
        CASE WHEN in_period THEN ban END AS ban,
        CASE WHEN in_period THEN exemption END AS exemption,
        CASE WHEN in_period THEN exemption_reason END AS exemption_reason,
        CASE WHEN in_period THEN exemption_until END AS exemption_until,
        CASE WHEN in_period THEN policy END AS policy,
        CASE WHEN in_period THEN gateway END AS gateway,
        sum(events) AS events, min(first_time) AS first_time, max(last_time) AS last_time
    FROM marked GROUP BY ALL"""
_STATE: Final = "CREATE OR REPLACE TEMP TABLE state AS SELECT * FROM events WHERE NOT traffic"
_BAN_FACTS: Final = """SELECT ban, any_value(authority) AS authority, any_value(basis) AS basis,
        list(DISTINCT network) FILTER (network IS NOT NULL) AS networks,
        list(DISTINCT service) FILTER (service IS NOT NULL) AS services
    FROM events WHERE ban IS NOT NULL AND "time" >= $start AND "time" < $end GROUP BY 1 ORDER BY 1"""
_CASE: Final = """SELECT "time", client, message, event_id, sequence, events, network, action, rule_title,
        coalesce(name, destination_ip, '–') AS what FROM events
    WHERE traffic AND "time" >= $start AND "time" < $end ORDER BY "time", CAST(event_id AS VARCHAR) LIMIT $most"""
_DISGUISED: Final = """SELECT count(*) FROM lines
    WHERE in_period AND regexp_full_match(client, 'p[0-9]+-[a-z2-7]{16}|withheld')"""
_MOST: Final = """WITH shared AS (SELECT target FROM lines WHERE in_period GROUP BY 1
        HAVING count(DISTINCT client) >= $least),
    tried AS (SELECT client, target, sum(events) AS tries FROM lines WHERE in_period{more} GROUP BY ALL),
    most_tried AS (SELECT client, arg_max(target, (tries, target)) AS most FROM tried
        WHERE target IN (SELECT target FROM shared) GROUP BY 1)"""
_REPEATED: Final = (
    _MOST.format(more=" AND verdict = 'block'")
    + """
    SELECT client, string_agg(DISTINCT network, ', ') AS network, count(DISTINCT day) AS days, sum(events) AS events,
        count(DISTINCT target) AS names, any_value(most) AS most, min(first_time) AS first, max(last_time) AS last
    FROM lines LEFT JOIN most_tried USING (client) WHERE in_period AND verdict = 'block' GROUP BY client
    HAVING days >= $days ORDER BY days DESC, events DESC, client LIMIT $top"""
)
_NEW_CLIENTS: Final = (
    _MOST.format(more="")
    + """
    SELECT client, string_agg(DISTINCT network, ', ') AS network, sum(events) AS events, any_value(most) AS most,
        min(first_time) AS first, max(last_time) AS last
    FROM lines LEFT JOIN most_tried USING (client) GROUP BY client HAVING bool_and(in_period)
    ORDER BY first, client"""
)
_EXEMPTIONS: Final = """SELECT exemption, any_value(ban) AS ban, any_value(exemption_reason) AS reason,
        max(exemption_until) AS until, count(DISTINCT client) AS clients, sum(events) AS events,
        min(first_time) AS first, max(last_time) AS last
    FROM lines WHERE in_period AND exemption IS NOT NULL AND verdict = 'allow' GROUP BY 1 ORDER BY events DESC, 1"""
_POLICIES: Final = """SELECT policy, min(first) AS first, max(last) AS last, sum(events) AS events FROM (
        SELECT policy, first_time AS first, last_time AS last, events FROM lines WHERE in_period UNION ALL
        SELECT policy, time, time, 0 FROM state WHERE time >= $start AND time < $end)
    WHERE policy IS NOT NULL GROUP BY 1 ORDER BY first, 1"""
_PHASES: Final = """SELECT due, ban, transition, phase, phase_before, exemption, networks, message, count(*) AS records
    FROM state WHERE action = 'phase-changed' AND due >= $start AND due < $end GROUP BY ALL ORDER BY due, ban"""
_INCIDENTS: Final = """SELECT action, count(*) AS records, min(time) AS first, max(time) AS last,
        sum(coalesce(dropped, 0)) AS dropped FROM state WHERE time >= $start AND time < $end AND action IN
        ('started', 'stopped', 'policy-loaded', 'policy-load-failed', 'ban-near-expiry', 'log-gap', 'log-recovered',
         'log-foreign', 'log-cut', 'clock-set-back', 'clock-set-forward',
         'gateway-differs', 'canary-failed', 'internal-error') GROUP BY 1 ORDER BY 1"""
_GATEWAYS: Final = "SELECT DISTINCT gateway FROM lines WHERE gateway IS NOT NULL ORDER BY 1"

_BANS: Final = "SELECT DISTINCT ban FROM lines WHERE ban IS NOT NULL"


def case_records(log: Engine, found: ReportData, most: int) -> tuple[Record, ...]:
    """The records about traffic in the report's period, in order of time; at most so many. Raises LogError."""
    return _records(log, _CASE, {"start": found.start, "end": found.end, "most": most})


def _midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _records(log: Engine, sql: str, parameters: Mapping[str, Any] | None = None) -> tuple[Record, ...]:
    answer = log.answer(sql, parameters)
    return tuple(dict(zip(answer.columns, row, strict=True)) for row in answer.rows)


def _ranking(log: Engine, column: str, least: int) -> Ranking:
    return counts.ranking(log, _IN_PERIOD, column, TOP, least=least)
