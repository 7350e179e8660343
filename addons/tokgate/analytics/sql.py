"""SQL over a log: quoting, filters, listings, and the result of a query. Nothing here imports DuckDB, which is slow.

User input reaches DuckDB as values of variables, never as SQL.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network
from typing import Any, Final, Self

from whenever import Instant

from tokgate.blocklog.read.reader import Filter, Junk
from tokgate.policy.values.prefixes import IPNetwork

type Row = tuple[Any, ...]


class LogError(Exception):
    """A log can't be read, or a query can't be answered, for a reason that is the user's to know."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query; `types` are DuckDB's names, `rows` are fetched as they are iterated over."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: Iterator[Row]


class Engine(ABC):
    """Runs tokgate's SQL, in DuckDB's dialect: `LogDatabase` over the files of a log, `ClickHouseLog` over a server.

    Parameters have names. Every method raises LogError.
    """

    damage: Sequence[Junk] = ()
    """Files whose rest could not be decompressed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

    @abstractmethod
    def answer(self, sql: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
        """Run a statement."""

    @abstractmethod
    def answer_query(self, sql: str) -> QueryResult:
        """Run a user's SELECT, in the engine's own dialect."""

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of the result of a statement."""
        return list(self.answer(sql, parameters).rows)

    @abstractmethod
    def unreadable_counts(self) -> Mapping[str, int]:
        """How many lines of each file hold no record."""

    def unreadable(self, files: Iterable[str], limit: int) -> Iterable[Junk]:
        """The first `limit` lines of files that hold no record, with their positions, if these are known."""
        return ()


def rfc3339(at: datetime | None) -> str:
    """An instant that DuckDB returned, which is in UTC, with microseconds as in the log; empty for None."""
    return "" if at is None else at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def literal(text: str) -> str:
    """Text as an SQL literal, for places that take no parameter. Used for file names only, never for user input."""
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A column's name as an SQL identifier."""
    return f'"{name}"'


type Value = str | int | None

_EQUAL: Final = ("user", "ban", "action", "verdict", "network")

MACROS: Final = (
    """CREATE TEMP MACRO octet(address, n) AS TRY_CAST(split_part(address, '.', n) AS BIGINT)""",
    """CREATE TEMP MACRO ipv4_number(address) AS CASE WHEN NOT contains(address, ':') THEN
        octet(address, 1) * 16777216 + octet(address, 2) * 65536 + octet(address, 3) * 256 + octet(address, 4) END""",
    """CREATE TEMP MACRO groups_of(part) AS array_to_string(list_transform(
        list_filter(string_split(part, ':'), lambda piece: piece <> ''), lambda piece: lpad(piece, 4, '0')), '')""",
    """CREATE TEMP MACRO ipv6_digits(address) AS CASE WHEN contains(address, ':') THEN
        rpad(groups_of(split_part(address, '::', 1)),
            CAST(32 - length(groups_of(split_part(address, '::', 2))) AS INTEGER), '0')
        || groups_of(split_part(address, '::', 2)) END""",
)
"""Comparable forms of an address: IPv4 as a number, IPv6 as 32 hexadecimal digits. Null for the other family."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Records: an SQL condition over their columns, and the values of its variables, in which alone input occurs."""

    where: str
    said: Mapping[str, Any] = field(default_factory=dict)


type Placeholder = Callable[[str], str]
"""SQL for the value of a variable, by its name."""


def conditions(wanted: Filter, value: Placeholder = "getvariable('{}')".format) -> Chosen:
    """`Filter.accepts` as SQL; `value` makes the SQL for a variable's value."""
    terms: list[str] = []
    variables: dict[str, Value] = {}
    for name, at, comparison in (("since", wanted.since, ">="), ("until", wanted.until, "<")):
        if at is not None:
            terms.append(f'"time" {comparison} CAST({value(name)} AS TIMESTAMP)')
            variables[name] = utc_text(at)
    if wanted.client is not None:
        sql, ends = _client(wanted.client, value)
        terms.append(sql)
        variables |= ends
    if wanted.name is not None:
        terms.append(f'("name" = {value("name")} OR ends_with("name", \'.\' || {value("name")}))')
        variables["name"] = wanted.name
    for column in _EQUAL:
        stated = getattr(wanted, column)
        if stated is not None:
            terms.append(f'"{column}" = {value(column)}')
            variables[column] = str(stated)
    return Chosen(" AND ".join(terms) or "true", variables)


def utc_text(at: Instant) -> str:
    """An instant as DuckDB's TIMESTAMP in UTC: without offset, whole microseconds."""
    return at.format_iso(unit="microsecond").removesuffix("Z")


def _client(wanted: IPNetwork | str, value: Placeholder) -> tuple[str, dict[str, Value]]:
    if isinstance(wanted, str):
        return f'"client" = {value("client")}', {"client": wanted}
    first, last = wanted.network_address, wanted.broadcast_address
    if first == last:
        return f'"client" = {value("client")}', {"client": str(first)}
    # A log may name prefixes instead of addresses: a prefix matches if it lies within the wanted one.
    within = (
        f"BETWEEN {value('client_first')} AND {value('client_last')} "
        f"AND coalesce(TRY_CAST(split_part(\"client\", '/', 2) AS INTEGER), 128) >= {wanted.prefixlen}"
    )
    if isinstance(wanted, IPv4Network):
        numbers: dict[str, Value] = {"client_first": int(first), "client_last": int(last)}
        return f"ipv4_number(split_part(\"client\", '/', 1)) {within}", numbers
    return f"ipv6_digits(split_part(\"client\", '/', 1)) {within}", {
        "client_first": f"{int(first):032x}",
        "client_last": f"{int(last):032x}",
    }
