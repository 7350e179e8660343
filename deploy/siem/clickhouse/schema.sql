-- A fleet's block logs in ClickHouse; see README.md beside this file.
-- An insert that comes again as it was is refused, by every table: non_replicated_deduplication_window.
-- A cluster: ON CLUSTER, and ReplicatedReplacingMergeTree and ReplicatedAggregatingMergeTree for the engines.

CREATE DATABASE IF NOT EXISTS tokgate;

-- What shippers insert into: whole lines, as tokgate wrote them. Nothing is stored here.
CREATE TABLE IF NOT EXISTS tokgate.lines ("line" String, "file" String DEFAULT '') ENGINE = Null;

-- One row a record: the columns of docs/log-queries.md, by the same names. Count with sum(events), not count().
CREATE TABLE IF NOT EXISTS tokgate.events
(
    "time" DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    "action" LowCardinality(Nullable(String)),
    "traffic" Bool,
    "events" Int64 CODEC(T64, ZSTD(1)),
    "first_time" Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)),
    "last_time" Nullable(DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)),
    "repeats_of" Nullable(UUID) CODEC(ZSTD(1)),
    "verdict" LowCardinality(Nullable(String)),
    "mode" LowCardinality(Nullable(String)),
    "reason" LowCardinality(Nullable(String)),
    "phase" LowCardinality(Nullable(String)),
    "client" Nullable(String) CODEC(ZSTD(1)),
    "client_port" Nullable(Int64) CODEC(ZSTD(1)),
    "user" Nullable(String) CODEC(ZSTD(1)),
    "hardware" Nullable(String) CODEC(ZSTD(1)),
    "interface" Nullable(String) CODEC(ZSTD(1)),
    "name" Nullable(String) CODEC(ZSTD(1)),
    "registered_domain" LowCardinality(Nullable(String)),
    "destination_ip" Nullable(String) CODEC(ZSTD(1)),
    "destination_port" Nullable(Int64) CODEC(ZSTD(1)),
    "target" LowCardinality(Nullable(String)),
    "transport" LowCardinality(Nullable(String)),
    "protocol" LowCardinality(Nullable(String)),
    "network" LowCardinality(Nullable(String)),
    "ban" LowCardinality(Nullable(String)),
    "authority" LowCardinality(Nullable(String)),
    "basis" LowCardinality(Nullable(String)),
    "service" LowCardinality(Nullable(String)),
    "rule" LowCardinality(Nullable(String)),
    "signal" LowCardinality(Nullable(String)),
    "response" LowCardinality(Nullable(String)),
    "exemption" LowCardinality(Nullable(String)),
    "exemption_reason" LowCardinality(Nullable(String)),
    "exemption_until" Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    "passed" Nullable(String) CODEC(ZSTD(1)),
    "continued_until" Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    "stage" LowCardinality(Nullable(String)),
    "visibility" LowCardinality(Nullable(String)),
    "mismatch" Nullable(Bool) CODEC(ZSTD(1)),
    "names" Nullable(String) CODEC(ZSTD(3)),
    "connection" Nullable(String) CODEC(ZSTD(1)),
    "method" LowCardinality(Nullable(String)),
    "status" Nullable(Int64) CODEC(ZSTD(1)),
    "url_scheme" LowCardinality(Nullable(String)),
    "url_path" Nullable(String) CODEC(ZSTD(1)),
    "user_agent" LowCardinality(Nullable(String)),
    "dns_type" LowCardinality(Nullable(String)),
    "dns_code" LowCardinality(Nullable(String)),
    "ja4" LowCardinality(Nullable(String)),
    "ech" Nullable(Bool) CODEC(ZSTD(1)),
    "message" Nullable(String) CODEC(ZSTD(3)),
    "outcome" LowCardinality(Nullable(String)),
    "event_id" Nullable(UUID) CODEC(ZSTD(1)),
    "gateway" LowCardinality(Nullable(String)),
    "worker" LowCardinality(Nullable(String)),
    "version" LowCardinality(Nullable(String)),
    "policy" LowCardinality(Nullable(String)),
    "policy_replaced" LowCardinality(Nullable(String)),
    "rule_title" LowCardinality(Nullable(String)),
    "rule_reference" LowCardinality(Nullable(String)),
    "transition" LowCardinality(Nullable(String)),
    "phase_before" LowCardinality(Nullable(String)),
    "due" Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    "networks" LowCardinality(Nullable(String)),
    "until" Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    "dropped" Nullable(Int64) CODEC(ZSTD(1)),
    "error" Nullable(String) CODEC(ZSTD(1)),
    "coverage" Nullable(String) CODEC(ZSTD(1)),
    "since" Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    "sequence" Nullable(Int64) CODEC(Delta, ZSTD(1)),
    "hash" Nullable(String) CODEC(ZSTD(1)),
    "chain" LowCardinality(Nullable(String)),
    "file" LowCardinality(Nullable(String)),
    "received" DateTime('UTC') DEFAULT now('UTC') CODEC(Delta, ZSTD(1)),
    INDEX by_name "name" TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_id "event_id" TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_client "client" TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX by_received "received" TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree -- a line that a shipper sent twice becomes one row when parts merge
