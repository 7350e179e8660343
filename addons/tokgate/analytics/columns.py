"""The columns of the view `events`, and those that an index keeps: names, types, meanings, where in a record they are.

Names are a promise to people who keep queries (docs/log-queries.md): columns are added, never renamed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, Final

from tokgate.analytics.sql import literal, quoted
from tokgate.blocklog.paths import PACKED
from tokgate.blocklog.read.reader import MAX_LINE
from tokgate.blocklog.records.record import TRAFFIC

type Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `path` leads to the field of a record; `sql` replaces it where a value is made of several fields."""

    name: str
    type: str
    meaning: str
    path: Path = ()
    sql: str | None = None


def _text(name: str, meaning: str, *path: str) -> Column:
    return Column(name, "VARCHAR", meaning, path)


def _number(name: str, meaning: str, *path: str) -> Column:
    return Column(name, "BIGINT", meaning, path)


def _instant(text: str) -> str:
    """SQL for an RFC 3339 text as a TIMESTAMP in UTC. tokgate's own end in Z, which is parsed faster."""
    return (
        f"CASE WHEN ends_with({text}, 'Z') THEN TRY_CAST({text} AS TIMESTAMP) "
        f"ELSE timezone('UTC', TRY_CAST({text} AS TIMESTAMPTZ)) END"
    )


def _time(name: str, meaning: str, *path: str) -> Column:
    return Column(name, "TIMESTAMP", meaning, path, _instant(_at(path)))


def _at(path: Path) -> str:
    """SQL for the field at a path."""
    return ".".join(f'"{key}"' for key in path)


_TIMESTAMP: Final = '"@timestamp"'
_REPEATS: Final = '"tokgate"."repeats"'
_REPEATED: Final = f"{_REPEATS}.count >= 1"
_ABOUT_TRAFFIC: Final = ", ".join(f"'{action.value}'" for action in sorted(TRAFFIC))


def _end_of_repeats(which: str, other: str) -> str:
    """SQL for the first or last instant of what a record stands for."""
    ends = f"coalesce({_REPEATS}.first, {_TIMESTAMP}), coalesce({_REPEATS}.last, {_TIMESTAMP})"
    chosen = {"first": f"least({ends})", "last": f"greatest({ends})"}[which]
    return f"CASE WHEN {_REPEATED} THEN {_instant(f'({chosen})')} ELSE {other} END"


_NOW: Final = _instant(_TIMESTAMP)

