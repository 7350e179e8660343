"""ClickHouse tables for a fleet's logs, as SQL generated from the columns of the view `events`.

`deploy/siem/clickhouse/schema.sql` is its output. Shippers insert lines unchanged; materialized views parse them.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from tokgate.analytics.columns import COLUMNS, Column, expression, structure
from tokgate.analytics.sql import quoted

RETENTION_DAYS: Final = 400
"""How long events are kept; whole days are deleted."""
SORTED_BY: Final = ("ban", "network", "client", "target", "time", "event_id", "hash")
"""Columns that people filter by come first: one client's rows adjoin and compress well. Ids make rows unique."""
FOUND_BY: Final = 5
"""How many of them are in the primary index, which is kept in memory; ids and hashes would only enlarge it."""

_TYPES: Final = {
    "VARCHAR": "Nullable(String)",
    "JSON": "Nullable(String)",
    "BIGINT": "Nullable(Int64)",
    "BOOLEAN": "Nullable(Bool)",
    "TIMESTAMP": "Nullable(DateTime64(6, 'UTC'))",
}
_FEW: Final = frozenset({
    "action", "verdict", "mode", "reason", "phase", "transport", "protocol", "network", "ban", "authority", "basis",
    "service", "rule", "signal", "response", "exemption", "exemption_reason", "stage", "visibility",
    "registered_domain", "target", "method", "url_scheme", "user_agent", "dns_type", "dns_code", "ja4", "outcome",
    "gateway", "worker", "version", "policy", "policy_replaced", "rule_title", "rule_reference", "transition",
    "phase_before", "networks", "chain",
})  # fmt: skip
"""Columns with few distinct values, stored as LowCardinality."""
_OWN: Final = {
    "time": "DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1))",
    "traffic": "Bool",
    "events": "Int64 CODEC(T64, ZSTD(1))",
    "first_time": "Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1))",
    "last_time": "Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1))",
    "event_id": "Nullable(UUID) CODEC(ZSTD(1))",
    "repeats_of": "Nullable(UUID) CODEC(ZSTD(1))",
    "message": "Nullable(String) CODEC(ZSTD(3))",
    "names": "Nullable(String) CODEC(ZSTD(3))",
    "sequence": "Nullable(Int64) CODEC(Delta, ZSTD(1))",
    "hash": "Nullable(String) CODEC(ZSTD(1))",
}
_ONCE: Final = "non_replicated_deduplication_window = 10000"
"""How many inserts a table remembers, to refuse what a shipper sends again; replicated tables do so by themselves."""
_IDS: Final = ("event_id", "repeats_of")
_SPAN: Final = {"first_time": "least", "last_time": "greatest"}
_ABSENT: Final = {"traffic": "false", "events": "1"}


def clickhouse_schema() -> str:
    """The SQL script that `tokgate schema clickhouse` prints."""
    return "\n".join((_HEAD, _events(), _unreadable(), _HOURLY, _DAILY, _VIEWS))


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, for clients that accept one statement at a time."""
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    yield from (part.strip() for part in f"{code}\n".split(";\n") if part.strip())


def _events() -> str:
    columns = ",\n".join(f"    {quoted(column.name)} {_type(column)}" for column in COLUMNS)
    values = ",\n".join(f"    {_value(column)} AS {quoted(column.name)}" for column in COLUMNS)
    return f"""\
-- One row a record: the columns of docs/log-queries.md, by the same names. Count with sum(events), not count().
CREATE TABLE IF NOT EXISTS tokgate.events
(
{columns},
    "file" LowCardinality(Nullable(String)),
    "received" DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1)),
    INDEX by_name "name" TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_id "event_id" TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_client "client" TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_received "received" TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree -- a line that a shipper sent twice becomes one row when parts merge
PARTITION BY toYYYYMMDD("time")
PRIMARY KEY ({", ".join(map(quoted, SORTED_BY[:FOUND_BY]))})
ORDER BY ({", ".join(map(quoted, SORTED_BY))})
TTL toDateTime("time") + INTERVAL {RETENTION_DAYS} DAY DELETE
SETTINGS allow_nullable_key = 1, ttl_only_drop_parts = 1, {_ONCE};

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.lines_to_events TO tokgate.events AS
SELECT
{values},
    nullIf("file", '') AS "file"
FROM (SELECT "file", JSONExtract("line", {_text(_tuple(structure()))}) AS r FROM tokgate.lines)
WHERE {_instant('r."@timestamp"')} IS NOT NULL;
"""


def _unreadable() -> str:
    names = ", ".join(quoted(column.name) for column in COLUMNS)
    absent = ", ".join(map(of_unreadable, COLUMNS))
    at = _instant("JSONExtract(\"line\", '@timestamp', 'Nullable(String)')")
    return f"""\
