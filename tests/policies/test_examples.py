"""The examples under docs/examples: clean, and of the same mind as their own tests."""

from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.diagnostics import Level, render
from tokgate.config.loader import load
from tokgate.config.policy_tests import run_tests
from tokgate.policy.snapshot import compile_policy

EXAMPLES = sorted(path for path in (Path(__file__).parents[2] / "docs" / "examples").iterdir() if path.is_dir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example: Path) -> None:
    """It loads without a word, and what its tests expect is decided; each verdict is expected of some client."""
    loaded = load(example, Instant.from_utc(2023, 5, 1))
    assert loaded.policy is not None, "\n".join(map(render, loaded.diagnostics))
    assert [each for each in loaded.diagnostics if each.level is Level.WARNING] == []
    results = run_tests(compile_policy(loaded.policy), loaded.tests)
    assert [result for result in results if not result.passed] == []
    assert {result.decision.verdict for result in results} >= {"allow", "block"}
