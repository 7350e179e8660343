"""What others run: the pre-commit hook, the workflow and the scheduled verification call commands as they are."""

import configparser
import json
import re
from pathlib import Path

import pytest
import yaml

from labs.command_line import Command
from labs.samples import OBSERVER, stamp
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter
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
    """Annotations, and what would change."""
    assert [words[0] for words in commands()] == ["check", "diff"]
    workflow = yaml.load((ROOT / "deploy" / "github" / "policies.yml").read_text(), Loader=yaml.BaseLoader)
    assert workflow["permissions"] == {"contents": "read"}
    assert set(workflow["on"]) == {"pull_request", "push", "schedule"}


def test_annotations_are_read_from_what_check_prints() -> None:
    """The problem matcher of the workflow takes place, level, message and code of each finding, and nothing else."""
    text = (ROOT / "deploy" / "github" / "policies.yml").read_text()
    matcher = json.loads(text[text.index("{", text.index("cat > matcher.json")) : text.index("END\n          echo")])
    pattern = re.compile(matcher["problemMatcher"][0]["pattern"][0]["regexp"])
    for golden in (ROOT / "tests/cli/policy/data/check").rglob("*.txt"):
        found, document = golden.read_text().splitlines(), json.loads(golden.with_suffix(".json").read_text())
        places = [(each["file"], str(each["line"])) for each in document["diagnostics"]]
        places += [(each["file"], str(each["line"])) for each in document["tests"] if not each["passed"]]
        matches = [match for line in found if (match := pattern.match(line))]
        assert sorted((match[1], match[2]) for match in matches) == sorted(places)
        assert {match[4] for match in matches} <= {"error", "warning"}


def test_the_scheduled_verification(tokgate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's command verifies the whole log in its folder, and leaves its findings for Prometheus."""
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "deploy/systemd/tokgate-verify.service")
    writer = LogWriter(tmp_path / "block.ndjson", OBSERVER, options=LogOptions())
    writer.start()
    writer.put(stopped(stamp(), 1, "SIGTERM"))
    assert writer.close(60)
    (tmp_path / "tokgate-verify").mkdir()
    (tmp_path / "key").write_bytes((tmp_path / "block.pub").read_bytes())
    monkeypatch.chdir(tmp_path)
    _, *words = unit["Service"]["ExecStart"].replace("%d", str(tmp_path)).replace("%S", str(tmp_path)).split()
    done = tokgate(*words)
    assert done.code == 0, done.err
    assert "tokgate_log_verify_findings 0" in (tmp_path / "tokgate-verify" / "tokgate.prom").read_text()
