"""What README.md and docs/readers tell people to type works: command lines, the policy that it shows."""

import re
import shlex
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.cli.main import main
from tokgate.config.loader import load
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs/readers").glob("*.md")))]


def blocks(language: str, pages: list[str]) -> list[str]:
    """The code blocks of a language, those of a gateway included (tests/e2e/test_operator_page.py types them)."""
    return [found for page in pages for found in re.findall(rf"^```{language}(?: \w+)?\n(.*?)^```$", page, re.M | re.S)]


def commands() -> list[list[str]]:
    """The tokgate command lines in the shell blocks, without what they are piped into."""
    lines = [line.partition("#")[0].partition("|")[0] for block in blocks("sh", PAGES) for line in block.splitlines()]
    words = [shlex.split(line) for line in lines if "tokgate" in line]
    return [command[1:] for command in words if Path(command[0]).name == "tokgate"]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_commands_are_understood(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With --help behind it each command line ends well: the command exists, and so do its options' names."""
    assert main([*command, "--help"]) == 0
    assert command[0] in capsys.readouterr().out


READS = [command for command in commands() if command[0] in ("check", "explain", "timeline", "ruleset")]


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_harmless_commands_work(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that only read do what they should with the shipped policies."""
    monkeypatch.chdir(ROOT)
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out + printed.err


def test_the_policy_it_shows_is_valid(tmp_path: Path) -> None:
    (policy,) = blocks("yaml", [README])
    (tmp_path / "policy.yaml").write_text(policy)
    loaded = load(tmp_path, Instant.from_utc(2023, 3, 1))
    assert loaded.policy is not None, loaded.errors
    assert len(loaded.tests) == 2
    assert all(result.passed for result in run_tests(compile_policy(loaded.policy), loaded.tests))
