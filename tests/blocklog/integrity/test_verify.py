"""Tampering: every kind of change to a log is found and named by its place; what no one touched gives no finding."""

import base64
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whenever import Instant

from labs.appending import AppenderRuns
from labs.builders import present
from labs.samples import stamp
from tokgate.blocklog.atomic_file import zstd
from tokgate.blocklog.integrity import verify
from tokgate.blocklog.integrity.chain_state import Finding, FindingCode
from tokgate.blocklog.integrity.checkpoint import (
    Checkpoint,
    Tree,
    parse_checkpoints,
    read_key,
    read_public_key,
    sign,
)
from tokgate.blocklog.integrity.trusted_keys import ExternalCheckpoint, SigningState, TrustedKeys, checkpoints_in
from tokgate.blocklog.integrity.verify import TornLines, Verifier
from tokgate.blocklog.paths import end_of_archive, key_path_for, public_path_for
from tokgate.blocklog.records.chain import Head, link, proper_hash, stated_head
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.log_state import StrayLines, log_checkpoint, log_deleted, log_foreign
from tokgate.blocklog.records.record import Stamp
from tokgate.blocklog.write.appender import ForeignLines
from tokgate.blocklog.write.checkpointer import Checkpointer, LogOptions
from tokgate.blocklog.write.segment import Rotation

Lines = Callable[..., list[dict[str, Any]]]
SMALL = Rotation(max_bytes=2000, daily=False)
"""Files of some three records."""
ONE_EACH = Rotation(max_bytes=1, daily=False)


class Log(AppenderRuns):
    """A sealed log, as runs write it one after another. Records have the same stamp, unless a test lets time pass."""

    def __init__(self, path: Path, rotation: Rotation | None = None, **options: Any) -> None:
        self.kept: list[str] = []
        self.options: LogOptions
        super().__init__(path, rotation, LogOptions(outlets=(self.kept.append,), **options))
        self.begun: Instant | None = None

    def forget(self) -> None:
        """Take the log away, and what its writer knows of it."""
        self.path.unlink()
        self.path.with_suffix(".heads").unlink()

    def stamp(self) -> Stamp:
        return stamp() if self.begun is None else replace(stamp(), at=self.begun)

    @property
    def elsewhere(self) -> list[Checkpoint]:
        return list(parse_checkpoints(self.kept))

    @property
    def key(self) -> str:
        return read_public_key(public_path_for(key_path_for(self.path)))

    def findings(self, *trusted: str, elsewhere: bool = False, whole: bool = False) -> list[Finding]:
        return self.found(*trusted, kept=self.kept if elsewhere else (), whole=whole)

    def edit(self, change: Callable[[list[bytes]], object], path: Path | None = None) -> None:
        path = path or self.path
        lines = path.read_bytes().splitlines(keepends=True)
        change(lines)
        path.write_bytes(b"".join(lines))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """A log of three runs: records 1 to 12, of which 4, 8 and 12 are checkpoints."""
    log = Log(tmp_path / "block.ndjson")
    for _ in range(3):
        log.run(3)
    yield log
    assert not log.troubles


def codes(findings: list[Finding]) -> list[tuple[int, str]]:
    return [(finding.line, finding.code.value) for finding in findings]


def test_what_no_one_touched(log: Log, check_lines: Lines) -> None:
    """Three runs make one chain without a finding: signed to the end by the key beside it, kept elsewhere too."""
    records = check_lines(log.path)
    assert [record["event"]["sequence"] for record in records] == list(range(1, 13))
    verifier = Verifier([log.key], checkpoints_in(log.kept, "kept.txt"))
    assert list(verifier.run(log.files)) == []
    ((_, chain),) = verifier.chains.items()
    assert (chain.first, chain.head.sequence, chain.records, chain.signed) == (1, 12, 12, 11)
    assert len(log.elsewhere) == 3


def _line(change: Callable[[bytes], bytes]) -> Callable[[list[bytes]], None]:
    return lambda lines: lines.__setitem__(4, change(lines[4]))


change_text = _line(lambda line: line.replace(b"number 0", b"number 7"))
"""Another client is blamed."""
FOREIGN = json.dumps({"message": "hello", "event": {}}).encode() + b"\n"
"""A record of no chain."""


