"""docs/admin.md: its commands give exactly what it shows, and it names every option of the commands that it teaches."""

import re
import shlex
from pathlib import Path

import pytest

from labs.command_line import Command

PAGES = Path(__file__).parents[2] / "docs"
DOCS = (PAGES / "admin.md").read_text()
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
    shown = re.findall(r"```yaml settings\n((?:.*\n)*?)```", (PAGES / "clients.md").read_text())
    assert len(shown) == 2
    for settings in shown:
        Path("policy.yaml").write_text(policy + settings)
        outcome = tokgate("check", "policy.yaml")
        assert (outcome.code, "warning" in outcome.out.replace("0 warnings", "")) == (0, False), outcome.out
