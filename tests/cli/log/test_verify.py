"""`tokgate log verify` and `log key`: what an auditor types, sees and gets as exit code."""

import json
from pathlib import Path

import pytest

from labs.appending import AppenderRuns
from labs.command_line import Command
from labs.samples import OBSERVER, stamp
from tokgate.blocklog.paths import every_file
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation
from tokgate.blocklog.write.writer import LogWriter
from tokgate.cli.log import verify


@pytest.fixture
def kept() -> list[str]:
    """The checkpoints that were sent away."""
    return []


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]) -> Path:
    """A log that a writer wrote, in a working directory of its own: five records, and two checkpoints."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "block.ndjson"
    writer = LogWriter(path, OBSERVER, LogOptions(outlets=(kept.append,)))
    writer.start()
    for part in (2, 3):
        for _ in range(part):
            writer.put(stopped(stamp(), 1, "SIGTERM"))
        assert writer.mark().wait(60)
    assert writer.close(60)
    return path


def test_a_log_in_order(log: Path, tokgate: Command, kept: list[str]) -> None:
    """Nothing on stdout, the state of the chain on stderr, exit code 0."""
    public = tokgate("log", "key")
    assert public.out == log.with_suffix(".pub").read_text()
    Path("trusted.pub").write_text(public.out)
    Path("kept.txt").write_text("\n".join(kept))
    outcome = tokgate("log", "verify", "--key", "trusted.pub", "--checkpoints", "kept.txt")
    assert (outcome.code, outcome.out) == (0, "")
    assert "records 1 to 7, signed up to 6 by" in outcome.err
    assert outcome.err.endswith("tokgate: 7 lines, no findings\n")


def test_findings_beyond_those_shown(log: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them count, in JSON as on stderr, however many are shown."""
    monkeypatch.setattr(verify, "MAX_SHOWN", 2)
    log.write_text(log.read_text().replace("SIGTERM", "SIGKILL"))
    counted = json.loads(tokgate("log", "verify", "--json").out)
    assert (counted["findings"], len(counted["shown"])) == (5, 2)
    outcome = tokgate("log", "verify")
    assert len(outcome.out.splitlines()) == 2
    assert "tokgate: 3 more findings\n" in outcome.err


def test_what_retention_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokgate: Command) -> None:
    """Where each key signs once, the first one verifies it all the same; stderr says after how many days files went."""
    monkeypatch.chdir(tmp_path)
    options = LogOptions(forward_secure=True, retention_days=3)
    runs = AppenderRuns(tmp_path / "block.ndjson", Rotation(), options, "2023-03-01T12:00Z")
    for _ in range(7):
        runs.run_for_a_day()
    outcome = tokgate("log", "verify", "--key", "block.pub")
    assert (outcome.code, outcome.out) == (0, "")
    gone = "not here, the last of them in block-20230303T120000.000000Z.ndjson: deleted by retention after 3 days"
    assert f"{gone}, says record 21)" in outcome.err
    assert tokgate("log", "verify", "--key", "block.pub", *map(str, every_file(runs.path))).code == 0
    whole = Path("block.successions").read_text()
    monkeypatch.setattr(verify, "MAX_LINE", 1000)
    Path("block.successions").write_text("x" * 4500 + "\n" + whole)
    assert tokgate("log", "verify", "--key", "block.pub").code == 0
    Path("block.successions").unlink()
    assert "key that is not trusted here" in tokgate("log", "verify", "--key", "block.pub").out


def test_a_changed_line(log: Path, tokgate: Command) -> None:
    """`file:line: message [code]`, exit code 1; the same as JSON."""
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"SIGTERM", b"SIGKILL")
    log.write_bytes(b"".join(lines))
    outcome = tokgate("log", "verify")
    assert outcome.code == 1
    assert outcome.out == "block.ndjson:2: the content of record 2 does not give its hash [changed]\n"
    assert outcome.err.endswith("tokgate: 7 lines, 1 finding\n")
    as_json = json.loads(tokgate("log", "verify", "--json", "block.ndjson").out)
    assert (as_json["findings"], as_json["shown"][0]["line"], as_json["shown"][0]["code"]) == (1, 2, "changed")
    assert [chain["last"] for chain in as_json["chains"].values()] == [7]


