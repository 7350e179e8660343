"""Proof of one record: anybody can check it with the verifier of the docs, and nothing that was changed passes."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns, append, kill
from labs.builders import present
from labs.logs import refusal
from tokgate.blocklog.integrity.checkpoint import Tree, fingerprint, read_key, read_public_key, sign
from tokgate.blocklog.integrity.evidence import NoProof, prove
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import key_path_for
from tokgate.blocklog.records.chain import link, proper_hash, stated_head
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.log_state import log_checkpoint
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.segment import Rotation

DOCS = Path(__file__).parents[3] / "docs" / "proof.md"
MOST_LINES = 50


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (program,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    path = tmp_path_factory.mktemp("docs") / "verify_proof.py"
    path.write_text(program, "utf-8")
    return path


def checked(
    verifier: Path, proof: dict[str, Any] | str, digest: str, *options: str
) -> subprocess.CompletedProcess[str]:
    """What the verifier says of a proof, or of JSON, in an interpreter that has no packages."""
    path = verifier.with_name("proof.json")
    path.write_text(proof if isinstance(proof, str) else json.dumps(proof), "utf-8")
    command = [sys.executable, "-I", "-S", *options, str(verifier), str(path), digest]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


class Log(AppenderRuns):
    """A log of refusals and checkpoints, as one run writes it."""

    def __init__(self, path: Path, rotation: Rotation | None = None) -> None:
        super().__init__(path, rotation)
        self.ids: list[str] = []
        self.appender = self.begin()

    def put(self, count: int, *, attest: bool = True) -> None:
        """Write refusals, then a record that the run ends and a checkpoint."""
        for number in range(count):
            record = refusal(f"192.0.2.{number % 250 + 1}")
            record["event"]["id"] = self.stamp().id
            record["user_agent"] = {"original": "Bücher/\u2028 \ud800 1.0"}  # what JSON can say in several ways
            self.ids.append(record["event"]["id"])
            self.appender.add(record)
        append(self.appender)
        if attest:
            self.write(self.appender, attest=True)

    @property
    def fingerprint(self) -> str:
        return fingerprint(read_public_key(self.path.with_suffix(".pub")))


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Six refusals under one checkpoint."""
    log = Log(tmp_path / "block.ndjson")
    log.put(6)
    return log