def change_and_rehash(lines: list[bytes]) -> None:
    """The same, with a hash that fits."""
    record = json.loads(lines[4].replace(b"number 0", b"number 7"))
    before = json.loads(lines[3])["event"]["hash"]
    record["event"]["hash"] = proper_hash(before, record)
    lines[4] = json.dumps(record).encode() + b"\n"


def rewrite_from(lines: list[bytes]) -> None:
    """Everything from a record on is hashed anew, checkpoints' signatures left as they were."""
    head = present(stated_head(json.loads(lines[3])))
    for index in range(4, len(lines)):
        record, head = link(head, json.loads(lines[index].replace(b"number 0", b"number 7")))
        lines[index] = json.dumps(record).encode() + b"\n"


def another_chain(lines: list[bytes]) -> None:
    """A second chain begins in the middle."""
    record, _ = link(Head("00000000-0000-4000-8000-000000000000"), json.loads(lines[0]))
    lines.insert(4, json.dumps(record).encode() + b"\n")


def forged_beside(lines: list[bytes]) -> None:
    """Of two records with one number the one is blamed that the next checkpoint doesn't lead back to."""
    head = present(stated_head(json.loads(lines[4])))
    lines.insert(6, json.dumps(link(head, stopped(stamp(), 1, "forged"))[0]).encode() + b"\n")


def old_checkpoint(lines: list[bytes]) -> None:
    """A checkpoint, copied behind a gap and renumbered, signs nothing there."""
    record = json.loads(lines[7])
    record["event"]["sequence"] = 20
    lines.append(json.dumps(record).encode() + b"\n")


TAMPERED: dict[str, tuple[Callable[[list[bytes]], object], list[tuple[int, str]]]] = {
    "another text": (change_text, [(5, "changed")]),
    "another text and hash": (change_and_rehash, [(5, "changed"), (8, "signature")]),
    "another number": (
        _line(lambda line: line.replace(b'"sequence":5,', b'"sequence":50,')),
        [(5, "missing"), (6, "order")],
    ),
    "rewritten": (rewrite_from, [(8, "signature"), (12, "signature")]),
    "a key twice": (
        _line(lambda line: line.replace(b'{"@timestamp":', b'{"message":"nothing happened","@timestamp":', 1)),
        [(5, "changed")],
    ),
    "swapped": (lambda lines: lines.__setitem__(slice(4, 6), lines[5:3:-1]), [(5, "missing"), (6, "order")]),
    "foreign": (lambda lines: lines.insert(4, FOREIGN), [(5, "unchained")]),
    "foreign after rubbish": (
        lambda lines: lines.__setitem__(slice(4, 4), [b"{\n", FOREIGN]),
        [(5, "torn"), (6, "unchained")],
    ),
    "another chain": (another_chain, [(5, "new-chain")]),
    "rubbish": (_line(lambda _: b'{"@timest\n'), [(5, "torn"), (6, "missing")]),
    "one gone": (lambda lines: lines.pop(4), [(5, "missing")]),
    "four gone": (lambda lines: lines.__delitem__(slice(2, 6)), [(3, "missing")]),
    "the first gone": (lambda lines: lines.pop(0), [(1, "missing")]),
    "a copy": (lambda lines: lines.insert(6, lines[4]), [(7, "order")]),
    "a copy at the end": (lambda lines: lines.append(lines[4]), [(13, "order")]),
    "an empty line": (lambda lines: lines.append(b"\n"), [(13, "torn")]),
    "a forged record beside the true one": (forged_beside, [(7, "foreign")]),
    "an old checkpoint": (old_checkpoint, [(13, "missing"), (13, "signature")]),
}