PARTITION BY toYYYYMMDD("time")
PRIMARY KEY ("ban", "network", "client", "target", "time")
ORDER BY ("ban", "network", "client", "target", "time", "event_id", "hash")
TTL toDateTime("time") + INTERVAL 400 DAY DELETE
SETTINGS allow_nullable_key = 1, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.lines_to_events TO tokgate.events AS
SELECT
    assumeNotNull(parseDateTime64BestEffortOrNull(r."@timestamp", 6, 'UTC')) AS "time",
    r."event"."action" AS "action",
    coalesce(r."event".action IN ('connect-refused', 'connection-cut', 'connection-refused', 'connection-warned', 'dns-query-blocked', 'exemption-used', 'http-request-blocked', 'http-request-warned', 'passed-on-error', 'quic-refused', 'tls-handshake-refused', 'tls-opened', 'warning-continued', 'would-block'), false) AS "traffic",
    CASE WHEN r."tokgate"."repeats".count >= 1 THEN r."tokgate"."repeats".count ELSE 1 END AS "events",
    if(r."tokgate"."repeats"."count" >= 1, parseDateTime64BestEffortOrNull(least(coalesce(r."tokgate"."repeats"."first", r."@timestamp"), coalesce(r."tokgate"."repeats"."last", r."@timestamp")), 6, 'UTC'), parseDateTime64BestEffortOrNull(r."@timestamp", 6, 'UTC')) AS "first_time",
    if(r."tokgate"."repeats"."count" >= 1, parseDateTime64BestEffortOrNull(greatest(coalesce(r."tokgate"."repeats"."first", r."@timestamp"), coalesce(r."tokgate"."repeats"."last", r."@timestamp")), 6, 'UTC'), parseDateTime64BestEffortOrNull(r."@timestamp", 6, 'UTC')) AS "last_time",
    toUUIDOrNull(r."tokgate"."repeats"."of") AS "repeats_of",
    r."tokgate"."verdict" AS "verdict",
    r."tokgate"."mode" AS "mode",
    r."tokgate"."reason" AS "reason",
    r."tokgate"."phase" AS "phase",
    coalesce(r."source".ip, r."source".address) AS "client",
    r."source"."port" AS "client_port",
    r."user"."name" AS "user",
    r."source"."mac" AS "hardware",
    r."observer"."ingress"."interface"."name" AS "interface",
    r."destination"."domain" AS "name",
    r."destination"."registered_domain" AS "registered_domain",
    r."destination"."ip" AS "destination_ip",
    r."destination"."port" AS "destination_port",
    coalesce(r."destination".registered_domain, r."destination".domain, r."destination".ip) AS "target",
    r."network"."transport" AS "transport",
    r."network"."protocol" AS "protocol",
    r."tokgate"."network" AS "network",
    r."tokgate"."ban" AS "ban",
    r."tokgate"."authority" AS "authority",
    r."tokgate"."basis" AS "basis",
    r."tokgate"."service" AS "service",
    r."tokgate"."rule" AS "rule",
    r."tokgate"."signal" AS "signal",
    r."tokgate"."response" AS "response",
    r."tokgate"."exemption" AS "exemption",
    r."tokgate"."exemption_reason" AS "exemption_reason",
    parseDateTime64BestEffortOrNull(r."tokgate"."exemption_until", 6, 'UTC') AS "exemption_until",
    r."tokgate"."passed" AS "passed",
    parseDateTime64BestEffortOrNull(r."tokgate"."continued_until", 6, 'UTC') AS "continued_until",
    r."tokgate"."stage" AS "stage",
    r."tokgate"."visibility" AS "visibility",
    r."tokgate"."mismatch" AS "mismatch",
    r."tokgate"."names" AS "names",
    r."tokgate"."connection" AS "connection",
    r."http"."request"."method" AS "method",
    r."http"."response"."status_code" AS "status",
    r."url"."scheme" AS "url_scheme",
    r."url"."path" AS "url_path",
    r."user_agent"."original" AS "user_agent",
    r."dns"."question"."type" AS "dns_type",
    r."dns"."response_code" AS "dns_code",
    r."tokgate"."ja4" AS "ja4",
    r."tokgate"."ech" AS "ech",
    r."message" AS "message",
    r."event"."outcome" AS "outcome",
    toUUIDOrNull(r."event"."id") AS "event_id",
    r."observer"."hostname" AS "gateway",
    r."observer"."name" AS "worker",
    r."observer"."version" AS "version",
    r."tokgate"."policy"."version" AS "policy",
    r."tokgate"."policy"."replaced" AS "policy_replaced",
    r."rule"."name" AS "rule_title",
    r."rule"."reference" AS "rule_reference",
    r."tokgate"."transition" AS "transition",
    r."tokgate"."phase_before" AS "phase_before",
    parseDateTime64BestEffortOrNull(r."tokgate"."due", 6, 'UTC') AS "due",
    r."tokgate"."networks" AS "networks",
    parseDateTime64BestEffortOrNull(r."tokgate"."until", 6, 'UTC') AS "until",
    r."tokgate"."gap"."dropped" AS "dropped",
    r."error"."message" AS "error",
    r."tokgate"."coverage" AS "coverage",
    parseDateTime64BestEffortOrNull(r."tokgate"."since", 6, 'UTC') AS "since",
    r."event"."sequence" AS "sequence",
    r."event"."hash" AS "hash",
    r."tokgate"."chain" AS "chain",
    nullIf("file", '') AS "file"