def test_the_verifier_is_short(verifier: Path) -> None:
    """A court's expert can read all of it: fifty lines, and only Python's own modules."""
    lines = [line for line in verifier.read_text("utf-8").splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
    imports = [line for line in lines if line.startswith(("import ", "from "))]
    assert imports == ["import hashlib, json, sys", "from base64 import b64decode"]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_every_record_is_proved(tmp_path: Path, verifier: Path, count: int) -> None:
    """The first, the last and those between, of trees of several sizes; the proof holds no other record's content."""
    log = Log(tmp_path / "block.ndjson")
    log.put(3)
    log.put(count)
    for event in (log.ids[0], log.ids[3], log.ids[-1], log.ids[len(log.ids) // 2]):
        proof = prove(event, log.files)
        assert json.dumps(proof).count('"message"') == 1
        said = checked(verifier, proof, log.fingerprint)
        assert (said.returncode, said.stderr) == (0, "")
        assert said.stdout.startswith(f"record {proof['record']['event']['sequence']} of chain")
    assert not log.troubles


def _at(*path: Any, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    """Change what a proof has at a path."""

    def forge(proof: dict[str, Any]) -> None:
        place: Any = proof
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = change(place[path[-1]])

    return forge


def _rehashed(proof: dict[str, Any]) -> None:
    proof["record"]["source"]["ip"] = "192.0.2.99"
    proof["record"]["event"]["hash"] = proper_hash(proof["previous"], proof["record"])


FORGED = {
    "record": _at("record", "source", "ip", change=lambda _: "192.0.2.99"),
    "record and hash": _rehashed,
    "place": _at("tree", "index", change=lambda index: index + 1),
    "size": _at("tree", "size", change=lambda size: size + 1),
    "signature": _at("checkpoint", "signature", change=lambda said: ("B" if said[0] == "A" else "A") + said[1:]),
    "time": _at("checkpoint", "at", change=lambda _: "2023-03-09T11:00:00.000000Z"),
    "chain": _at("checkpoint", "chain", change=lambda _: "00000000-0000-4000-8000-000000000000"),
    "step": _at("tree", "path", -1, change=lambda _: "ab" * 32),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_was_changed_does_not_pass(log: Log, verifier: Path, forge: Callable[[dict[str, Any]], None]) -> None:
    """Whichever part of a proof is another: the verifier says so, and ends with an error."""
    proof = prove(log.ids[2], log.files)
    forge(proof)
    said = checked(verifier, proof, log.fingerprint)
    assert said.returncode != 0
    assert said.stdout == ""


def test_the_record_that_was_proved_is_printed(log: Log, verifier: Path) -> None:
    """A proof in which the record stands twice shows a reader the first, and proves the last."""
    proof = prove(log.ids[1], log.files)
    forged = json.dumps({"record": {"source": {"ip": "192.0.2.99"}}})[:-1] + ", " + json.dumps(proof)[1:]
    said = checked(verifier, forged, log.fingerprint).stdout
    del proof["record"]["event"]["hash"]
    assert json.loads(said[said.index("{") :]) == proof["record"]
    assert "192.0.2.99" not in said


def test_no_check_is_left_out(log: Log, verifier: Path) -> None:
    """Python without assertions would pass everything."""
    done = checked(verifier, prove(log.ids[1], log.files), log.fingerprint, "-O")
    assert (done.returncode, done.stdout) == (1, "")
    assert "without -O" in done.stderr


def test_another_key(log: Log, verifier: Path, tmp_path: Path) -> None:
    """A log that somebody signed with a key of their own proves nothing to who knows the fingerprint."""
    other = Log(tmp_path / "other" / "block.ndjson")
    other.put(2)
    said = checked(verifier, prove(other.ids[0], other.files), log.fingerprint)
    assert "another key signed this" in said.stderr


def test_over_files(tmp_path: Path, verifier: Path) -> None:
    """A tree that begins in a file before, or ends in one after, compressed or not."""
    log = Log(tmp_path / "block.ndjson", Rotation(max_bytes=9000, daily=False))
    for _ in range(4):
        log.put(5)
    assert len(log.files) > 3
    first = log.files[0]
    Path(f"{first}.gz").write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    for event in log.ids:
        assert checked(verifier, prove(event, log.files), log.fingerprint).returncode == 0


def test_what_has_no_proof(log: Log) -> None:
    """No such record, no checkpoint yet, a record that was changed: each is said in a sentence."""
    log.put(1, attest=False)
    with pytest.raises(NoProof, match="no record of these files has the id 01862000"):
        prove("01862000-0000-7000-8000-00000000000f", log.files)
    with pytest.raises(NoProof, match=r"no checkpoint covers .* yet"):
        prove(log.ids[-1], log.files)
    content = log.path.read_bytes()
    log.path.write_bytes(content.replace(b'"ip":"192.0.2.2"', b'"ip":"192.0.2.3"', 1))
    with pytest.raises(NoProof, match="does not fit those before it"):
        prove(log.ids[1], log.files)
    log.path.write_bytes(b"".join(content.splitlines(keepends=True)[1:]))
    with pytest.raises(NoProof, match=r"isn't whole here|does not fit"):
        prove(log.ids[1], log.files)


def test_several_checkpoints_in_one_batch(tmp_path: Path, verifier: Path) -> None:
    """The tree of each begins after the one before it, also where all are written at once."""
    log = Log(tmp_path / "block.ndjson")
    log.put(1, attest=False)
    events = [stopped(log.stamp(), 1, f"number {number}") for number in range(4)]
    for number, event in enumerate(events):
        log.appender.add(event)
        if number % 2:
            log.appender.attest()
    append(log.appender)
    assert list(Verifier([]).run(log.files)) == []
    for event in events:
        assert checked(verifier, prove(event["event"]["id"], log.files), log.fingerprint).returncode == 0


def test_a_forged_record_has_no_proof(log: Log) -> None:
    """One whose number and hash fit, beside the true one that is signed; nor one under a false tree."""
    lines = log.path.read_bytes().splitlines(keepends=True)
    head = present(stated_head(json.loads(lines[0])))
    forged = stopped(log.stamp(), 1, "forged")
    log.path.write_bytes(b"".join([*lines[:2], encode(link(head, forged)[0]), *lines[2:]]))
    with pytest.raises(NoProof, match="signs other records"):
        prove(forged["event"]["id"], log.files)
    assert prove(log.ids[1], log.files)
    private, _ = read_key(key_path_for(log.path))
    last = present(stated_head(json.loads(lines[-2])))
    false = sign(private, last, "2023-03-10T11:00:00.000000Z", 0, tree=Tree(1, "ab" * 32))
    log.path.write_bytes(b"".join([*lines[:-1], encode(link(last, log_checkpoint(log.stamp(), false.as_json()))[0])]))
    with pytest.raises(NoProof, match="signs other records"):
        prove(log.ids[1], log.files)


def test_a_checkpoint_of_another_log(tmp_path: Path) -> None:
    """It proves nothing of this one, whose own checkpoint is still to come."""
    log, other = Log(tmp_path / "block.ndjson"), Log(tmp_path / "other" / "block.ndjson")
    log.put(1, attest=False)
    other.put(1)
    both = tmp_path / "both.ndjson"
    both.write_bytes(log.path.read_bytes() + other.path.read_bytes())
    with pytest.raises(NoProof, match=r"no checkpoint covers .* yet"):
        prove(log.ids[0], [both])


@pytest.mark.parametrize("count", [0, 1])
def test_records_that_no_tree_covers(tmp_path: Path, count: int) -> None:
    """A run that finds no journal of the one before signs its records by the chain alone, which proves none of them."""
    log = Log(tmp_path / "block.ndjson")
    log.put(2, attest=False)
    kill(log.appender)
    log.path.with_suffix(".heads").unlink()
    later = Log(tmp_path / "block.ndjson")
    later.appender.ready()
    later.put(count, attest=False)
    later.write(later.appender, 0, attest=True)
    with pytest.raises(NoProof, match="has no tree that covers it"):
        prove(log.ids[1], later.files)


def test_records_of_a_killed_run(log: Log, verifier: Path) -> None:
    """What was written before a kill is covered by the next run's first tree."""
    log.put(3, attest=False)
    kill(log.appender)
    later = Log(log.path)
    later.put(1)
    assert checked(verifier, prove(log.ids[7], later.files), log.fingerprint).returncode == 0