@pytest.mark.parametrize(("tamper", "expected"), TAMPERED.values(), ids=TAMPERED)
def test_every_change_is_found(
    log: Log, tamper: Callable[[list[bytes]], object], expected: list[tuple[int, str]]
) -> None:
    """Edits, deletions, insertions, copies and moves are found where they are, and nowhere else."""
    log.edit(tamper)
    assert codes(log.findings()) == expected


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda lines: lines.pop(4), "record 5 is missing before record 6"),
        (lambda lines: lines.__delitem__(slice(4, 6)), "records 5 to 6 are missing before record 7"),
        (rewrite_from, ": some of the records 5 to 7 were written anew"),
    ],
    ids=["one", "two", "rewritten"],
)
def test_what_is_said(log: Log, tamper: Callable[[list[bytes]], object], said: str) -> None:
    log.edit(tamper)
    assert log.findings()[0].message.endswith(said)


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ({"signature": base64.b64encode(bytes(64)).decode()}, "signature", "signature is not genuine"),
        (
            {"at": "2023-03-10T10:59:57.000000Z"},
            "clock",
            "time runs backwards: this checkpoint is of 2023-03-10T10:59:57",
        ),
        ({"tree": Tree(9, "ab" * 32)}, "signature", "this checkpoint's tree is of other records"),
        ({"sequence": 10}, "signature", "this checkpoint signs another record"),
        ({"hash": "ab" * 32}, "signature", "this checkpoint signs another record"),
        ({"changed": b"number 7"}, "changed", "or the record before it was written anew"),
    ],
    ids=["forged", "earlier", "another tree", "another number", "another hash", "none, and a record that was changed"],
)
def test_a_checkpoint_that_is_wrong(log: Log, wrong: dict[str, Any], code: str, said: str) -> None:
    """Whatever its key signed: over records that aren't those before it, or with a time before the last one's.

    Without a tree, as older versions signed, what was changed, or the record before it, is told all the same.
    """
    private, _ = read_key(key_path_for(log.path))

    def sign_anew(lines: list[bytes]) -> None:
        head = present(stated_head(json.loads(lines[10])))
        other = replace(head, **{key: value for key, value in wrong.items() if key in ("sequence", "hash")})
        made = sign(private, other, wrong.get("at", "2023-03-10T11:00:00.000000Z"), 0, tree=wrong.get("tree"))
        made = replace(made, signature=wrong.get("signature", made.signature))
        lines[11] = json.dumps(link(head, log_checkpoint(stamp(), made.as_json()))[0]).encode() + b"\n"
        lines[9] = lines[9].replace(b"number 1", wrong.get("changed", b"number 1"))

    log.edit(sign_anew)
    verifier = Verifier()
    (found,) = verifier.run(log.files)
    assert (found.line, found.code) == (10 if code == "changed" else 12, code)
    assert said in found.message
    if code == "signature":  # it covers nothing
        assert [chain.signed for chain in verifier.chains.values()] == [7]


@pytest.mark.parametrize("kept", [11, 10, 9, 8, 1])
def test_a_cut_tail(log: Log, kept: int) -> None:
    """The chain alone can't show it; a checkpoint that was kept elsewhere does, also if only that itself is gone."""
    log.edit(lambda lines: lines.__delitem__(slice(kept, None)))
    assert log.findings() == []
    assert codes(log.findings(elsewhere=True)) == [(kept, "cut")]


def test_a_log_written_anew_by_another_key(log: Log, tmp_path: Path) -> None:
    """Who can write the log can sign it with a key of their own; not with the one that is trusted."""
    forged = Log(tmp_path / "forged" / "block.ndjson")
    forged.run(3)
    assert forged.findings() == []
    forged.run(3)
    assert [finding.code for finding in forged.findings(log.key)] == [
        FindingCode.KEY,
        FindingCode.KEY,
    ]  # told once, and as a whole
    found = list(Verifier([log.key], checkpoints_in(log.kept, "kept.txt")).run(forged.files))
    (gone,) = [finding for finding in found if finding.code is FindingCode.CUT]
    assert (gone.file, gone.line) == ("kept.txt", 3)
    assert "attested up to record 11 by this checkpoint, is gone" in gone.message


def test_a_cut_archive(tmp_path: Path) -> None:
    """A compressed file that was cut ends in a finding, and the files after it are verified all the same."""
    log = Log(tmp_path / "block.ndjson", SMALL)
    log.run(12)
    first = log.files[0]
    whole = first.read_bytes()
    Path(f"{first}.gz").write_bytes(gzip.compress(whole, 0)[:-500])  # stored, not packed: it can be read to the cut
    first.unlink()
    log.edit(change_last, log.files[-1])
    found = log.findings()
    assert found[0].code is FindingCode.UNREADABLE
    octets = present(re.search("from octet ([0-9]+) ", found[0].message))
    assert whole[: int(octets[1])].count(b"\n") + 1 == found[0].line > 1
    assert found[-1].code is FindingCode.CHANGED