FROM (SELECT "file", JSONExtract("line", 'Tuple(`@timestamp` Nullable(String), `event` Tuple(`action` Nullable(String), `outcome` Nullable(String), `id` Nullable(String), `sequence` Nullable(Int64), `hash` Nullable(String)), `tokgate` Tuple(`repeats` Tuple(`of` Nullable(String), `count` Nullable(Int64), `first` Nullable(String), `last` Nullable(String)), `verdict` Nullable(String), `mode` Nullable(String), `reason` Nullable(String), `phase` Nullable(String), `network` Nullable(String), `ban` Nullable(String), `authority` Nullable(String), `basis` Nullable(String), `service` Nullable(String), `rule` Nullable(String), `signal` Nullable(String), `response` Nullable(String), `exemption` Nullable(String), `exemption_reason` Nullable(String), `exemption_until` Nullable(String), `passed` Nullable(String), `continued_until` Nullable(String), `stage` Nullable(String), `visibility` Nullable(String), `mismatch` Nullable(Bool), `names` Nullable(String), `connection` Nullable(String), `ja4` Nullable(String), `ech` Nullable(Bool), `policy` Tuple(`version` Nullable(String), `replaced` Nullable(String)), `transition` Nullable(String), `phase_before` Nullable(String), `due` Nullable(String), `networks` Nullable(String), `until` Nullable(String), `gap` Tuple(`dropped` Nullable(Int64)), `coverage` Nullable(String), `since` Nullable(String), `chain` Nullable(String)), `source` Tuple(`port` Nullable(Int64), `mac` Nullable(String), `ip` Nullable(String), `address` Nullable(String)), `user` Tuple(`name` Nullable(String)), `observer` Tuple(`ingress` Tuple(`interface` Tuple(`name` Nullable(String))), `hostname` Nullable(String), `name` Nullable(String), `version` Nullable(String)), `destination` Tuple(`domain` Nullable(String), `registered_domain` Nullable(String), `ip` Nullable(String), `port` Nullable(Int64)), `network` Tuple(`transport` Nullable(String), `protocol` Nullable(String)), `http` Tuple(`request` Tuple(`method` Nullable(String)), `response` Tuple(`status_code` Nullable(Int64))), `url` Tuple(`scheme` Nullable(String), `path` Nullable(String)), `user_agent` Tuple(`original` Nullable(String)), `dns` Tuple(`question` Tuple(`type` Nullable(String)), `response_code` Nullable(String)), `message` Nullable(String), `rule` Tuple(`name` Nullable(String), `reference` Nullable(String)), `error` Tuple(`message` Nullable(String)))') AS r FROM tokgate.lines)
WHERE parseDateTime64BestEffortOrNull(r."@timestamp", 6, 'UTC') IS NOT NULL;

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
TTL "received" + INTERVAL 400 DAY DELETE
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.lines_to_unreadable TO tokgate.unreadable AS
SELECT "line", nullIf("file", '') AS "file"
FROM tokgate.lines
WHERE parseDateTime64BestEffortOrNull(JSONExtract("line", '@timestamp', 'Nullable(String)'), 6, 'UTC') IS NULL;

