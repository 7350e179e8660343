"""`tokgate log verify` and `log key`: what an auditor types, sees and gets as exit code."""

import json
from pathlib import Path

import pytest

from blocklog.samples import OBSERVER, stamp
from cli.command_line import Command
from tokgate.blocklog.custody import Sealing
from tokgate.blocklog.lifecycle import stopped
from tokgate.blocklog.writer import LogWriter


@pytest.fixture
def kept() -> list[str]:
    """The checkpoints that were sent away."""
    return []


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[str]) -> Path:
    """A log that a writer wrote, in a working directory of its own: five records, and two checkpoints."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "block.ndjson"
    writer = LogWriter(path, OBSERVER, Sealing(outlets=(kept.append,)))
    writer.start()
    for part in (2, 3):
        for _ in range(part):
            writer.put(stopped(stamp(), 1, "SIGTERM"))
        assert writer.flush(10)
    assert writer.close(10)
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
    assert "not compared" in tokgate("log", "verify").err


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


def test_a_cut_tail(log: Path, tokgate: Command, kept: list[str]) -> None:
    """Only what was kept elsewhere shows it."""
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    assert tokgate("log", "verify").code == 0
    Path("kept.txt").write_text("\n".join(kept))
    outcome = tokgate("log", "verify", "--checkpoints", "kept.txt")
    assert outcome.code == 1
    assert outcome.out.endswith("its tail was cut [cut]\n")


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


def test_compacted_files_are_verified(log: Path, tokgate: Command, kept: list[str]) -> None:
    """Where only Parquet is left, the lines that it keeps are verified, and a change in them is found in its place."""
    rotated = log.rename("block-20230310T120000.000000Z.ndjson")
    writer = LogWriter(log, OBSERVER, Sealing(outlets=(kept.append,)))
    writer.start()
    writer.put(stopped(stamp(), 1, "SIGTERM"))
    assert writer.close(10)
    assert tokgate("log", "verify").err.endswith("tokgate: 10 lines, no findings\n")
    assert tokgate("log", "compact", "--log", str(rotated)).code == 0
    assert "10 lines, no findings" in tokgate("log", "verify").err  # what was written goes before its Parquet
    changed = rotated.read_bytes().replace(b"SIGTERM", b"SIGKILL", 1)
    rotated.unlink()
    outcome = tokgate("log", "verify")
    assert (outcome.code, outcome.out) == (0, "")
    assert "10 lines, no findings" in outcome.err
    parquet = rotated.with_suffix(".parquet")
    parquet.unlink()
    rotated.write_bytes(changed)
    assert tokgate("log", "compact", "--remove", "--log", str(rotated)).code == 0
    outcome = tokgate("log", "verify")
    assert outcome.code == 1
    assert outcome.out.startswith(f"{parquet.name}:1: the content of record 1 does not give its hash [changed]")


def test_a_broken_parquet_file_is_told(log: Path, tokgate: Command) -> None:
    """It is unreadable, which is a finding, and the rest is verified all the same."""
    Path("other.parquet").write_bytes(b"PAR1 and nothing else")
    outcome = tokgate("log", "verify", "other.parquet", str(log))
    assert outcome.code == 1
    assert "other.parquet:1: the rest can't be read" in outcome.out
    assert "7 lines, 1 finding" in outcome.err
