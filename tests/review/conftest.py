"""Logs to review: written to files, as they are read; made-up days come from the bench."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from review.logs import write

type WriteLog = Callable[..., Path]


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Write records, or bytes as they are, to a file."""

    def write_to(records: Iterable[dict[str, Any] | bytes], name: str = "block.ndjson") -> Path:
        path = tmp_path / name
        write(path, records)
        return path

    return write_to