def test_findings_as_metrics(log: Path, tokgate: Command) -> None:
    """For a scheduled run: how many findings, in how many lines, and when, readable for node_exporter's user."""
    for findings in (0, 1):
        assert tokgate("log", "verify", "--textfile", "tokgate.prom").code == findings
        text = Path("tokgate.prom").read_text()
        assert f"\ntokgate_log_verify_findings {findings}\n" in text
        assert "\ntokgate_log_verify_lines 7\n" in text
        log.write_bytes(log.read_bytes().replace(b"SIGTERM", b"SIGKILL", 1))
    assert Path("tokgate.prom").stat().st_mode & 0o777 == 0o644


def test_what_is_not_there(log: Path, tokgate: Command) -> None:
    """A log, a key or checkpoints that can't be read are exit code 3, never a clean bill."""
    Path("empty").touch()
    for arguments in (["none.ndjson"], ["--key", "none"], ["--key", "empty"], ["--checkpoints", "empty"]):
        outcome = tokgate("log", "verify", *arguments)
        assert (outcome.code, outcome.out) == (3, ""), arguments
        assert outcome.err.startswith("tokgate: ")
    assert tokgate("log", "key", "--log", "none.ndjson").code == 3


def test_the_public_key_is_found_in_the_private_one(log: Path, tokgate: Command) -> None:
    """Should the public file be gone, the key itself tells it."""
    public = log.with_suffix(".pub").read_text()
    log.with_suffix(".pub").unlink()
    assert tokgate("log", "key").out == public


def test_files_that_are_gone(log: Path, tokgate: Command) -> None:
    """The log here has to be whole; files that are named, only if somebody says so. What isn't here is told."""
    log.rename("block-20230310T120000.000000Z.ndjson")
    writer = LogWriter(log, OBSERVER)
    writer.start()
    assert writer.close(60)
    Path("block-20230310T120000.000000Z.ndjson").unlink()
    for arguments in ([], ["--whole", str(log)]):
        outcome = tokgate("log", "verify", *arguments)
        assert outcome.code == 1
        assert "block.ndjson:1: records 1 to 7 are not here" in outcome.out
    outcome = tokgate("log", "verify", str(log))
    assert outcome.code == 0
    assert "records 1 to 7 are not here, the last of them in block-2023" in outcome.err
    assert "no signed record tells of their deletion" in outcome.err


def test_a_log_that_is_rotated_meanwhile(log: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was the current file at the beginning is read to its end, whatever its name has come to mean."""
    real = every_file

    def rotating(path: Path) -> list[Path]:
        if not Path("block-20230310T120000.000000Z.ndjson").exists():
            log.rename("block-20230310T120000.000000Z.ndjson")
            log.write_bytes(b'{"not":"the same"}\n')
        return real(path)

    monkeypatch.setattr(verify, "every_file", rotating)
    outcome = tokgate("log", "verify")
    assert (outcome.code, outcome.out) == (0, "")
    assert "records 1 to 7" in outcome.err


def test_what_cannot_be_shown_is_said(log: Path, tokgate: Command, kept: list[str]) -> None:
    """Without a key, without checkpoints kept elsewhere, or with those of others."""
    assert "(not compared with any: see --key)" in (alone := tokgate("log", "verify").err)
    assert "a tail that was cut off, or written anew with the key, would not show" in alone
    Path("kept.txt").write_text("\n".join([*kept, kept[0].replace('"epoch":0', '"epoch":1')]))
    compared = tokgate("log", "verify", "--key", "block.pub", "--checkpoints", "kept.txt").err
    assert "would not show" not in compared
    assert "passed over 1 of the checkpoints kept elsewhere: by other keys, or not genuine" in compared
