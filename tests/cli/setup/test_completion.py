"""Completion in shells, and the manual page: both know every command and option that the parser has."""

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.cli.commands import COMMANDS
from tokgate.cli.setup.completion import SHELLS, _parsers, whole_parser

PAGE = Path(__file__).parents[3] / "deploy" / "man" / "tokgate.1"
ASK_BASH = """\
source "$1"
COMP_WORDS=(tokgate {words}) COMP_CWORD={number}
{function}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def parsers() -> list[argparse.ArgumentParser]:
    return list(_parsers(whole_parser()))


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_known(tokgate: Command, shell: str) -> None:
    script = tokgate("completion", shell).out
    options = {option for parser in parsers() for action in parser._actions for option in action.option_strings}
    assert {name for name in COMMANDS if name not in script} == set()
    assert {option for option in options if option.startswith("--") and option.lstrip("-") not in script} == set()


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_the_shell_can_read_it(tokgate: Command, tmp_path: Path, shell: str) -> None:
    """No syntax error meets who starts a shell with it."""
    script = tmp_path / "script"
    script.write_text(tokgate("completion", shell).out)
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("che", "check"),
        ("check --auth", "--authority"),
        ("service import --format ho", "hosts"),
        ("log su", "summary"),
        ("completion fi", "fish"),
    ],
    ids=["command", "option", "value", "subcommand", "argument"],
)
def test_bash_offers_it(tokgate: Command, tmp_path: Path, words: str, offered: str) -> None:
    script = tmp_path / "script"
    script.write_text(tokgate("completion", "bash").out)
    function = re.search(r"^complete .*-F (\S+) tokgate$", script.read_text(), re.MULTILINE)
    assert function is not None
    asked = ASK_BASH.format(words=words, number=len(words.split()), function=function[1])
    done = subprocess.run(["bash", "-c", asked, "bash", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [offered], done.stderr


def test_the_manual_page_is_of_these_commands() -> None:
    """What the commands can do is on the page: run `make man` after a change of options."""
    page = PAGE.read_text().replace("\\-", "-")
    for parser in parsers():
        leaf = not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)
        assert parser.prog in page or not leaf
        missing = [option for action in parser._actions for option in action.option_strings if option not in page]
        assert set(missing) <= {"--help"}, parser.prog
