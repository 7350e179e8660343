"""The bench of a fleet's logs: its days are logs, and it runs to its end."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from day import Gateway, Traffic

ROOT = Path(__file__).parents[2]


def test_a_made_up_day_is_a_log(check_lines: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    """Every line is on schema, every attempt is counted, and the chain holds."""
    from tokgate.cli.main import main

    log = tmp_path / "block.ndjson"
    Gateway(Traffic(events=800, clients=100)).write(log)
    records = check_lines(log)
    told = [record for record in records if record["event"]["dataset"] == "tokgate.block"]
    attempts = sum(record["tokgate"].get("repeats", {}).get("count", 1) for record in told)
    assert 500 < attempts < 1_100
    assert len(told) < attempts
    assert {record["tokgate"]["verdict"] for record in told} == {"block", "warn", "monitor", "allow"}
    assert sum(record["event"]["action"] == "coverage-counted" for record in records) > 20
    assert main(["log", "verify", "--key", str(tmp_path / "block.pub"), str(log)]) == 0


@pytest.mark.skipif(
    find_spec("chdb") is None and os.environ.get("TOKGATE_REQUIRE_E2E") != "1",
    reason="needs chdb, some 500 MB: make setup-clickhouse",
)
def test_the_bench_runs(tmp_path: Path) -> None:
    """In small: every form, every rate, every question, and a projection."""
    words = ["--gateways", "1", "--events", "900", "--clients", "30", "--copies", "2", "--rounds", "1", "--folder"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "fleet.py"), *words, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for expected in ("| NDJSON |", "| ClickHouse: records |", "| tokgate log verify |", "GB a day"):
        assert expected in done.stdout
    assert "| policy in force on each gateway |" in done.stdout
    assert not list(tmp_path.iterdir())