@pytest.mark.parametrize(
    "error", [OSError("bad"), EOFError("bad"), zlib.error("bad"), zstd.ZstdError("bad"), ValueError("bad")], ids=repr
)
def test_a_file_that_cannot_be_read(log: Log, error: Exception) -> None:
    """Whatever reading it raises is a finding in its place, and the files after it are verified."""

    class Broken(io.BytesIO):
        def readline(self, _: int | None = -1) -> bytes:
            raise error

    later = log.path.with_name("later.ndjson")
    log.path.rename(later)
    log.path.touch()
    verifier = Verifier((), (), lambda path: Broken() if path == log.path else path.open("rb"))
    (found,) = verifier.run([log.path, later])
    assert (found.file, found.line, found.code) == (str(log.path), 1, FindingCode.UNREADABLE)
    assert found.message == "the rest can't be read, from octet 0 of its lines on: bad"
    assert verifier.lines == 12


def change_last(lines: list[bytes]) -> None:
    lines[-1] = lines[-1].replace(b"gw1.example.org", b"gw2.example.org")


@pytest.mark.parametrize("torn", [True, False])
@pytest.mark.parametrize("journal", [True, False])
def test_a_restart_after_the_file_was_moved(tmp_path: Path, journal: bool, torn: bool) -> None:
    """When logrotate moved the file while nothing ran, the next run goes on from what it moved."""
    log = Log(tmp_path / "block.ndjson")
    log.run(2)
    if not journal:
        log.path.with_suffix(".heads").unlink()
    log.stray(b'{"@times' if torn else b"")
    log.path.rename(tmp_path / "block.ndjson.1")
    log.run(2)
    first = json.loads(log.path.read_bytes().splitlines()[0])
    assert first["event"]["sequence"] == 4
    continues, whole = first["tokgate"]["continues"], (tmp_path / "block.ndjson.1").read_bytes()
    assert (continues["file"], continues["sequence"], continues["bytes"]) == ("block.ndjson.1", 3, len(whole))
    assert continues["records"] == whole.count(b"\n") + torn
    assert first["tokgate"].get("torn", {}).get("bytes") == (8 if torn else None)
    assert log.findings() == []


@pytest.mark.parametrize("torn", [b"{", b'{"a":1', b"\0" * 4096, b"{\n{"], ids=repr)
def test_after_a_crash(log: Log, torn: bytes) -> None:
    """Torn lines, also of runs that died before they told, are accepted in exactly the shape that is told of."""
    log.stray(torn)
    lines = torn.removesuffix(b"\n").count(b"\n") + 1
    assert codes(log.findings()) == ([(13 + number, "torn") for number in range(lines)] if b"\n" in torn else [])
    log.run(2)
    assert log.findings() == []
    log.edit(lambda lines: lines.__setitem__(12, b"x" + lines[12]))
    in_order = [*((13 + number, "torn") for number in range(lines)), (13 + lines, "recovery")]
    assert codes(log.findings()) == in_order


def test_a_last_line_without_an_end(log: Log) -> None:
    """Its writer is at work, or will tell of it: no finding, unless it begins as no record does."""
    log.stray(b"hello")
    assert codes(log.findings()) == [(13, "torn")]
    log.edit(lambda lines: lines.__setitem__(12, b'{"@timesta'))
    verifier = Verifier()
    assert list(verifier.run(log.files)) == []
    assert verifier.unfinished == (str(log.path), 13)


def test_a_checkpoint_every_so_many_records(tmp_path: Path) -> None:
    """Long runs are signed while they last."""
    log = Log(tmp_path / "block.ndjson", records=5)
    log.run(20, attest=False)
    assert [checkpoint.head.sequence for checkpoint in log.elsewhere] == [5, 11, 17, 23]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_changed_octet_is_found(log: Log, data: st.DataObject) -> None:
    """Whatever octet is changed, to whatever: something is found, unless the content stayed the same."""
    whole = log.path.read_bytes()
    index = data.draw(st.integers(0, len(whole) - 2))
    octet = data.draw(st.integers(0, 255).filter(lambda value: value != whole[index]))
    before = [json.loads(line) for line in whole.splitlines()]
    log.path.write_bytes(whole[:index] + bytes([octet]) + whole[index + 1 :])
    try:
        try:
            same = [json.loads(line) for line in log.path.read_bytes().split(b"\n")[:-1]] == before
        except ValueError:
            same = False
        assert same or log.findings(elsewhere=True)
    finally:
        log.path.write_bytes(whole)