-- Lines that hold no record with a time, whole: what a crash tore, and what is no log.
CREATE TABLE IF NOT EXISTS tokgate.unreadable
(
    "line" String CODEC(ZSTD(3)),
    "file" LowCardinality(Nullable(String)),
    "received" DateTime('UTC') DEFAULT now('UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM("received")
ORDER BY "received"
TTL "received" + INTERVAL {RETENTION_DAYS} DAY DELETE
SETTINGS ttl_only_drop_parts = 1, {_ONCE};

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.lines_to_unreadable TO tokgate.unreadable AS
SELECT "line", nullIf("file", '') AS "file"
FROM tokgate.lines
WHERE {at} IS NULL;

-- Every line: what a summary reads.
CREATE VIEW IF NOT EXISTS tokgate.records AS
SELECT {names}, "file", true AS "readable" FROM tokgate.events
UNION ALL
SELECT {absent}, "file", false AS "readable" FROM tokgate.unreadable;
"""


def of_unreadable(column: Column) -> str:
    """SQL for a column's value in a row of a line that holds no record."""
    return f"{_ABSENT.get(column.name, 'NULL')} AS {quoted(column.name)}"


def _type(column: Column) -> str:
    if column.name in _FEW:
        return "LowCardinality(Nullable(String))"
    return _OWN.get(column.name, f"{_TYPES[column.type]} CODEC(ZSTD(1))")


def _value(column: Column) -> str:
    """SQL for a column over a line's tuple `r`. It differs from DuckDB's for instants and ids only."""
    if column.name in _SPAN:
        repeats, at = 'r."tokgate"."repeats"', 'r."@timestamp"'
        both = f'{_SPAN[column.name]}(coalesce({repeats}."first", {at}), coalesce({repeats}."last", {at}))'
        return f'if({repeats}."count" >= 1, {_instant(both)}, {_instant(at)})'
    if column.type == "TIMESTAMP":
        value = _instant(".".join(("r", *map(quoted, column.path))))
        return f"assumeNotNull({value})" if column.name == "time" else value
    value = re.sub(r'(?<![.\w])"[@\w]+"', lambda name: f"r.{name[0]}", expression(column))
    return f"toUUIDOrNull({value})" if column.name in _IDS else value


def _instant(text: str) -> str:
    return f"parseDateTime64BestEffortOrNull({text}, 6, 'UTC')"


def _tuple(tree: dict[str, Any]) -> str:
    """The ClickHouse type of `structure`."""
    parts = (f"`{key}` {_tuple(inner) if isinstance(inner, dict) else _TYPES[inner]}" for key, inner in tree.items())
    return f"Tuple({', '.join(parts)})"


def _text(sql: str) -> str:
    return "'" + sql.replace("\\", "\\\\").replace("'", "\\'") + "'"


_HEAD: Final = """\
-- A fleet's block logs in ClickHouse. Made by `tokgate schema clickhouse`; see README.md beside this file.
-- An insert that comes again as it was is refused, by every table: non_replicated_deduplication_window.
-- A cluster: ON CLUSTER, and ReplicatedReplacingMergeTree and ReplicatedAggregatingMergeTree for the engines.

CREATE DATABASE IF NOT EXISTS tokgate;

-- What shippers insert into: whole lines, as tokgate wrote them. Nothing is stored here.
CREATE TABLE IF NOT EXISTS tokgate.lines ("line" String, "file" String DEFAULT '') ENGINE = Null;
"""

_HOURLY: Final = f"""\
-- Counts by hour: dashboards and reports over years read this. Kept longer than the events: it names no client.
CREATE TABLE IF NOT EXISTS tokgate.hourly
(
    "hour" DateTime('UTC') CODEC(Delta, ZSTD(1)),
    "gateway" LowCardinality(Nullable(String)),
    "network" LowCardinality(Nullable(String)),
    "ban" LowCardinality(Nullable(String)),
    "service" LowCardinality(Nullable(String)),
    "phase" LowCardinality(Nullable(String)),
    "verdict" LowCardinality(Nullable(String)),
    "action" LowCardinality(Nullable(String)),
    "signal" LowCardinality(Nullable(String)),
    "reason" LowCardinality(Nullable(String)),
    "policy" LowCardinality(Nullable(String)),
    "events" SimpleAggregateFunction(sum, Int64),
    "records" SimpleAggregateFunction(sum, UInt64),
    "clients" AggregateFunction(uniq, Nullable(String)),
    "first" SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))),
    "last" SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC')))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM("hour")
ORDER BY ("ban", "network", "hour", "gateway", "service", "phase", "verdict", "action", "signal", "reason", "policy")
TTL "hour" + INTERVAL 1830 DAY DELETE
SETTINGS allow_nullable_key = 1, ttl_only_drop_parts = 1, {_ONCE};

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.events_to_hourly TO tokgate.hourly AS
SELECT toStartOfHour(e."time", 'UTC') AS "hour", e."gateway" AS "gateway", e."network" AS "network", e."ban" AS "ban",
    e."service" AS "service", e."phase" AS "phase", e."verdict" AS "verdict", e."action" AS "action",
    e."signal" AS "signal", e."reason" AS "reason", e."policy" AS "policy",
    sum(e."events") AS "events", count() AS "records", uniqState(e."client") AS "clients",
    min(e."first_time") AS "first", max(e."last_time") AS "last"
FROM tokgate.events AS e
WHERE e."traffic"
GROUP BY "hour", "gateway", "network", "ban", "service", "phase", "verdict", "action", "signal", "reason", "policy";
"""

_DAILY: Final = f"""\
-- Who asked for what, by day: repeated attempts, new clients and names, without reading events. Names clients.
CREATE TABLE IF NOT EXISTS tokgate.daily
(
    "day" Date,
    "client" Nullable(String) CODEC(ZSTD(1)),
    "target" LowCardinality(Nullable(String)),
    "ban" LowCardinality(Nullable(String)),
    "network" LowCardinality(Nullable(String)),
    "verdict" LowCardinality(Nullable(String)),
    "events" SimpleAggregateFunction(sum, Int64),
    "first" SimpleAggregateFunction(min, Nullable(DateTime64(6, 'UTC'))),
    "last" SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC')))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM("day")
ORDER BY ("ban", "network", "client", "target", "verdict", "day")
TTL "day" + INTERVAL {RETENTION_DAYS} DAY DELETE
SETTINGS allow_nullable_key = 1, {_ONCE};

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.events_to_daily TO tokgate.daily AS
SELECT toDate(e."time", 'UTC') AS "day", e."client" AS "client", e."target" AS "target", e."ban" AS "ban",
    e."network" AS "network", e."verdict" AS "verdict",
    sum(e."events") AS "events", min(e."first_time") AS "first", max(e."last_time") AS "last"
FROM tokgate.events AS e
WHERE e."traffic"
GROUP BY "day", "client", "target", "ban", "network", "verdict";
"""

_VIEWS: Final = f"""\
-- Did everything arrive, and once? `missing`: numbers that no row has between two rows of a chain, whatever their
-- times, since a record's time is not when it was written: told for the day of the row after the gap. `twice`: rows
-- that a merge will take out; `contradicting`: numbers that came with two contents.
CREATE VIEW IF NOT EXISTS tokgate.arrival AS
SELECT n."day" AS "day", n."gateway" AS "gateway", n."chain" AS "chain",
    min(n."number") AS "first", max(n."number") AS "last", count() AS "records",
    sum(n."gap") AS "missing", sum(n."contents" - 1) AS "contradicting", sum(n."rows" - n."contents") AS "twice",
    max(n."latest") AS "received"
FROM
(
    SELECT s."day" AS "day", s."gateway" AS "gateway", s."chain" AS "chain", s."number" AS "number",
        s."rows" AS "rows", s."contents" AS "contents", s."latest" AS "latest",
        s."number" - 1 - lagInFrame(s."number", 1, s."number" - 1) OVER
            (PARTITION BY s."gateway", s."chain" ORDER BY s."number" ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS "gap"
    FROM
    (
        SELECT e."gateway" AS "gateway", e."chain" AS "chain", assumeNotNull(e."sequence") AS "number",
            toDate(min(e."time"), 'UTC') AS "day", count() AS "rows", uniqExact(e."hash") AS "contents",
            max(e."received") AS "latest"
        FROM tokgate.events AS e
        WHERE e."sequence" IS NOT NULL
        GROUP BY "gateway", "chain", "number"
    ) AS s
) AS n
GROUP BY "day", "gateway", "chain";

-- The policy in force on each gateway, as its last record says, and when it last said anything.
CREATE TABLE IF NOT EXISTS tokgate.gateway_states
(
    "gateway" LowCardinality(Nullable(String)),
    "policy" AggregateFunction(argMax, Nullable(String), DateTime64(6, 'UTC')),
    "version" AggregateFunction(argMax, Nullable(String), DateTime64(6, 'UTC')),
    "heard" SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    "policy_failed" SimpleAggregateFunction(max, Nullable(DateTime64(6, 'UTC'))),
    "dropped" SimpleAggregateFunction(sum, Int64)
)
ENGINE = AggregatingMergeTree
ORDER BY "gateway"
SETTINGS allow_nullable_key = 1, {_ONCE};

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.events_to_gateway_states TO tokgate.gateway_states AS
SELECT e."gateway" AS "gateway", argMaxState(CAST(e."policy", 'Nullable(String)'), e."time") AS "policy",
    argMaxState(CAST(e."version", 'Nullable(String)'), e."time") AS "version", max(e."time") AS "heard",
    maxOrNullIf(e."time", e."action" = 'policy-load-failed') AS "policy_failed",
    toInt64(coalesce(sumIf(e."dropped", e."action" = 'log-gap'), 0)) AS "dropped"
FROM tokgate.events AS e
GROUP BY "gateway";

CREATE VIEW IF NOT EXISTS tokgate.gateways AS
SELECT g."gateway" AS "gateway", argMaxMerge(g."policy") AS "policy", argMaxMerge(g."version") AS "version",
    max(g."heard") AS "heard", max(g."policy_failed") AS "policy_failed", sum(g."dropped") AS "dropped"
FROM tokgate.gateway_states AS g
GROUP BY "gateway";
"""
