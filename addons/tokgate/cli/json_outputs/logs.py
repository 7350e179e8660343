"""What commands about the block log print in JSON. Its records themselves have schema/log.schema.json."""

from collections.abc import Mapping
from typing import Any, Final, TypedDict

from pydantic import create_model

from tokgate.analytics.columns import COLUMNS
from tokgate.blocklog.integrity.chain_state import FindingCode


class FindingOutput(TypedDict):
    """A fault and its place."""

    file: str
    line: int
    code: FindingCode
    message: str


class ChainOutput(TypedDict):
    """The state of one chain; `signed` is the last record that a checkpoint covers."""

    first: int
    last: int
    hash: str
    records: int
    signed: int
    follows: str | None
    deleted: bool
    key: str | None


class Verified(TypedDict):
    """`tokgate log verify --json`: the number of findings, the first of them, and each chain by its id."""

    lines: int
    findings: int
    shown: list[FindingOutput]
    chains: dict[str, ChainOutput]


class TableOutput(TypedDict):
    """How often each key occurred: `rows` have the columns of the key, `count`, `first` and `last`."""

    keys: int
    rows: list[dict[str, str | int | None]]
    other: int


class CoverageOutput(TypedDict):
    """How many connections there were, and how many were judged by name; by network and visibility."""

    total: int
    named: int
    networks: dict[str, dict[str, int]]


class Summarised(TypedDict):
    """`tokgate log summary --json`: tables by what they count."""

    first: str | None
    last: str | None
    records: int
    events: int
    dropped: int
    unreadable: int
    coverage: CoverageOutput | None
    tables: dict[str, TableOutput]


_COLUMN_TYPES: Final[Mapping[str, Any]] = {
    "VARCHAR": str,
    "TIMESTAMP": str,
    "BIGINT": int,
    "BOOLEAN": bool,
    "JSON": dict[str, Any] | list[Any],
}
_ROW: Final[Any] = {column.name: (_COLUMN_TYPES[column.type] | None, ...) for column in COLUMNS}
QUERY_ROW: Final[Any] = create_model("QueryRow", **_ROW)
"""`tokgate log query --json` without `--sql`: an event with every column, null where it says nothing of it."""