@pytest.mark.parametrize(
    "disguise",
    [
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line[:-1] + b" " * (1 << 20) + b"\n",
        lambda line: line[:-1].decode().encode("utf-16-be").replace(b"\n", b"") + b"\n",
        lambda line: b"\0" + line,
        lambda line: b"\x0c" + line,
        lambda line: line[:-1] + b"{}\n",
        lambda line: b"[" + line[:-1] + b"]\n",
    ],
    ids=["byte order mark", "too long", "utf-16", "nul", "form feed", "two", "array"],
)
def test_what_some_reader_would_pass_over(log: Log, disguise: Callable[[bytes], bytes]) -> None:
    """A record may not be hidden from summaries in a spelling that only the verifier still reads."""
    log.edit(lambda lines: lines.__setitem__(4, disguise(lines[4])))
    assert codes(log.findings()) == [(5, "torn"), (6, "missing")]


def write_anew(log: Log, after: int, say: str, *, signing: bool) -> None:
    """What an intruder does: later records get other contents and hashes; checkpoints are left out, or signed anew."""
    private, _ = read_key(key_path_for(log.path))

    def anew(lines: list[bytes]) -> None:
        head = present(stated_head(json.loads(lines[after - 1])))
        records, lines[after:] = [json.loads(line) for line in lines[after:]], []
        for record in records:
            if record["event"]["action"] == "log-checkpoint":
                if not signing:
                    continue
                checkpoint = sign(private, head, record["tokgate"]["checkpoint"]["at"], 0)
                log.kept.append(checkpoint.message())
                record["tokgate"]["checkpoint"] = checkpoint.as_json()
            linked, head = link(head, record | {"message": say})
            lines.append(json.dumps(linked).encode() + b"\n")

    log.edit(anew)


@pytest.mark.parametrize(("count", "told"), [(4, False), (5, True)])
def test_as_many_records_as_may_stand_unsigned(
    log: Log, monkeypatch: pytest.MonkeyPatch, count: int, told: bool
) -> None:
    """A run that was killed just before its next checkpoint raises no alarm; one record more does."""
    monkeypatch.setattr(verify, "MOST_UNSIGNED", 4)
    log.run(count, attest=False)
    assert codes(log.findings(log.key)) == ([(12 + count, "unsigned")] if told else [])
    log.run(1)  # it signs all of it
    assert not told or "unsigned" in {one.code for one in log.findings(log.key)}


def test_a_tail_without_checkpoints_for_too_long(tmp_path: Path) -> None:
    """A few records of several hours that nothing signs; a minute's are left by any run that was killed."""
    begun = Instant.from_utc(2023, 3, 11)
    for minutes, expected in ((9, []), (10, []), (11, [(4, "unsigned")])):
        log = Log(tmp_path / str(minutes) / "block.ndjson")
        log.run(1)
        log.begun = begun
        log.run(1, attest=False)
        log.begun = begun.add(minutes=minutes)
        log.run(1, attest=False)
        assert codes(log.findings(log.key)) == expected


def test_a_log_written_anew_with_the_key(log: Log) -> None:
    """Checkpoints by the key for the same numbers don't make those forgotten that were kept before."""
    write_anew(log, 5, "nothing happened", signing=True)
    assert log.findings(log.key) == []
    found = log.findings(log.key, elsewhere=True)
    assert [(one.file, one.line, one.code.value) for one in found] == [
        (str(log.path), 7, "contradicted"),
        (str(log.path), 11, "contradicted"),
        ("kept.txt", 4, "contradicted"),
        ("kept.txt", 5, "contradicted"),
    ]
    assert "the key signed two logs" in found[-1].message


def test_checkpoints_of_others_are_passed_over_and_counted(log: Log, tmp_path: Path) -> None:
    """Whoever can send to the log host can't make a good log look bad; without a trusted key no chain is missed."""
    other = Log(tmp_path / "other" / "block.ndjson")
    other.run(2)
    forged = sign(Ed25519PrivateKey.generate(), Head(log.elsewhere[0].head.chain, 99, "0" * 64), "2023", 0)
    broken = log.kept[0].replace('"sequence":3', '"sequence":99')
    kept = [
        ExternalCheckpoint(one, ("kept.txt", 1))
        for one in parse_checkpoints([*other.kept, forged.message(), broken, *log.kept])
    ]
    verifier = Verifier([log.key], kept)
    assert list(verifier.run(log.files)) == []
    assert verifier.elsewhere.strange == 3
    assert list(Verifier((), checkpoints_in([*log.kept, *other.kept], "kept.txt")).run(log.files)) == []


