"""A filter as SQL over the view's columns. What a person typed reaches DuckDB as values of variables, never as SQL."""

from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from whenever import Instant

from tokgate.blocklog.reader import Filter
from tokgate.policy.prefixes import IPNetwork

type Value = str | int | None

_EQUAL: Final = ("ban", "action", "verdict", "network")

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
"""An address as something that can be compared: a number, or 32 hexadecimal digits. Null for the other family."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """SQL that is true of wanted rows, and the variables it asks for."""

    sql: str
    variables: dict[str, Value]


def conditions(wanted: Filter) -> Conditions:
    """The same as `Filter.accepts`, for DuckDB."""
    terms: list[str] = []
    variables: dict[str, Value] = {}
    for name, value, comparison in (("since", wanted.since, ">="), ("until", wanted.until, "<")):
        if value is not None:
            terms.append(f"\"time\" {comparison} CAST(getvariable('{name}') AS TIMESTAMP)")
            variables[name] = utc_text(value)
    if wanted.client is not None:
        sql, ends = _client(wanted.client)
        terms.append(sql)
        variables |= ends
    if wanted.name is not None:
        terms.append("(\"name\" = getvariable('name') OR ends_with(\"name\", '.' || getvariable('name')))")
        variables["name"] = wanted.name
    for field in _EQUAL:
        value = getattr(wanted, field)
        if value is not None:
            terms.append(f"\"{field}\" = getvariable('{field}')")
            variables[field] = str(value)
    return Conditions(" AND ".join(terms) or "true", variables)


def utc_text(at: Instant) -> str:
    """An instant as DuckDB's TIMESTAMP in UTC: without offset, whole microseconds."""
    return at.format_iso(unit="microsecond").removesuffix("Z")


def _client(network: IPNetwork) -> tuple[str, dict[str, Value]]:
    first, last = network.network_address, network.broadcast_address
    if first == last:
        return "\"client\" = getvariable('client')", {"client": str(first)}
    within = "BETWEEN getvariable('client_first') AND getvariable('client_last')"
    if isinstance(network, IPv4Network):
        return f'ipv4_number("client") {within}', {"client_first": int(first), "client_last": int(last)}
    return f'ipv6_digits("client") {within}', {"client_first": f"{int(first):032x}", "client_last": f"{int(last):032x}"}
