"""What a policy repository is given: the pre-commit hook and the workflow call commands as they are."""

import re
from pathlib import Path

import pytest
import yaml

from cli.command_line import Command
from tokgate.cli.main import build_parser

ROOT = Path(__file__).parents[2]


def test_the_hook_runs(policies: Path, tokgate: Command) -> None:
    """Its entry and arguments check the folder, and take further options."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    program, *arguments = hook["entry"].split()
    assert (program, hook["pass_filenames"]) == ("tokgate", False)
    assert tokgate(*arguments, *hook["args"]).code == 0
    assert re.search(hook["files"], "policies/bans/spring.yaml")
    (policies / "policy.yaml").write_text("version: 2\n")
    assert tokgate(*arguments, *hook["args"], "--strict").code == 1


def commands() -> list[list[str]]:
    """All commands of ours in the workflow."""
    text = (ROOT / "deploy" / "github" / "policies.yml").read_text()
    return [line.split() for line in re.findall(r"^(?: +run:| +) tokgate ([a-z].*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_workflow_calls_what_there_is(words: list[str]) -> None:
    """Each command in the workflow is understood."""
    arguments = [word.strip('"') for word in words[: next((i for i, w in enumerate(words) if w in (">", "||")), None)]]
    assert build_parser(arguments[:1]).parse_args(arguments).command == arguments[0]


def test_the_workflow_has_what_is_promised() -> None:
    """Annotations, findings for code scanning, and what would change."""
    assert [words[0] for words in commands()] == ["check", "check", "diff"]
    workflow = yaml.load((ROOT / "deploy" / "github" / "policies.yml").read_text(), Loader=yaml.BaseLoader)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["on"]) == {"pull_request", "push", "schedule"}