def test_evolving_keys_of_several_chains(tmp_path: Path) -> None:
    """The keys of what was kept are followed from one chain to the next, however the chains are called."""
    log = Log(tmp_path / "block.ndjson", forward_secure=True)
    for _ in range(8):
        log.run(1)
        log.forget()
    log.run(1)
    assert len({one.head.chain for one in log.elsewhere}) == 9
    verifier = Verifier([log.key], checkpoints_in(log.kept, "kept.txt"))
    assert sum(finding.code is FindingCode.CUT for finding in verifier.run(log.files)) == 8
    assert verifier.elsewhere.strange == 0


def test_a_key_that_took_over(log: Log) -> None:
    """Keys that are given vouch one after the other; the earlier one may not come back."""
    first, private = log.key, key_path_for(log.path).read_bytes()
    key_path_for(log.path).unlink()
    log.run(1)
    second = log.key
    assert codes(log.findings(first)) == [(14, "key")]
    assert codes(log.findings()) == [(14, "key")]
    assert codes(log.findings(second, first)) == [(14, "key")]
    assert log.findings(first, second) == []
    key_path_for(log.path).unlink()
    log.run(1)
    assert log.findings(first, second, log.key) == []
    key_path_for(log.path).write_bytes(private)
    log.run(1)
    assert log.findings(first, second)
    assert [type(error) for error in log.troubles] == [ForeignLines]  # it finds what it didn't sign
    log.troubles.clear()


def test_a_whole_log_begins_at_its_beginning(tmp_path: Path) -> None:
    """Files that are gone are missing where all should be there, unless a record tells that their time was over."""
    log = Log(tmp_path / "block.ndjson", SMALL)
    log.run(12)
    assert log.findings(whole=True) == []
    gone = log.files[0]
    gone.unlink()
    assert log.findings() == []
    (found,) = log.findings(whole=True)
    assert (found.file, found.line, found.code) == (str(log.files[0]), 1, FindingCode.MISSING)
    assert f"(the last were in {gone.name})" in found.message


def retained(tmp_path: Path, name: str = "block.ndjson") -> Log:
    """A log of twelve files, of which all but the current one are older than a day, and none was deleted."""
    log = Log(tmp_path / name, ONE_EACH)
    log.begun = Instant.from_utc(2023, 3, 1)
    log.run(11)
    log.rotation = Rotation(daily=False)
    log.begun = Instant.from_utc(2023, 3, 5)
    return log


def test_files_deleted_under_a_forged_record(tmp_path: Path) -> None:
    """Who deletes files and appends a record that says tokgate did it is not believed: the record is not signed."""
    log = retained(tmp_path)
    log.run(1)
    *old, _ = log.files
    assert len(old) >= 11
    log.forge(log_deleted(log.stamp(), [path.name for path in old], 1))
    assert log.findings(whole=True) == []
    for path in old:
        path.unlink()
    assert codes(log.findings(log.key, elsewhere=True, whole=True)) == [(1, "missing")]


def test_files_deleted_before_their_time(tmp_path: Path) -> None:
    """A record that names files younger than it says, or of no known age, is a finding for each, and not believed."""
    log = retained(tmp_path)
    log.run(1)
    *old, last = (path.name for path in log.files)
    wrong: list[tuple[list[str], object]] = [([old[0], last], 1), (old[:2], 5), (old[:2], 0), (old[:2], "1")]
    for names, days in (*wrong, (old[:2], 10**9)):
        kept = log.path.read_bytes()
        record = log_deleted(log.stamp(), names, 1)
        record["tokgate"]["deleted"]["days"] = days
        log.forge(record)
        found = [finding.code for finding in log.findings(log.key, whole=True)]
        assert found == [FindingCode.DELETED] * (1 if last in names else 2)
        log.path.write_bytes(kept)
    record = log_deleted(log.stamp(), old[:2], 1)
    record["@timestamp"] = "yesterday"
    log.forge(record)
    assert [finding.code for finding in log.findings(log.key, whole=True)] == [FindingCode.DELETED] * 2


@pytest.mark.parametrize(("early", "expected"), [(0, []), (1, [FindingCode.DELETED])])
def test_a_file_deleted_to_the_microsecond(tmp_path: Path, early: int, expected: list[FindingCode]) -> None:
    """The day for which a file was to be kept has all of its 24 hours."""
    log = retained(tmp_path)
    log.run(1)
    first = log.files[0].name
    ended = present(end_of_archive(first))
    log.begun = ended.add(hours=24).subtract(microseconds=early)
    log.forge(log_deleted(log.stamp(), [first], 1))
    assert [one.code for one in log.findings(whole=True) if one.code is not FindingCode.CLOCK] == expected


