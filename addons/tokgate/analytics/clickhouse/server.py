"""A ClickHouse server over its HTTP interface: read-only queries with bound parameters, rows as DuckDB gives them."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from tokgate.analytics.clickhouse.address import ServerAddress
from tokgate.analytics.clickhouse.dialect import named, translated
from tokgate.analytics.sources import LogError
from tokgate.analytics.sql import QueryResult, Row

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_SETTINGS: Final = {
    "final": 1,  # a line that a shipper sent twice counts once
    "do_not_merge_across_partitions_select_final": 1,
    "cast_keep_nullable": 1,
    "join_use_nulls": 1,
}
_USERS: Final = {"readonly": 1}
"""For SQL that a user wrote."""
_SAID: Final = re.compile(r"^.*?DB::Exception: |\.? In scope .*$|: (While|In) .*$| ?\(for url .*$|\n.*", re.DOTALL)
"""What the driver and the server put around the message of an error."""
_NONE: Final = MappingProxyType[str, Any]({})


class Server:
    """A server's tables, asked in DuckDB's dialect. Any thread may ask; with a session, one at a time."""

    def __init__(
        self,
        address: ServerAddress,
        relations: Mapping[str, str],
        values: Mapping[str, Any],
        *,
        session: bool,
        seconds: float,
    ) -> None:
        """`relations` are the views that queries name, whose parameters have `values`. A session has temporary tables.

        Raises LogError.
        """
        self._relations: Final = relations
        self._values: Final = dict(values)
        self._one_by_one: Final = threading.Lock() if session else None
        with _told(address):
            self._client: Final[Client] = clickhouse_connect.get_client(
                interface="https" if address.secure else "http", host=address.host, port=address.port,
                username=address.user, password=address.password, database=address.database,
                autogenerate_session_id=session, send_receive_timeout=seconds, query_limit=0,
                settings=_SETTINGS | {"max_execution_time": int(seconds)},
            )  # fmt: skip
        self._address: Final = address

    def close(self) -> None:
        """Close the connections."""
        with suppress(ClickHouseError, HTTPError):
            self._client.close()

    def rows(self, sql: str, parameters: object = None) -> QueryResult:
        """Run a SELECT of tokgate's. Raises LogError."""
        text, values = named(sql, parameters)
        return self.native(translated(text, self._values | values, self._relations), self._values | values)

    def rows_of_users(self, sql: str) -> QueryResult:
        """Run a user's SELECT, in ClickHouse's dialect, over the relations. Raises LogError."""
        views = ", ".join(
            f"{name} AS ({translated(query, self._values, {})})" for name, query in self._relations.items()
        )
        return self.native(f"WITH {views} SELECT * FROM (\n{sql}\n)", self._values, _USERS)

    def do(self, sql: str, parameters: object = None) -> None:
        """Run a statement of tokgate's without rows. Raises LogError."""
        text, values = named(sql, parameters)
        values = self._values | values
        with self._in_turn(), _told(self._address):
            self._client.command(translated(text, values, self._relations), parameters=_bound(values))

    def native(self, sql: str, values: Mapping[str, Any], settings: Mapping[str, Any] = _NONE) -> QueryResult:
        """Run a SELECT in ClickHouse's own dialect. Raises LogError."""
        with self._in_turn(), _told(self._address):
            found = self._client.query(sql, parameters=_bound(values), settings=dict(settings))
        types = tuple(_duckdb_type(kind.base_type or "") for kind in found.column_types)
        return QueryResult(tuple(found.column_names), types, (_row(row) for row in found.result_rows))

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._one_by_one is None:
            yield
            return
        with self._one_by_one:
            yield


@contextmanager
def _told(address: ServerAddress) -> Iterator[None]:
    """Turn errors of the server, or of the way to it, into LogError."""
    try:
        yield
    except (ClickHouseError, HTTPError, OSError) as error:
        raise LogError(f"{address}: {_SAID.sub('', str(error)).strip() or type(error).__name__}") from error


def _bound(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat(sep=" ") if isinstance(value, datetime) else value for name, value in values.items()}


def _row(row: Sequence[Any]) -> Row:
    return tuple(_value(value) for value in row)


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
