"""A ClickHouse server over its HTTP interface: read-only queries with bound parameters, rows as DuckDB gives them.

Queries of tokgate's are in DuckDB's dialect and are translated.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

import clickhouse_connect
import sqlglot
from clickhouse_connect.driver.exceptions import ClickHouseError
from sqlglot import exp
from urllib3.exceptions import HTTPError

from tokgate.analytics.sql import LogError, QueryResult

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

type Values = Mapping[str, Any]
"""Parameters by name: texts, whole numbers, instants in UTC without `tzinfo`."""

_PORTS: Final = {"https": 8443, "http": 8123}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
DATABASE: Final = "tokgate"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server's HTTP interface, a database and a user. The password stands in no text that is shown."""

    secure: bool
    host: str
    port: int
    user: str = "default"
    database: str = DATABASE
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, password: str = "") -> Self:
        """`http[s]://[USER@]HOST[:PORT][/DATABASE]`. Raises ValueError, which says what is wrong without the text."""
        parts = urlsplit(text)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("a server is https://USER@HOST[:PORT][/DATABASE], or http:// on this machine")
        if parts.password is not None:
            raise ValueError("a password does not belong into a command line, which others can see: use the file")
        if parts.query or parts.fragment or "/" in (database := unquote(parts.path.strip("/"))):
            raise ValueError("behind the host stands the database and nothing else")
        if not database.replace("_", "a").isalnum() and database:
            raise ValueError("the database's name is letters, digits and _")
        secure = parts.scheme == "https"
        if password and not secure and parts.hostname not in _LOOPBACK:
            raise ValueError("the password would cross the network in the clear: use https://")
        return cls(
            secure=secure,
            host=parts.hostname,
            port=parts.port or _PORTS[parts.scheme],
            user=unquote(parts.username or "default"),
            database=database or DATABASE,
            password=password,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{self.user}@{host}:{self.port}/{self.database}"


def translated(sql: str, values: Values, relations: Mapping[str, str]) -> str:
    """A statement of tokgate's for ClickHouse, with parameters as `{name:Type}`.

    `relations` are queries, in DuckDB's dialect too, that stand for the views of LogDatabase and Index, by name.
    """
    tree = sqlglot.parse_one(sql, read="duckdb").transform(_relation, relations)
    for node in reversed(list(tree.find_all(*_TRANSLATIONS))):  # what is within comes before what holds it
        made = _TRANSLATIONS[type(node)](node, values)
        if made is not node:
            node.replace(made)
    return tree.sql(dialect="clickhouse")


def _relation(node: exp.Expr, relations: Mapping[str, str]) -> exp.Expr:
    if isinstance(node, exp.Table) and not node.db and node.name in relations:
        query = sqlglot.parse_one(relations[node.name], read="duckdb")
        return exp.Subquery(this=query, alias=exp.TableAlias(this=exp.to_identifier(node.name)))
    return node


def _made(text: str, *parts: exp.Expr) -> exp.Expr:
    """An expression in ClickHouse's dialect, where `x0`, `x1`, … stand for parts."""

    def filled(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and node.name.startswith("x") and node.name[1:].isdigit():
            return parts[int(node.name[1:])].copy()
        return node

    return sqlglot.parse_one(text, read="clickhouse").transform(filled)


def _parameter(name: str, values: Values) -> exp.Expr:
    match values[name]:
        case None:
            return exp.null()
        case datetime():
            return _made(f"toDateTime64({{{name}:String}}, 6, 'UTC')")
        case int():
            return exp.Placeholder(this=name, kind=exp.DataType.build("Int64", dialect="clickhouse"))
        case _:
            return exp.Placeholder(this=name, kind=exp.DataType.build("String", dialect="clickhouse"))


def _function(node: exp.Anonymous, values: Values) -> exp.Expr:
    match node.name.lower(), node.expressions:
        case "getvariable", [name]:
            return _parameter(name.name, values)
        case "ipv4_number", [address]:
            return _made("toInt64(toUInt32(toIPv4OrNull(x0)))", address)
        case "ipv6_digits", [address]:
            return _made("if(position(x0, ':') > 0, lower(hex(toIPv6OrNull(x0))), NULL)", address)
        case "timezone", [exp.Literal(this="UTC"), exp.Expr() as at]:
            return at
        case "timezone", [zone, at]:
            return _made("toTimeZone(x0, x1)", at, zone)
    return node


def _cast(node: exp.Cast, _: Values) -> exp.Expr:
    kind = node.to.sql(dialect="clickhouse")
    if node.to.is_type("timestampntz", "timestamp"):
        return _made("toDateTime64(x0, 6, 'UTC')", node.this)
    if isinstance(node, exp.TryCast):
        return _made(f"accurateCastOrNull(x0, '{kind.removeprefix('Nullable(').removesuffix(')')}')", node.this)
    return node


_TRANSLATIONS: Final[Mapping[type[exp.Expr], Callable[[Any, Values], exp.Expr]]] = {
    exp.Placeholder: lambda node, values: _parameter(node.name, values),
    exp.Anonymous: _function,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.SplitPart: lambda node, _: _made(
        "arrayElement(splitByString(x1, coalesce(x0, '')), x2)",
        node.this,
        node.args["delimiter"],
        node.args["part_index"],
    ),
    exp.RegexpFullMatch: lambda node, _: _made("match(x0, concat('^(', x1, ')$'))", node.this, node.expression),
    exp.LogicalAnd: lambda node, _: _made("min(x0)", node.this),
}


_SETTINGS: Final = {
    "final": 1,  # a line that a shipper sent twice counts once
    "do_not_merge_across_partitions_select_final": 1,
    "cast_keep_nullable": 1,
    "join_use_nulls": 1,
}
_SAID: Final = re.compile(r"^.*?DB::Exception: |\.? In scope .*$|: (While|In) .*$| ?\(for url .*$|\n.*", re.DOTALL)
"""What the driver and the server put around the message of an error."""


class Server:
    """A server's tables, asked in DuckDB's dialect. Any thread may ask; with a session, one at a time."""

    def __init__(
        self, address: ServerAddress, relations: Mapping[str, str], values: Values, *, session: bool, seconds: float
    ) -> None:
        """`relations` are the views that queries name, whose parameters have `values`. A session has temporary tables.

        Raises LogError.
        """
        self._relations: Final = relations
        self._values: Final = dict(values)
        self._in_turn: Final = threading.Lock() if session else nullcontext()
        with _told(address):
            self._client: Final[Client] = clickhouse_connect.get_client(
                interface="https" if address.secure else "http", host=address.host, port=address.port,
                username=address.user, password=address.password, database=address.database,
                autogenerate_session_id=session, send_receive_timeout=seconds, query_limit=0,
                settings=_SETTINGS | {"max_execution_time": int(seconds)},
            )  # fmt: skip
        self._address: Final = address

    def close(self) -> None:
        with suppress(ClickHouseError, HTTPError):
            self._client.close()

    def answer(self, sql: str, parameters: Values | None = None) -> QueryResult:
        """Run a statement of tokgate's. Raises LogError."""
        values = self._values | dict(parameters or {})
        return self.native(translated(sql, values, self._relations), values)

    def answer_query(self, sql: str) -> QueryResult:
        """Run a user's SELECT, in ClickHouse's dialect, over the relations. Raises LogError."""
        views = ", ".join(
            f"{name} AS ({translated(query, self._values, {})})" for name, query in self._relations.items()
        )
        return self.native(f"WITH {views} SELECT * FROM (\n{sql}\n)", self._values, {"readonly": 1})

    def native(self, sql: str, values: Values, settings: Values = MappingProxyType({})) -> QueryResult:
        """Run a statement in ClickHouse's own dialect. Raises LogError."""
        bound = {
            name: value.isoformat(sep=" ") if isinstance(value, datetime) else value for name, value in values.items()
        }
        with self._in_turn, _told(self._address):
            found = self._client.query(sql, parameters=bound, settings=dict(settings))
        types = tuple(_duckdb_type(kind.base_type or "") for kind in found.column_types)
        return QueryResult(tuple(found.column_names), types, (tuple(map(_value, row)) for row in found.result_rows))


@contextmanager
def _told(address: ServerAddress) -> Iterator[None]:
    """Turn errors of the server, or of the way to it, into LogError."""
    try:
        yield
    except (ClickHouseError, HTTPError, OSError) as error:
        raise LogError(f"{address}: {_SAID.sub('', str(error)).strip() or type(error).__name__}") from error


def _value(value: Any) -> Any:
    match value:
        case datetime():
            return value.replace(tzinfo=None)
        case date():
            return datetime.combine(value, time())
        case UUID():
            return str(value)
    return value


def _duckdb_type(kind: str) -> str:
    """DuckDB's name of a type, as far as output depends on it."""
    if kind.startswith(("DateTime", "Date")):
        return "TIMESTAMP"
    if kind.startswith(("Int", "UInt")):
        return "BIGINT"
    return {"Bool": "BOOLEAN", "String": "VARCHAR", "UUID": "VARCHAR"}.get(kind, "DOUBLE" if "Float" in kind else kind)
