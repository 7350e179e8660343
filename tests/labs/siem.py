"""The shipped files for stores of logs (deploy/siem): ClickHouse tables, with days in them, Elasticsearch fields."""

import json
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from day import Gateway, Traffic

from labs.logs import write
from tokgate.blocklog.paths import with_rotated

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

SIEM: Final = Path(__file__).parents[2] / "deploy" / "siem"
needs_chdb = pytest.mark.skipif(
    find_spec("chdb") is None and os.environ.get("TOKGATE_REQUIRE_E2E") != "1",
    reason="needs chdb, some 500 MB: make setup-clickhouse",
)


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one, for clients that accept one statement at a time."""
    code = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    yield from (part.strip() for part in f"{code}\n".split(";\n") if part.strip())


def clickhouse_statements() -> Iterator[str]:
    """The statements that make the tables."""
    return statements((SIEM / "clickhouse/schema.sql").read_text(encoding="utf-8"))


def leaves(properties: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of a mapping or a schema that hold values, by their full names."""
    for name, inner in properties.items():
        if inner.get("properties"):
            yield from leaves(inner["properties"], f"{path}{name}.")
        else:
            yield f"{path}{name}", inner


def elastic_fields() -> dict[str, Any]:
    """The mapped fields of the component template, by their names."""
    template = json.loads((SIEM / "elastic/mappings.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = template["template"]["mappings"]["properties"]
    return found


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of two gateways' days, with two lines that are no records."""
    folder, files = tmp_path_factory.mktemp("days"), []
    for number in range(2):
        log = folder / f"gw{number}" / "block.ndjson"
        Gateway(Traffic(events=4_000, clients=60, gateway=number)).write(log)
        files += with_rotated(log)
    write(
        folder / "torn.ndjson", [b'{"@timestamp":"2026-11-24T12:00:00.000000Z","event":{"act\n', b"\x00\x01 no text\n"]
    )
    return [*files, folder / "torn.ndjson"]


@pytest.fixture(scope="module")
def clickhouse(days: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator["ClickHouse"]:
    """The shipped tables, with those days in them."""
    from labs.clickhouse import ClickHouse

    database = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    database.take(*days)
    yield database
    database.close()