-- Every line: what a summary reads.
CREATE VIEW IF NOT EXISTS tokgate.records AS
SELECT "time", "action", "traffic", "events", "first_time", "last_time", "repeats_of", "verdict", "mode", "reason", "phase", "client", "client_port", "user", "hardware", "interface", "name", "registered_domain", "destination_ip", "destination_port", "target", "transport", "protocol", "network", "ban", "authority", "basis", "service", "rule", "signal", "response", "exemption", "exemption_reason", "exemption_until", "passed", "continued_until", "stage", "visibility", "mismatch", "names", "connection", "method", "status", "url_scheme", "url_path", "user_agent", "dns_type", "dns_code", "ja4", "ech", "message", "outcome", "event_id", "gateway", "worker", "version", "policy", "policy_replaced", "rule_title", "rule_reference", "transition", "phase_before", "due", "networks", "until", "dropped", "error", "coverage", "since", "sequence", "hash", "chain", "file", true AS "readable" FROM tokgate.events
UNION ALL
SELECT NULL AS "time", NULL AS "action", false AS "traffic", 1 AS "events", NULL AS "first_time", NULL AS "last_time", NULL AS "repeats_of", NULL AS "verdict", NULL AS "mode", NULL AS "reason", NULL AS "phase", NULL AS "client", NULL AS "client_port", NULL AS "user", NULL AS "hardware", NULL AS "interface", NULL AS "name", NULL AS "registered_domain", NULL AS "destination_ip", NULL AS "destination_port", NULL AS "target", NULL AS "transport", NULL AS "protocol", NULL AS "network", NULL AS "ban", NULL AS "authority", NULL AS "basis", NULL AS "service", NULL AS "rule", NULL AS "signal", NULL AS "response", NULL AS "exemption", NULL AS "exemption_reason", NULL AS "exemption_until", NULL AS "passed", NULL AS "continued_until", NULL AS "stage", NULL AS "visibility", NULL AS "mismatch", NULL AS "names", NULL AS "connection", NULL AS "method", NULL AS "status", NULL AS "url_scheme", NULL AS "url_path", NULL AS "user_agent", NULL AS "dns_type", NULL AS "dns_code", NULL AS "ja4", NULL AS "ech", NULL AS "message", NULL AS "outcome", NULL AS "event_id", NULL AS "gateway", NULL AS "worker", NULL AS "version", NULL AS "policy", NULL AS "policy_replaced", NULL AS "rule_title", NULL AS "rule_reference", NULL AS "transition", NULL AS "phase_before", NULL AS "due", NULL AS "networks", NULL AS "until", NULL AS "dropped", NULL AS "error", NULL AS "coverage", NULL AS "since", NULL AS "sequence", NULL AS "hash", NULL AS "chain", "file", false AS "readable" FROM tokgate.unreadable;

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
SETTINGS allow_nullable_key = 1, ttl_only_drop_parts = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.events_to_hourly TO tokgate.hourly AS
SELECT toStartOfHour(e."time", 'UTC') AS "hour", e."gateway" AS "gateway", e."network" AS "network", e."ban" AS "ban",
    e."service" AS "service", e."phase" AS "phase", e."verdict" AS "verdict", e."action" AS "action",
    e."signal" AS "signal", e."reason" AS "reason", e."policy" AS "policy",
    sum(e."events") AS "events", count() AS "records", uniqState(e."client") AS "clients",
    min(e."first_time") AS "first", max(e."last_time") AS "last"
FROM tokgate.events AS e
WHERE e."traffic"
GROUP BY "hour", "gateway", "network", "ban", "service", "phase", "verdict", "action", "signal", "reason", "policy";

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
TTL "day" + INTERVAL 400 DAY DELETE
SETTINGS allow_nullable_key = 1, non_replicated_deduplication_window = 10000;

CREATE MATERIALIZED VIEW IF NOT EXISTS tokgate.events_to_daily TO tokgate.daily AS
SELECT toDate(e."time", 'UTC') AS "day", e."client" AS "client", e."target" AS "target", e."ban" AS "ban",
    e."network" AS "network", e."verdict" AS "verdict",
    sum(e."events") AS "events", min(e."first_time") AS "first", max(e."last_time") AS "last"
FROM tokgate.events AS e
WHERE e."traffic"
GROUP BY "day", "client", "target", "ban", "network", "verdict";

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
SETTINGS allow_nullable_key = 1, non_replicated_deduplication_window = 10000;

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
