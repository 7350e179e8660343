"""`tokgate log prove` and `tokgate log anchor`: files that others can check, and what is said where nothing is."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from blocklog.integrity.test_evidence_timestamp import Authority
from labs.command_line import Command
from labs.logs import refusal
from labs.samples import OBSERVER
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "block.ndjson"
    writer = LogWriter(path, OBSERVER, LogOptions())
    writer.start()
    for _ in range(2):
        writer.put(refusal())
        assert writer.mark().wait(60)
    assert writer.close(60)
    return path


def test_a_proof_in_a_file(log: Path, tokgate: Command) -> None:
    """By the reference of the block page; the fingerprint is the one that `log key` prints."""
    event = json.loads(log.read_bytes().splitlines()[0])["event"]["id"]
    assert tokgate("log", "prove", event, "-o", "proof.json").code == 0
    proof = json.loads(Path("proof.json").read_text("utf-8"))
    assert proof["record"]["event"]["id"] == event
    assert tokgate("log", "key", "--fingerprint").out == proof["fingerprint"] + "\n"
    assert json.loads(tokgate("log", "prove", event).out) == proof
    assert json.loads(tokgate("log", "prove", event, "--log", str(log)).out) == proof


def test_a_record_in_a_rotated_file(log: Path, tokgate: Command) -> None:
    """`--log` names a log with the files rotated away from it, as without it; so does the log of an anchor."""
    event = json.loads(log.read_bytes().splitlines()[0])["event"]["id"]
    log.rename("block-20230310T230000.000000Z.ndjson")
    log.write_text("")
    assert json.loads(tokgate("log", "prove", event, "--log", str(log)).out)["record"]["event"]["id"] == event
    assert tokgate("log", "anchor", "--log", str(log), "-o", "anchor.txt").code == 0
    assert tokgate("log", "prove", event, "--log", "no-such-log.ndjson").code == 3


def test_no_proof(log: Path, tokgate: Command) -> None:
    """An unknown reference is exit code 1; no log at all is 3."""
    outcome = tokgate("log", "prove", "01862000-0000-7000-8000-00000000000f")
    assert (outcome.code, outcome.out) == (1, "")
    assert "no record of these files has the id" in outcome.err
    log.unlink()
    assert tokgate("log", "prove", "01862000-0000-7000-8000-00000000000f").code == 3


def test_an_anchor(log: Path, tokgate: Command, tmp_path: Path) -> None:
    """A checkpoint and its timestamp in files: the timestamp says since when, and the log is compared with it."""
    with closing(Authority(tmp_path / "tsa")) as authority:
        assert tokgate("log", "anchor", "-o", "anchor.txt", "--tsa", authority.url).code == 0
    root = str(authority.folder / "ca.pem")
    outcome = tokgate("log", "anchor", "--check", "anchor.txt", "--tsa-ca", root)
    assert outcome.code == 0
    assert "the checkpoint over records 1 to 3 of chain" in outcome.out
    assert tokgate("log", "verify", "--checkpoints", "anchor.txt").code == 0
    Path("anchor.txt").write_bytes(Path("anchor.txt").read_bytes().replace(b'"sequence":3', b'"sequence":4'))
    outcome = tokgate("log", "anchor", "--check", "anchor.txt", "--tsa-ca", root)
    assert (outcome.code, outcome.out) == (1, "")
    assert tokgate("log", "anchor", "--check", "anchor.txt").code == 2


def test_an_anchor_for_opentimestamps(log: Path, tokgate: Command) -> None:
    """Without an authority it is one line of text, which any stamping service takes; a failing one leaves no file."""
    assert tokgate("log", "anchor", "-o", "anchor.txt").code == 0
    assert Path("anchor.txt").read_text().startswith("tokgate-checkpoint {")
    assert not Path("anchor.txt.tsr").exists()
    outcome = tokgate("log", "anchor", "--check", "anchor.txt", "--tsa-ca", "ca.pem")
    assert (outcome.code, outcome.err) == (1, "tokgate: anchor.txt.tsr: No such file or directory\n")
    outcome = tokgate("log", "anchor", "-o", "other.txt", "--tsa", "http://127.0.0.1:1/")
    assert outcome.code == 3
    assert not Path("other.txt").exists()
    log.write_bytes(b'{"a":1}\n')
    assert "no checkpoint" in tokgate("log", "anchor", "-o", "anchor.txt").err
