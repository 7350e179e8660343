"""Rows as CSV and JSON. Times are RFC 3339 in UTC; absent values are empty in CSV and null in JSON."""

import csv
import json
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TextIO
from uuid import UUID

from tokgate.analytics.sql import QueryResult, rfc3339

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet evaluates (https://owasp.org/www-community/attacks/CSV_Injection)."""


def write_csv(answer: QueryResult, stream: TextIO) -> None:
    """Write RFC 4180 CSV with a header. Text that a spreadsheet would evaluate is prefixed with an apostrophe."""
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(answer.columns)
    writer.writerows([_cell(value) for value in row] for row in answer.rows)


def json_lines(answer: QueryResult) -> Iterator[str]:
    """One JSON object for each row, with its newline."""
    parsed = [kind == "JSON" for kind in answer.types]
    for row in answer.rows:
        fields = {
            name: _parsed(value) if is_json else plain(value)
            for name, value, is_json in zip(answer.columns, row, parsed, strict=True)
        }
        yield json.dumps(fields, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """A value that DuckDB returned as a value that JSON can hold."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else None  # JSON knows neither infinity nor NaN
        case datetime():
            return rfc3339(value)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case list() | tuple() | set():
            return [plain(entry) for entry in value]
        case dict():
            return {str(key): plain(entry) for key, entry in value.items()}
        case bytes():
            return value.hex()
        case date() | time() | timedelta() | UUID():
            return str(value)
    return str(value)


def _parsed(value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        return value


def _cell(value: Any) -> str:
    value = plain(value)
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}" if value.startswith(_FORMULA) else value
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)
