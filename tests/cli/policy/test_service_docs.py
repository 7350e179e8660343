"""docs/services.md: its commands for lists work as they stand."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.config.format.services import ListFormat

DOCS = (Path(__file__).parents[3] / "docs" / "services.md").read_text(encoding="utf-8")
SECTION = DOCS.partition("## A service from a public list")[2].partition("\n## ")[0]


@pytest.fixture
def clone(policies: Path) -> None:
    """A repository with a policy, and a clone of lists beside it."""
    Path("domain-list-community/data").mkdir(parents=True)
    Path("domain-list-community/data/telegram").write_text("films.example\n")
    for command in (("init", "-q"), ("add", "policies")):
        subprocess.run(("git", *command), check=True)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(("git", *who, "commit", "-qm", "Policy"), check=True)


@pytest.mark.usefixtures("clone")
def test_the_commands_work(tokgate: Command) -> None:
    commands = [line for block in re.findall(r"```\n(.*?)```", SECTION, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "tokgate"
        outcome = tokgate(*arguments)
        assert outcome.code == 0, outcome.err
        assert "diff" not in arguments or "services.telegram-dlc" in outcome.out


def test_every_format_is_described() -> None:
    assert set(re.findall(r"^\| `([a-z-]+)` \|", SECTION, re.MULTILINE)) - {"--format"} == set(ListFormat)


def test_every_option_is_named(tokgate: Command) -> None:
    """An option that only the help knows is not found by whoever reads the page."""
    help_text = tokgate("service", "import", "--help").out + tokgate("service", "update", "--help").out
    options = set(re.findall(r"(?<!\S)--[a-z]+(?:-[a-z]+)*", help_text))
    described = {"--source", "--revision", "--licence", "--date", "--title", "--output", "--force"}
    usual = {"--help", "--debug", "--json", "--policies", "--exit-code"}
    assert {each for each in options - usual - described if each not in SECTION} == set()