@pytest.mark.parametrize("name", ["block.ndjson", "block", "block.log.json"])
def test_files_that_tokgate_deleted(tmp_path: Path, name: str) -> None:
    """A kill right after the files went leaves no finding: the record that names them was signed before."""
    log = retained(tmp_path, name)
    log.run(1)  # its checkpoint says how late it is
    log.options = replace(log.options, retention_days=2)
    log.run(1, attest=False)
    assert len(log.files) == 1
    assert log.findings(log.key, elsewhere=True, whole=True) == []
    log.run(2, attest=False)
    assert log.findings(log.key, elsewhere=True, whole=True) == []


def test_a_broken_list_of_deleted_files(tmp_path: Path) -> None:
    """Each record of deletions begins where the one before it ended; files that fall between are told."""
    log = retained(tmp_path)
    log.run(1)
    old = [path.name for path in log.files][:-1]
    for follows, missed, expected in ((old[1], (), 0), (old[3], (), 1), (old[1], (old[2],), 1), (None, (), 0)):
        kept = log.path.read_bytes()
        log.forge(log_deleted(log.stamp(), old[:2], 1))
        log.forge(log_deleted(log.stamp(), old[2:4], 1, follows=follows, missed=missed))
        assert [one.code for one in log.findings(whole=True)] == [FindingCode.DELETED] * expected
        log.path.write_bytes(kept)
    # The record that named the files before these was itself in a file whose time is over.
    log.forge(log_deleted(log.stamp(), old[2:4], 1, follows=old[1]))
    assert log.findings(whole=True) == []


@pytest.mark.parametrize("message", ["Two lines were put in.", None])
def test_what_a_record_says_of_others(log: Log, message: str | None) -> None:
    """The finding has the record's own words, where it has any."""
    record = log_foreign(stamp(), StrayLines(2, 5).said() | {"line": 7, "file": "block.ndjson", "running": False})
    log.forge(record | {"message": message})
    (found,) = log.findings()
    assert (found.line, found.code) == (13, FindingCode.FOREIGN)
    assert found.message == (message or "the log was written by others")


def test_retention_goes_on_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the key can't be used files still go when their time is over, and verification says what it can't tell."""
    log = retained(tmp_path)
    key = key_path_for(log.path)
    key.unlink()
    key.mkdir()
    log.options = replace(log.options, retention_days=2)
    for name in ("SETTLED", "_APART"):
        monkeypatch.setattr(f"tokgate.blocklog.write.retention.{name}", 0.0)
    monkeypatch.setattr("tokgate.blocklog.write.retention.STEP_EVERY", 0.0)
    run = log.begin()
    for _ in range(3):
        log.write(run, attest=True)
    assert len(log.files) == 1
    assert [finding.code for finding in log.findings(whole=True)] == [FindingCode.MISSING]


def test_a_continuation_in_the_middle_of_a_file(log: Log, tmp_path: Path) -> None:
    """Records of another log can't be put in without those before them by saying that they continue some file."""
    other = Log(tmp_path / "other" / "block.ndjson", SMALL)
    other.begun = Instant.from_utc(2023, 1, 1)
    other.run(12)
    log.edit(lambda lines: lines.extend(other.files[1].read_bytes().splitlines(keepends=True)))
    assert codes(log.findings())[:2] == [(13, "new-chain"), (13, "missing")]


def test_a_continuation_of_another_number(tmp_path: Path) -> None:
    """What a file's first record says of the file before it has to fit its own number: else records are missing."""
    for number, expected in ((4, []), (3, [(1, "missing")])):
        file = tmp_path / f"{number}.ndjson"
        record = stopped(stamp(), 1, "SIGTERM")
        record["tokgate"] = {"continues": {"sequence": number, "hash": "ab" * 32}}
        file.write_bytes(json.dumps(link(Head("chain", 4, "ab" * 32), record)[0]).encode() + b"\n")
        assert codes(list(Verifier().run([file]))) == expected


def test_a_change_behind_the_last_checkpoint(log: Log) -> None:
    """Of a run that was killed: what nothing signs yet still has to fit."""
    log.run(3, attest=False)
    log.edit(lambda lines: lines.__setitem__(13, lines[13].replace(b"number 1", b"number 7")))
    assert codes(log.findings()) == [(14, "changed")]


