"""A case as an archive: checked by what is in it, without tokgate, and nothing that was changed passes."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.appending import AppenderRuns, append
from labs.builders import at
from labs.command_line import Command
from labs.logs import refusal, write
from labs.samples import OBSERVER, SNAPSHOT, stamp
from tokgate.blocklog.records.lifecycle import phase_changed
from tokgate.blocklog.records.record import new_stamp
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.policy.analysis.timeline import transitions

KEY = ("--key", "block.pub")
MARCH = (at("2023-03-01T00:00:00Z"), at("2023-04-01T00:00:00Z"))
DOCS = Path(__file__).parents[3] / "docs" / "proof.md"


@pytest.fixture
def unpacked(tmp_path: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a case of three records of one client, among those of others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokgate.cli.log.report.BROWSERS", ())
    runs = AppenderRuns(tmp_path / "block.ndjson", options=LogOptions())
    run = runs.begin()
    for number in range(6):
        record = refusal(f"192.0.2.{7 + number % 2}")
        record["event"]["id"] = new_stamp(runs.now.add(seconds=number), OBSERVER).id
        append(run, record)
    runs.write(run, 0, attest=True)
    run.leave("closed")
    assert tokgate("log", "anchor", "-o", "anchor.txt").code == 0
    made = tokgate("log", "case", "--client", "192.0.2.7", *KEY, "--anchor", "anchor.txt", "-o", "case.zip")
    assert made.code == 0, made.err
    assert "without a PDF: PDF needs Chromium" in made.err
    with zipfile.ZipFile("case.zip") as archive:
        archive.extractall(tmp_path / "there")
    return tmp_path / "there" / "case"


type Check = Callable[..., subprocess.CompletedProcess[str]]


def by_its_verifier(folder: Path, *fingerprints: str) -> subprocess.CompletedProcess[str]:
    """What the verifier in the archive says; tokgate can't be imported."""
    program = "import runpy, sys; sys.modules['tokgate'] = None; sys.argv = sys.argv[1:]; "
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    return _run(folder, sys.executable, "-I", "-c", program, str(folder / "verify.py"), *fingerprints)