COLUMNS: Final[tuple[Column, ...]] = (
    Column("time", "TIMESTAMP", "when the record was made, in UTC", ("@timestamp",), _NOW),
    _text("action", "what happened: `event.action`", "event", "action"),
    Column(
        "traffic", "BOOLEAN",
        "about a client's traffic under a ban; false: about tokgate itself, or what it could not read", (),
        f"coalesce(\"event\".action IN ({_ABOUT_TRAFFIC}), false)",
    ),
    Column(
        "events", "BIGINT", "how many events the record stands for: 1, or its `tokgate.repeats.count`", (),
        f"CASE WHEN {_REPEATED} THEN {_REPEATS}.count ELSE 1 END",
    ),
    Column("first_time", "TIMESTAMP", "when the first of them came", (), _end_of_repeats("first", _NOW)),
    Column("last_time", "TIMESTAMP", "when the last of them came", (), _end_of_repeats("last", _NOW)),
    _text("repeats_of", "the `event_id` of the record whose repeats these are", "tokgate", "repeats", "of"),
    _text("verdict", "`block`, `warn`, `monitor`, `allow`", "tokgate", "verdict"),
    _text("mode", "`enforce`, `warn`, `monitor`, `exempt`, `error`", "tokgate", "mode"),
    _text("reason", "why, from a closed set: `ban-block`, …", "tokgate", "reason"),
    _text("phase", "the ban's phase at that instant", "tokgate", "phase"),
    Column(
        "client", "VARCHAR", "the client's address, or what stands for it", (),
        'coalesce("source".ip, "source".address)',
    ),
    _number("client_port", "the client's port", "source", "port"),
    _text("user", "who signed in to the proxy; of an override, who made or ended it", "user", "name"),
    _text("hardware", "the client's hardware address", "source", "mac"),
    _text("interface", "the interface by which it came", "observer", "ingress", "interface", "name"),
    _text("name", "the name that was asked for", "destination", "domain"),
    _text("registered_domain", "its registrable domain", "destination", "registered_domain"),
    _text("destination_ip", "the address it went to", "destination", "ip"),
    _number("destination_port", "the port it went to", "destination", "port"),
    Column(
        "target", "VARCHAR", "registrable domain; else name; else address", (),
        'coalesce("destination".registered_domain, "destination".domain, "destination".ip)',
    ),
    _text("transport", "`tcp`, `udp`", "network", "transport"),
    _text("protocol", "`tls`, `quic`, `http`, `dns`", "network", "protocol"),
    _text("network", "the client's network", "tokgate", "network"),
    _text("ban", "the ban", "tokgate", "ban"),
    _text("authority", "whose ban it is", "tokgate", "authority"),
    _text("basis", "its legal basis", "tokgate", "basis"),
    _text("service", "the service that was asked for", "tokgate", "service"),
    _text("rule", "the pattern that matched: `suffix:tiktok.com`", "tokgate", "rule"),
    _text("signal", "by which identifier it matched", "tokgate", "signal"),
    _text("response", "`refuse`, `page`, `inspect`", "tokgate", "response"),
    _text("exemption", "the exemption that was used", "tokgate", "exemption"),
    _text("exemption_reason", "why there is one", "tokgate", "exemption_reason"),
    _time("exemption_until", "until when", "tokgate", "exemption_until"),
    _text("passed", "why it passed a warning without its page", "tokgate", "passed"),
    _time("continued_until", "until when a page that was continued past stays away", "tokgate", "continued_until"),
    _text("stage", "where the decision took effect", "tokgate", "stage"),
    _text("visibility", "what could be seen of the connection", "tokgate", "visibility"),
    Column("mismatch", "BOOLEAN", "names of one connection belong to different services", ("tokgate", "mismatch")),
    Column("names", "JSON", "every name as it was shown, by signal", ("tokgate", "names")),
    _text("connection", "the same for all records of one connection", "tokgate", "connection"),
    _text("method", "HTTP method", "http", "request", "method"),
    _number("status", "HTTP status of the answer", "http", "response", "status_code"),
    _text("url_scheme", "`http`, `https`", "url", "scheme"),
    _text("url_path", "path without query", "url", "path"),
    _text("user_agent", "as the client sent it", "user_agent", "original"),
    _text("dns_type", "type of the DNS question: `A`, `HTTPS`", "dns", "question", "type"),
    _text("dns_code", "code of the DNS answer: `NXDOMAIN`", "dns", "response_code"),
    _text("ja4", "fingerprint of the ClientHello", "tokgate", "ja4"),
    Column("ech", "BOOLEAN", "the ClientHello carried the ECH extension", ("tokgate", "ech")),
    _text("message", "the record as a sentence", "message"),
    _text("outcome", "`success`, `failure`, as tokgate sees it", "event", "outcome"),
    _text("event_id", "the reference that the block page shows", "event", "id"),
    _text("gateway", "the machine that decided", "observer", "hostname"),
    _text("worker", "its process", "observer", "name"),
    _text("version", "its version of tokgate", "observer", "version"),
    _text("policy", "version of the policy in force", "tokgate", "policy", "version"),
    _text("policy_replaced", "the version before it", "tokgate", "policy", "replaced"),
    _text("rule_title", "the ban's title", "rule", "name"),
    _text("rule_reference", "where the ban can be read", "rule", "reference"),
    _text("transition", "what changed: `phase`, `window-opens`, …", "tokgate", "transition"),
    _text("phase_before", "the phase that ended", "tokgate", "phase_before"),
    _time("due", "the instant of the change", "tokgate", "due"),
    Column("networks", "JSON", "the networks a change is about", ("tokgate", "networks")),
    _time("until", "until when the ban lasts; absent: until lifted", "tokgate", "until"),
    _number("dropped", "records that a gap lost", "tokgate", "gap", "dropped"),
    _text("error", "what an internal error said", "error", "message"),
    Column("coverage", "JSON", "counts of traffic by network and visibility", ("tokgate", "coverage")),
    _time("since", "from when on the record counts", "tokgate", "since"),
    _number("sequence", "the record's number in its chain", "event", "sequence"),
    _text("hash", "the record's hash in its chain", "event", "hash"),
    _text("chain", "the chain the record belongs to", "tokgate", "chain"),
)  # fmt: skip

_ALSO_READ: Final[dict[Path, str]] = {
    ("message",): "VARCHAR",
    ("destination", "registered_domain"): "VARCHAR",
    ("destination", "domain"): "VARCHAR",
    ("destination", "ip"): "VARCHAR",
    ("source", "ip"): "VARCHAR",
    ("source", "address"): "VARCHAR",
    ("tokgate", "repeats", "count"): "BIGINT",
    ("tokgate", "repeats", "first"): "VARCHAR",
    ("tokgate", "repeats", "last"): "VARCHAR",
}
"""Fields that composed columns and `_READABLE` need."""

_READABLE: Final = '("@timestamp" IS NOT NULL OR "event" IS NOT NULL OR "message" IS NOT NULL)'
"""SQL: whether the line held a record. DuckDB reads any other line as nulls."""


