"""Keeping results, and telling what got slower since."""

from dataclasses import replace
from pathlib import Path

from comparison.regression import compare
from comparison.report import text_table
from comparison.results import Failure, Results

from bench.test_bars import results as rates


def results(ours: list[float], theirs: list[float]) -> Results:
    """The rate of small connections, of tokgate and of HAProxy."""
    return replace(rates(tokgate=ours, haproxy=theirs), about={"date": "2026-01-01"})


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    """Samples, failures and what is known of the run."""
    kept = results([100.0, 200.0], [100.0])
    kept.failures.append(Failure("bulk1", "squid", 2, 'says "no"'))
    kept.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == kept


def test_a_slower_machine_is_not_a_slower_proxy() -> None:
    """Half of both figures is the same ratio."""
    (change,) = compare(results([100, 110], [100, 100]), results([50], [50]))
    assert not change.slower


def test_a_slower_proxy_is_told() -> None:
    """Clearly below the worst round that was kept."""
    (change,) = compare(results([100, 110], [100, 100]), results([85], [100]))
    assert change.slower
    assert round(change.percent) == -19


def test_within_the_kept_spread_nothing_is_told() -> None:
    """The median fell, but no lower than it had been seen."""
    (change,) = compare(results([90, 110, 112], [100, 100, 100]), results([92], [100]))
    assert not change.slower


def test_columns_line_up() -> None:
    """Words to the left, figures to the right."""
    assert text_table([["what", "who", "n"], ["rate", "a", "1,000"]]) == "what  who      n\nrate  a    1,000"