@pytest.mark.parametrize("other", [{"bytes": 10}, {"sha256": "ab" * 32}, {"lines": 3}, {}])
def test_a_recovery_record_tells_of_those_lines_alone(other: dict[str, object]) -> None:
    """What stands torn in a file was there when the writer came back, octet for octet; else somebody put it in."""
    rubble = TornLines()
    for number, raw in enumerate((b"half\n", b"a line")):
        rubble.add(("block.ndjson", number), raw)
    content = b"half\na line"
    torn = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "lines": 2}
    assert rubble.is_reported_by({"tokgate": {"torn": torn | other}}) is (not other)


@pytest.mark.parametrize(
    ("event", "belongs"),
    [
        ({"sequence": 1}, True),
        *(({"sequence": wrong}, False) for wrong in (0, True, "1", None)),
        *(({"hash": wrong}, False) for wrong in ("ab" * 31, "AB" * 32, "ab" * 33, 7, None)),
    ],
)
def test_numbers_of_records(event: dict[str, object], belongs: bool) -> None:
    """What is no number from 1 on, or no hash, is in no chain: the line is told as put in, not taken for the first."""
    record = {"event": {"sequence": 1, "hash": "ab" * 32} | event, "tokgate": {"chain": "chain"}}
    assert (stated_head(record) is not None) is belongs
    for other in ({"tokgate": {"chain": 7}}, {"tokgate": "chain"}, {"event": "1"}):
        assert stated_head(record | other) is None


@pytest.mark.parametrize("field", ["key", "signature"])
def test_a_checkpoint_has_one_spelling(field: str) -> None:
    """Base64 with other characters in between is refused, as other verifiers do."""
    made = sign(Ed25519PrivateKey.generate(), Head("c", 5, "0" * 64), "2023-03-10T11:00:00.000000Z", 0)
    assert made.genuine
    text = getattr(made, field)
    for other in (f"{text[:8]} {text[8:]}", f"{text[:8]}!{text[8:]}", f"{text}\n", text[1:], ""):
        assert not (replace(made, key=other) if field == "key" else replace(made, signature=other)).genuine


def test_what_can_have_no_hash() -> None:
    """A record that JSON can't say, or that is nested without end, is a finding and doesn't end the verification."""
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]
    for value in (float("nan"), float("inf"), deep):
        assert proper_hash("00" * 32, {"event": {}, "value": value}) is None
    with pytest.raises(ValueError, match="JSON"):
        link(Head("chain"), {"value": float("nan")})


def test_an_earlier_epoch_signs_no_more() -> None:
    """A key that was stolen after it was replaced can't sign what came after, even though it was trusted once."""
    mine = Checkpoint(head=Head("chain", 9), at="2023-03-10T11:00:00Z", epoch=5, key="key-5", next_key="key-6")
    signed = SigningState(8)
    signed.by(mine)
    trust = TrustedKeys()
    assert trust.in_turn(signed, replace(mine, key="key-6", epoch=6))
    assert trust.in_turn(signed, mine)
    assert not trust.in_turn(signed, replace(mine, epoch=4))


def test_a_key_that_fails_is_tried_once_for_a_record(tmp_path: Path) -> None:
    """A key file that others may read is told of once for what is due, not at every turn of the writer."""
    key, told = tmp_path / "block.key", list[Exception]()
    key.write_bytes(b"no key")
    checkpointer = Checkpointer(tmp_path / "block.ndjson", LogOptions(), told.append)
    checkpointer.wrote(Head("chain", 7), None)
    assert checkpointer.unattested == 7
    assert checkpointer.checkpoint(checkpointer.head, "2023-03-10T11:00:00Z") is None
    assert (checkpointer.unattested, len(told)) == (0, 1)


def test_torn_lines_taken_out_at_a_files_end(tmp_path: Path) -> None:
    """The next file tells of them, which is taken for granted only where the file before it isn't given."""
    log = Log(tmp_path / "block.ndjson")
    log.run(2)
    log.stray(b'{"@times')
    log.path.rename(tmp_path / "block.ndjson.1")
    log.run(2)
    assert log.findings() == []
    log.edit(lambda lines: lines.pop(), tmp_path / "block.ndjson.1")
    assert codes(log.findings()) == [(1, "recovery")]
    assert list(Verifier().run([log.path])) == []