def structure(columns: Iterable[Column] = COLUMNS) -> dict[str, Any]:
    """The fields of a record that some columns need, as nested objects whose leaves are DuckDB types."""
    leaves = {c.path: "VARCHAR" if c.type == "TIMESTAMP" else c.type for c in columns if c.path} | _ALSO_READ
    tree: dict[str, Any] = {}
    for path, kind in leaves.items():
        inner = tree
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = kind
    return tree


def expression(column: Column) -> str:
    """SQL for a column's value, over the fields of `structure`."""
    return column.sql if column.sql is not None else _at(column.path)


def records(files: Iterable[FilePath], columns: Iterable[Column] = COLUMNS) -> Iterator[str]:
    """Queries for the lines of NDJSON files, one for each compression: the columns, `file`, `readable`.

    Columns are null in unreadable lines. Paths must hold no pattern characters.
    """
    by_compression: dict[str, list[str]] = {}
    for path in files:
        by_compression.setdefault(PACKED.get(path.suffix, "none"), []).append(literal(str(path)))
    wanted = tuple(columns)
    fields = ", ".join(f'"{key}": {literal(_sql_type(kind))}' for key, kind in structure(wanted).items())
    values = ", ".join(f"{expression(column)} AS {quoted(column.name)}" for column in wanted)
    for compression, paths in by_compression.items():
        yield (
            f'SELECT {values}, "filename" AS "file", {_READABLE} AS readable FROM read_ndjson([{", ".join(paths)}], '
            f"columns = {{{fields}}}, filename = true, ignore_errors = true, compression = '{compression}', "
            f"maximum_object_size = {2 * MAX_LINE})"
        )


def _sql_type(kind: Any) -> str:
    """The DuckDB type of a leaf or an object of `structure`."""
    if isinstance(kind, str):
        return kind
    return f"STRUCT({', '.join(f'{quoted(key)} {_sql_type(inner)}' for key, inner in kind.items())})"


SHOWN: Final = ("time", "events", "verdict", "action", "client", "name", "network", "ban", "signal")
"""The columns that fit a terminal."""
EVERY_COLUMN: Final = ", ".join(quoted(column.name) for column in COLUMNS)


def listing(*, wide: bool, limit: int | None) -> str:
    """SQL for the records. With a `limit` they are in order of time; without one, in the order of the files."""
    columns = EVERY_COLUMN if wide else ", ".join(quoted(name) for name in SHOWN)
    if limit is None:
        return f"SELECT {columns} FROM events"
    return f'SELECT {columns} FROM events ORDER BY "time" LIMIT {int(limit)}'


KEPT: Final = (
    "time", "action", "traffic", "events", "first_time", "last_time", "verdict", "reason", "phase", "client", "user",
    "name", "destination_ip", "target", "transport", "protocol", "network", "ban", "service", "rule", "signal",
    "response", "exemption", "visibility", "event_id", "gateway", "policy", "dropped", "coverage", "message",
    "url_path", "user_agent", "ja4",
)  # fmt: skip
"""The columns of `events` that the index keeps; `event_id` as a UUID, `message` only of records about tokgate itself.

Everything else is read from the file.
"""
_KEPT_COLUMNS: Final = tuple(column for column in COLUMNS if column.name in KEPT)
_READ: Final = (*_KEPT_COLUMNS, *(column for column in COLUMNS if column.name == "hash"))

DIGEST: Final = "CASE WHEN hash IS NOT NULL THEN hash(hash) END"
"""SQL for a number made of a record's hash, which takes less memory."""

type Numbered = tuple[FilePath, int]
"""A file, and its number in the table."""


def table(name: str) -> str:
    """SQL that creates the index's table."""
    columns = ", ".join(f"{quoted(c.name)} {'UUID' if c.name == 'event_id' else c.type}" for c in _KEPT_COLUMNS)
    return f"CREATE TABLE {name} (n BIGINT, file INTEGER, readable BOOLEAN, digest UBIGINT, {columns})"


def rows_of(files: Iterable[Numbered]) -> Iterator[str]:
    """Queries for the rows of files, without `n`. Paths must hold no pattern characters (`UNCLEAR`)."""
    numbers = dict(files)
    cases = " ".join(f"WHEN {literal(str(path))} THEN {number}" for path, number in numbers.items())
    names = ", ".join(quoted(column.name) for column in _KEPT_COLUMNS)
    for query in records(numbers, _READ):
        yield (
            f"SELECT CASE file {cases} END, readable, {DIGEST}, {names} FROM (SELECT * REPLACE ("
            "TRY_CAST(event_id AS UUID) AS event_id, CASE WHEN NOT traffic THEN message END AS message) "
            f"FROM ({query}))"
        )