def by_the_docs(folder: Path, *fingerprints: str) -> subprocess.CompletedProcess[str]:
    """What the steps of docs/proof.md give with jq, OpenSSL and coreutils; there is no Python."""
    (program,) = re.findall(r"^```sh\n(.*?)^```", DOCS.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return _run(folder, "sh", "-c", program, "check.sh", *fingerprints, PATH="/usr/bin:/bin", PYTHONHOME="/nowhere")


def _run(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=env or None, capture_output=True, encoding="utf-8", check=False, timeout=60
    )


CHECKS = {"verifier": by_its_verifier, "docs": by_the_docs}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_it_is_checked_without_tokgate(unpacked: Path, tokgate: Command, check: Check) -> None:
    """Each record is proved and printed, by the key whose fingerprint is given."""
    said = check(unpacked, tokgate("log", "key", "--fingerprint").out.strip())
    assert said.returncode == 0, said
    assert said.stdout.count("192.0.2.7 (office) was refused") == 3
    assert check(unpacked, "ab" * 32).returncode == 1


def test_what_is_in_it(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {
        *("case.html", "records.ndjson", "places.csv", "bans.ndjson", "proofs", "checkpoint.txt", "anchors"),
        *("verify.py", "manifest.json", "manifest.sig"),
    }
    assert "192.0.2.8" not in (unpacked / "records.ndjson").read_text()
    _, first, *_ = (unpacked / "places.csv").read_text().splitlines()
    assert first.startswith("1,2023-03-10T11:00:00.000000Z,block.ndjson,1,")


def _forge(folder: Path) -> None:
    for path in (folder / "records.ndjson", next((folder / "proofs").iterdir())):
        path.write_text(path.read_text().replace("192.0.2.7", "192.0.2.9"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "case.html").write_text("other"), "case.html is gone, or another"),
        (lambda folder: next((folder / "proofs").iterdir()).unlink(), "has no proof"),
        (_forge, "the record was changed"),
        (lambda folder: (folder / "manifest.sig").write_text("AAAA"), "the manifest is not signed"),
        (
            lambda folder: (folder / "manifest.json").write_text((folder / "manifest.json").read_text() + " "),
            "not signed",
        ),
    ],
    ids=["page", "proof", "record", "signature", "manifest"],
)
def test_what_was_changed_is_said(
    unpacked: Path, tokgate: Command, change: Callable[[Path], object], said: str
) -> None:
    change(unpacked)
    fingerprint = tokgate("log", "key", "--fingerprint").out.strip()
    found = by_its_verifier(unpacked, fingerprint)
    assert (found.returncode, said in found.stderr) == (1, True)
    assert by_the_docs(unpacked, fingerprint).returncode != 0


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_key_that_took_over(tmp_path: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch, check: Check) -> None:
    """Verification, proof, report and case believe the same keys, in the order in which they took over."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokgate.cli.log.report.BROWSERS", ())
    runs, fingerprints = AppenderRuns(tmp_path / "block.ndjson", options=LogOptions()), list[str]()
    for number in (1, 2):
        run, record = runs.begin(), refusal("192.0.2.7")
        record["event"]["id"] = f"01862000-0000-7000-8000-00000000000{number}"
        append(run, record)
        runs.write(run, 0, attest=True)
        run.leave("closed")
        fingerprints.append(tokgate("log", "key", "--fingerprint").out.strip())
        for ending in ("key", "pub") if number == 1 else ():
            Path(f"block.{ending}").rename(f"first.{ending}")
    first, both = ("--key", "first.pub"), ("--key", "first.pub", "--key", "block.pub")
    proof, case = ("log", "prove", record["event"]["id"], "-o", "p.json"), ("log", "case", "--client", "192.0.2.7")
    for command in (("log", "verify"), proof, ("log", "report", "-o", "r.html"), (*case, "-o", "case.zip")):
        assert tokgate(*command, *first).code == 1, command
        assert tokgate(*command, *both).code == 0, command
    assert "Signatures were checked against the key given." in Path("r.html").read_text()
    with zipfile.ZipFile("case.zip") as archive:
        archive.extractall(tmp_path / "there")
    said = check(tmp_path / "there" / "case", *fingerprints)
    assert (said.returncode, said.stdout.count("192.0.2.7 (office) was refused")) == (0, 2), said
    assert check(tmp_path / "there" / "case", fingerprints[1]).returncode != 0


def test_what_is_told_of_a_ban(tmp_path: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history of the bans that the case is about, and of no other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tokgate.cli.log.report.BROWSERS", ())
    change = next(each for each in transitions(SNAPSHOT, *MARCH) if each.ban.name == "ban")
    own = phase_changed(stamp("2023-03-10T00:00:00Z"), change, "test")
    other = json.loads(json.dumps(own))
    other["tokgate"]["ban"] = "another"
    write(tmp_path / "block.ndjson", [own, other, refusal("192.0.2.7")])
    made = tokgate("log", "case", "--client", "192.0.2.7", "-o", "case.zip")
    assert "1 of 1 records have no proof" in made.err
    with zipfile.ZipFile("case.zip") as archive:
        assert [json.loads(line) for line in archive.read("case/bans.ndjson").splitlines()] == [own]


def test_anchors_of_one_name(unpacked: Path, tokgate: Command) -> None:
    """All are in it, each beside its own timestamp."""
    for folder in ("monday", "tuesday"):
        Path(folder).mkdir()
        for name in ("anchor.txt", "anchor.txt.tsr"):
            Path(folder, name).write_text(f"{folder} {name}")
    anchors = ("--anchor", "monday/anchor.txt", "--anchor", "tuesday/anchor.txt")
    assert tokgate("log", "case", "--client", "192.0.2.7", *KEY, *anchors, "-o", "two.zip").code == 0
    with zipfile.ZipFile("two.zip") as archive:
        kept = {name: archive.read(name).decode() for name in archive.namelist() if "anchors/" in name}
    assert kept == {
        "two/anchors/anchor.txt": "monday anchor.txt",
        "two/anchors/anchor.txt.tsr": "monday anchor.txt.tsr",
        "two/anchors/2/anchor.txt": "tuesday anchor.txt",
        "two/anchors/2/anchor.txt.tsr": "tuesday anchor.txt.tsr",
    }


def test_without_the_key(unpacked: Path, tokgate: Command) -> None:
    """Who may not read it makes a case all the same, and is told that its manifest is not signed."""
    Path("block.key").unlink()
    made = tokgate("log", "case", "--client", "192.0.2.7", *KEY, "-o", "again.zip")
    assert (made.code, "the manifest is not signed" in made.err) == (0, True)
    with zipfile.ZipFile("again.zip") as archive:
        assert json.loads(archive.read("again/manifest.json"))["key"] is None
    assert tokgate("log", "report", "-o", "report.zip").code == 2
