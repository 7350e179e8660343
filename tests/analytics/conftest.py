"""Logs for queries: written to files, as they are read; made-up days come from the bench."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from labs.logs import WriteLog, write
from labs.siem import clickhouse, days

__all__ = ["clickhouse", "days"]


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    def write_to(records: Iterable[dict[str, Any] | bytes], name: str = "block.ndjson") -> Path:
        path = tmp_path / name
        write(path, records)
        return path

    return write_to
