"""What documents tell people to type works: README.md, docs/readers and docs/admin.md, which shows the exact output."""

import re
import shlex
from pathlib import Path

import pytest
from whenever import Instant

from labs.command_line import Command
from tokgate.cli.main import main
from tokgate.config.loader import load
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "admin.md").read_text()
SHOWN = re.findall(r"```console\n\$ tokgate (.*)\n((?:.*\n)*?)```", DOCS)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (policy,) = re.findall(r"```yaml\n((?:.*\n)*?)```", DOCS)
    (flows,) = re.findall(r"```json lines\n((?:.*\n)*?)```", DOCS)
    for folder, text in (
        ("policies", policy),
        (
            "proposed",
            policy.replace("starts: 2027-03-10", "starts: 2027-03-15").replace("[offices]", "[offices, guests]"),
        ),
    ):
        Path(folder).mkdir()
        (Path(folder) / "offices.yaml").write_text(text)
    Path("flows.ndjson").write_text(flows)


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_shown_output_is_the_real_output(tokgate: Command, command: str, output: str) -> None:
    """Each command prints what stands below it, but for the versions of policies."""
    outcome = tokgate(*shlex.split(command))
    assert outcome.code == 0
    assert re.sub(r"^((?:old|new): \S+) \([0-9a-f]{12}\)$", r"\1 (…)", outcome.out, flags=re.MULTILINE) == output


def test_each_command_is_shown() -> None:
    assert [command.split()[0] for command, _ in SHOWN] == ["check", "explain", "timeline", "diff"]


@pytest.mark.parametrize("command", ["check", "explain", "timeline", "diff"])
def test_options_are_named(tokgate: Command, command: str) -> None:
    """What help lists, the page names, but for what needs no explanation."""
    options = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", tokgate(command, "--help").out, re.MULTILINE))
    assert {option for option in options if option not in DOCS} <= {
        "--help",
        "--debug",
        "--host",
        "--url",
        "--limit",
        "--top",
    }


def test_settings_load(tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way of signing in that docs/clients.md shows is one that a policy can have."""
    monkeypatch.chdir(tmp_path)
    policy = "networks: {press: {groups: [press]}}\n"
    shown = re.findall(r"```yaml settings\n((?:.*\n)*?)```", (ROOT / "docs" / "clients.md").read_text())
    assert len(shown) == 2
    for settings in shown:
        Path("policy.yaml").write_text(policy + settings)
        outcome = tokgate("check", "policy.yaml")
        assert (outcome.code, "warning" in outcome.out.replace("0 warnings", "")) == (0, False), outcome.out


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
