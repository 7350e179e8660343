"""The examples under docs/examples: clean, and of the same mind as their own tests."""

from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import valid
from labs.command_line import Command
from tokgate.config.diagnostics import Level
from tokgate.config.loader import load
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

EXAMPLES = sorted(path for path in (Path(__file__).parents[2] / "docs" / "examples").iterdir() if path.is_dir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example(example: Path) -> None:
    """It loads without a word, and what its tests expect is decided; each verdict is expected of some client."""
    loaded = load(example, Instant.from_utc(2023, 5, 1))
    assert [each for each in loaded.diagnostics if each.level is Level.WARNING] == []
    results = run_tests(compile_policy(valid(loaded)), loaded.tests)
    assert [result for result in results if not result.passed] == []
    assert {result.decision.verdict for result in results} >= {"allow", "block"}


BANS = [example for example in EXAMPLES if example.name != "federal-devices"]


@pytest.mark.parametrize("example", BANS, ids=lambda path: path.name)
def test_example_of_a_governments_ban(example: Path, tokgate: Command) -> None:
    """Who copies one reads whose decision it is, on what basis, where to read it, and what nobody has opened."""
    text = (example / "policy.yaml").read_text(encoding="utf-8")
    head = " ".join(line.strip("# ") for line in text.partition("version:")[0].splitlines())
    assert "Sources: " in head
    assert "Not opened: " in head
    policy = valid(load(example, Instant.from_utc(2025, 1, 1)))
    assert policy.catalogue is not None, "the services are the catalogue's"
    for ban in policy.bans.values():
        assert ban.authority
        assert ban.basis
        assert ban.reference or "so there is no `reference`" in head or ban.name == "texas-2022"
    outcome = tokgate("check", str(example), "--at", "2025-08-01T00:00Z")
    assert (outcome.code, outcome.err) == (0, "")


def test_the_page_names_every_example() -> None:
    page = (EXAMPLES[0].parent / "README.md").read_text(encoding="utf-8")
    assert [example.name for example in EXAMPLES if f"({example.name}/policy.yaml)" not in page] == []
