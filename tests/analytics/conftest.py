"""Logs for queries: written to files, as they are read; made-up days come from the bench."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from day import Gateway, Traffic

from labs.logs import WriteLog, write
from tokgate.blocklog.paths import with_rotated

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

TORN = b'{"@timestamp":"2026-11-24T12:00:00.000000Z","event":{"act\n'


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Write records, or bytes as they are, to a file."""

    def write_to(records: Iterable[dict[str, Any] | bytes], name: str = "block.ndjson") -> Path:
        path = tmp_path / name
        write(path, records)
        return path

    return write_to


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files of two gateways' days, with two lines that are no records."""
    folder, files = tmp_path_factory.mktemp("days"), []
    for number in range(2):
        log = folder / f"gw{number}" / "block.ndjson"
        Gateway(Traffic(events=4_000, clients=60, gateway=number)).write(log)
        files += with_rotated(log)
    write(folder / "torn.ndjson", [TORN, b"\x00\x01 no text\n"])
    return [*files, folder / "torn.ndjson"]


@pytest.fixture(scope="module")
def clickhouse(days: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator["ClickHouse"]:
    """The shipped tables, with those days in them."""
    from labs.clickhouse import ClickHouse

    database = ClickHouse(tmp_path_factory.mktemp("clickhouse"))
    database.take(*days)
    yield database
    database.close()
