"""Runs that follow each other: a writer knows its own last lines, and takes nobody else's for them."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns, append, kill
from tokgate.blocklog.integrity.chain_state import FindingCode
from tokgate.blocklog.paths import heads_path_for, with_rotated
from tokgate.blocklog.records.chain import stated_head
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import text_at
from tokgate.blocklog.write.appender import Appender, ForeignLines
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.head_journal import HeadJournal
from tokgate.blocklog.write.segment import Rotation, Segment

Lines = Callable[..., list[dict[str, Any]]]
FORGED = 30


class Runs(AppenderRuns):
    """Runs whose log may be forged between them."""

    @property
    def heads(self) -> Path:
        """The journal."""
        return heads_path_for(self.path)

    def forge_some(self, count: int = FORGED, path: Path | None = None) -> None:
        """Append records that say so."""
        self.forge(*(stopped(self.stamp(), 1, "forged") for _ in range(count)), path=path)

    def told(self, action: str) -> list[dict[str, Any]]:
        records = [json.loads(line) for line in self.path.read_bytes().splitlines() if line.startswith(b"{")]
        return [record["tokgate"] for record in records if text_at(record, "event", "action") == action]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    """One run of three records, a checkpoint, and two records that no checkpoint signs: killed."""
    runs = Runs(tmp_path / "block.ndjson", options=LogOptions())
    killed = runs.begin()
    runs.write(killed, 3, attest=True)
    runs.write(killed, 2)
    kill(killed)
    return runs


def test_what_was_written_while_nothing_ran_is_declared(runs: Runs, check_lines: Lines) -> None:
    """Thirty forged records that fit are named in the log with their lines, and no checkpoint signs them."""
    runs.forge_some()
    runs.run(2)
    check_lines(runs.path)
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    assert (said["lines"], said["line"], said["file"], said["running"]) == (FORGED, 7, "block.ndjson", False)
    found = runs.found()
    assert {one.code for one in found} == {FindingCode.FOREIGN}
    assert sorted(one.line for one in found) == [*range(7, 7 + FORGED), 7 + FORGED]
    (trouble,) = runs.troubles
    assert isinstance(trouble, ForeignLines)
    records = [json.loads(line) for line in runs.path.read_bytes().splitlines()]
    forged = {record["event"]["hash"] for record in records if "forged" in record["message"]}
    assert not forged & {one["hash"] for one in (each["checkpoint"] for each in runs.told("log-checkpoint"))}


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("copied", [(5,), (4,), (3,), (4, 5), (5, 5), (0,), (3, 4, 5, 5)])
def test_copies_of_its_own_lines(runs: Runs, copied: tuple[int, ...], rotated: bool) -> None:
    """Whichever they are, they are lines of others: nothing is said to be gone, and no record is disowned."""
    lines = runs.path.read_bytes().splitlines(keepends=True)
    runs.path.write_bytes(b"".join([*lines, *(lines[each] for each in copied)]))
    if rotated:
        runs.path.rename(runs.path.with_name("block.ndjson.1"))
    runs.run()
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    assert (said["line"], said["lines"]) == (7, len(copied))
    assert runs.told("log-cut") == []
    found = [(one.line, one.code.value) for one in runs.found()]
    ordered = [(7 + number, "order") for number in range(len(copied))]
    assert found == [*ordered, (2 if rotated else 7 + len(copied), "foreign")]


@pytest.mark.parametrize("journal", [True, False])
def test_a_log_that_is_longer_than_what_is_read_at_once(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, journal: bool
) -> None:
    """Its own last record is found wherever it stands, and behind a line that is longer than any record."""
    monkeypatch.setattr("tokgate.blocklog.write.segment._CHUNK", 2000)
    if not journal:
        runs.heads.unlink()
    runs.forge_some(2)
    runs.stray(b'{"a": "' + b"x" * 5000 + b'"}\n')
    runs.run()
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    assert (said["line"], said["lines"]) == ((7, 3) if journal else (5, 5))


def test_a_journal_of_somebody_else_is_not_believed(runs: Runs) -> None:
    """Hashes that aren't authenticated by the key say nothing, whatever they are of."""
    runs.forge_some()
    head = stated_head(json.loads(runs.path.read_bytes().splitlines()[-1]))
    assert head is not None
    journal = HeadJournal(runs.heads, lambda: b"another secret")
    journal.restart(replace(head, sequence=head.sequence - 1), [head.hash], head)
    journal.close()
    runs.run()
    assert {one.code for one in runs.found()} == {FindingCode.FOREIGN}
    assert len(runs.found()) > FORGED


@pytest.mark.parametrize("boot", [None, "another boot"])
def test_whatever_is_left_of_the_journal(runs: Runs, monkeypatch: pytest.MonkeyPatch, boot: str | None) -> None:
    """A journal that a disk gave back in part keeps tokgate from nothing: it starts, and the log has no gap."""
    if boot is not None:
        monkeypatch.setattr("tokgate.blocklog.write.head_journal._boot_id", lambda: boot)
    log, journal = runs.path.read_bytes(), runs.heads.read_bytes()
    ends = [at for at, octet in enumerate(journal) if octet == ord("\n")]
    for end in (0, *(end + 1 for end in ends[:-1]), *(end - 1 for end in ends)):
        for moved, rubbish in ((False, b""), (True, b""), (False, b"\xc3\xa9 \xc3\xa9\n")):
            rotated = runs.path.with_name("block.ndjson.1")
            rotated.unlink(missing_ok=True)
            runs.path.write_bytes(log)
            runs.heads.write_bytes(journal[:end] + rubbish)
            if moved:
                runs.path.rename(rotated)
            runs.run()
            assert {one.code for one in runs.found()} <= {FindingCode.FOREIGN}
    assert {type(trouble) for trouble in runs.troubles} <= {ForeignLines}


@pytest.mark.parametrize("moved", [False, True])
def test_a_cut_is_signed_at_once(runs: Runs, moved: bool) -> None:
    """Not after a minute, in which the record of it could go the same way; also where a checkpoint is left last."""
    lines = runs.path.read_bytes().splitlines(keepends=True)
    runs.path.write_bytes(b"".join(lines[:4]))
    if moved:
        runs.path.rename(runs.path.with_name("block.ndjson.1"))
    run = runs.begin()
    append(run, stopped(runs.stamp(), 1, "next"))
    assert runs.told("log-cut")
    assert run.never_attested


def test_a_batch_that_was_announced_and_not_written(runs: Runs) -> None:
    """A kill before a batch reached the file, or in the middle of it, is no cut: what is there goes on."""
    killed = runs.begin()
    runs.write(killed, 1)
    whole = runs.path.read_bytes()
    killed.add(stopped(runs.stamp(), 1, "one"))
    killed.add(stopped(runs.stamp(), 1, "two"))
    append(killed)
    kill(killed)
    for kept in (len(whole), len(whole) + 100, runs.path.read_bytes().index(b"\n", len(whole)) + 1):
        content, heads = runs.path.read_bytes(), runs.heads.read_bytes()
        runs.path.write_bytes(content[:kept])
        runs.run()
        assert runs.found() == []
        runs.path.write_bytes(content)
        runs.heads.write_bytes(heads)
    assert not runs.troubles


def test_records_that_were_cut_off_while_nothing_ran(runs: Runs, check_lines: Lines) -> None:
    """Their absence is told in the log at the next start, and shows in the numbers, also without other checkpoints."""
    lines = runs.path.read_bytes().splitlines(keepends=True)
    runs.run()
    runs.path.write_bytes(b"".join(lines[:2]))
    runs.run()
    check_lines(runs.path)
    assert [one["cut"]["sequence"] for one in runs.told("log-cut")] == [8]
    assert [str(trouble) for trouble in runs.troubles][-1] == "records up to 8 are gone from the log"
    assert {one.code for one in runs.found()} >= {FindingCode.MISSING, FindingCode.FOREIGN}


def test_a_log_that_was_taken_away_while_nothing_ran(runs: Runs) -> None:
    """Deleting the whole log doesn't make a fresh one: the chain goes on from the last record that was written."""
    runs.run()
    runs.path.unlink()
    runs.run()
    first = json.loads(runs.path.read_bytes().splitlines()[0])
    assert first["message"] == "The log continues from a file that is gone: a restart."
    assert first["tokgate"]["continues"] | {"records": 0, "bytes": 0, "sequence": 8} == first["tokgate"]["continues"]
    assert [one.code for one in runs.found()] == [FindingCode.FOREIGN]


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("text", [b"one\ntwo\n", b"one\ntwo", b"one\n", b"one", b"[]\n", b"\0\n" * 17], ids=repr)
def test_rubbish_put_in_while_nothing_ran(runs: Runs, text: bytes, rotated: bool) -> None:
    """Its lines are told of with their digest, by which verification knows them: nothing else is wrong."""
    runs.stray(text)
    if rotated:
        runs.path.rename(runs.path.with_name("block.ndjson.1"))
    runs.run()
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    whole = text.removesuffix(b"\n")
    assert (said["lines"], said["line"]) == (whole.count(b"\n") + 1, 7)
    assert (said["bytes"], said["sha256"]) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert {one.code for one in runs.found()} == {FindingCode.FOREIGN}


def test_what_was_declared_is_changed(runs: Runs) -> None:
    """Lines of others are known by their digest: who changes them later is found, as where nobody told of any."""
    run = runs.begin()
    runs.write(run)
    runs.stray(b"hello\n")
    run.look()
    runs.write(run, attest=True)
    runs.path.write_bytes(runs.path.read_bytes().replace(b"hello\n", b"hullo\n"))
    found = runs.found()
    assert (found[0].line, found[0].code) == (8, FindingCode.TORN)
    assert {one.code for one in found} == {FindingCode.TORN, FindingCode.FOREIGN}


@pytest.mark.parametrize("text", [b"hello\n", b"hello", b"one\ntwo\n", b'{"a": 1}\n', None], ids=repr)
def test_what_is_written_while_tokgate_runs(runs: Runs, text: bytes | None, check_lines: Lines) -> None:
    """A foreign line is told before the next record, with its own line, and what tokgate writes stays whole."""
    runs.run()
    lines = runs.path.read_bytes().count(b"\n")
    run = runs.begin()
    runs.write(run)
    if text is None:
        runs.forge_some(2)
    else:
        runs.stray(text)
    run.look()
    assert run.pending
    runs.write(run, 2, attest=True)
    count = 2 if text is None or text.startswith(b"one") else 1
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    assert (said["line"], said["lines"], said["running"]) == (lines + 2, count, True)
    assert run.foreign == count
    found = runs.found()
    blamed = {one.line for one in found}
    assert blamed == {*range(lines + 2, lines + 2 + count), lines + 2 + count}
    assert {one.code for one in found} <= {FindingCode.FOREIGN, FindingCode.UNCHAINED}


def test_others_that_write_again_and_again(runs: Runs) -> None:
    run = runs.begin()
    runs.write(run)
    for _ in range(3):
        runs.stray(b"hello\n")
        runs.write(run)
    runs.write(run, attest=True)
    lines = runs.path.read_bytes().splitlines()
    said = [each["foreign"] for each in runs.told("log-foreign")]
    assert [one["line"] for one in said] == [at for at, line in enumerate(lines, 1) if line == b"hello"]
    assert {one["lines"] for one in said} == {1}
    assert {one.line for one in runs.found()} >= {one["line"] for one in said}


def test_what_is_written_while_the_file_is_closed(runs: Runs) -> None:
    """As after an error of the disk: whoever writes meanwhile is told of, and tokgate's own lines are not."""
    run = runs.begin()
    runs.write(run, 2, attest=True)
    run.leave("an error")
    runs.write(run)
    assert (runs.told("log-foreign"), runs.troubles) == ([], [])
    run.leave("an error")
    lines = runs.path.read_bytes().count(b"\n")
    runs.forge_some(2)
    runs.write(run, attest=True)
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    assert (said["line"], said["lines"], said["running"]) == (lines + 1, 2, True)


def test_what_is_cut_off_while_tokgate_runs(runs: Runs, check_lines: Lines) -> None:
    """It is told at once, and in the log before the next record; an emptied file may have been copied before."""
    run = runs.begin()
    runs.write(run, 3, attest=True)
    lines = runs.path.read_bytes().splitlines(keepends=True)
    os.truncate(runs.path, len(b"".join(lines[:-2])))
    run.look()
    assert [type(error) for error in runs.troubles] == [ForeignLines]
    runs.write(run, attest=True)
    check_lines(runs.path)
    assert [each["cut"]["sequence"] for each in runs.told("log-cut")] == [len(lines)]
    assert [(one.line, one.code) for one in runs.found()] == [
        (len(lines) - 1, FindingCode.MISSING),
        (len(lines) - 1, FindingCode.FOREIGN),
    ]
    copy = runs.path.with_name("block.ndjson.1")
    copy.write_bytes(runs.path.read_bytes())
    os.truncate(runs.path, 0)
    run.look()
    assert len(runs.troubles) == 2
    runs.write(run, attest=True)
    assert runs.told("log-cut") == []
    assert len(runs.found()) == 2


def test_a_file_that_is_put_in_the_logs_place(runs: Runs, check_lines: Lines) -> None:
    """As an editor does, or `sed -i`: it is told at once, and lines at its end are declared."""
    run = runs.begin()
    runs.write(run, 3)
    aside = runs.path.with_name("aside")
    aside.write_bytes(runs.path.read_bytes())
    runs.forge_some(2, aside)
    aside.rename(runs.path)
    runs.write(run, attest=True)
    assert [type(error) for error in runs.troubles] == [ForeignLines, ForeignLines]
    assert [each["foreign"]["lines"] for each in runs.told("log-foreign")] == [2]
    check_lines(runs.path)
    assert {one.code for one in runs.found()} == {FindingCode.FOREIGN}


@pytest.mark.parametrize("text", [b"faster\n", b"\n"])
def test_a_line_between_a_look_and_a_write(runs: Runs, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Another program that is just faster is blamed for its line, and not for tokgate's after it."""
    run = runs.begin()
    runs.write(run)
    lines = runs.path.read_bytes().count(b"\n")
    write = Segment.write

    def slower(segment: Any, data: bytes) -> int:
        monkeypatch.setattr(Segment, "write", write)
        runs.stray(text)
        return write(segment, data)

    monkeypatch.setattr(Segment, "write", slower)
    runs.write(run)
    runs.write(run, attest=True)
    (said,) = [each["foreign"] for each in runs.told("log-foreign")]
    assert (said["line"], said["lines"], said["running"]) == (lines + 1, 1, True)
    assert {one.line for one in runs.found()} == {lines + 1, lines + 3}


@pytest.mark.parametrize("kept", [8, 9])
def test_a_machine_that_failed(runs: Runs, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """After a power failure records that weren't on the disk yet are missing without anybody being accused.

    That a batch is over doesn't mean that it is there.
    """
    run = runs.begin()
    runs.write(run, attest=True)
    runs.write(run, 2)
    run.advance()
    kill(run)
    runs.path.write_bytes(b"".join(runs.path.read_bytes().splitlines(keepends=True)[:kept]))
    monkeypatch.setattr("tokgate.blocklog.write.head_journal._boot_id", lambda: "another boot")
    runs.run()
    assert (runs.told("log-cut"), runs.found(), runs.troubles) == ([], [], [])


def test_a_journal_that_can_not_be_read(runs: Runs) -> None:
    """It is told of, and costs no record; the last checkpoint says where the log goes on."""
    runs.heads.unlink()
    runs.heads.mkdir()
    runs.run()
    assert IsADirectoryError in {type(trouble) for trouble in runs.troubles}
    assert b"number 0" in runs.path.read_bytes().splitlines()[-2]


def test_the_journal_is_on_the_disk_before_the_log(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power failure could leave records in the log that the next run takes for somebody else's."""
    run = runs.begin()
    runs.write(run)
    synced: list[Path] = []
    monkeypatch.setattr(os, "fdatasync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    journal = runs.heads.stat().st_ino
    run.sync()
    assert synced == [runs.heads, runs.path]
    assert runs.heads.stat().st_ino == journal  # made anew after a checkpoint alone


def test_a_clock_that_is_set_back(runs: Runs, check_lines: Lines) -> None:
    """The log tells when it happens, also between two runs; a jump without such a record is a finding."""
    run = runs.begin()
    runs.write(run, attest=True)
    runs.now = runs.now.subtract(seconds=2)
    runs.write(run, attest=True)
    assert runs.told("clock-set-back") == []
    runs.now = runs.now.subtract(hours=1)
    runs.write(run, attest=True)
    run.leave("closed")
    runs.now = runs.now.subtract(hours=1)
    runs.run()
    check_lines(runs.path)
    assert [round(each["clock"]["seconds"]) for each in runs.told("clock-set-back")] == [3602, 3600]
    assert runs.found() == []


@pytest.mark.parametrize("max_bytes", [None, 3000], ids=["", "the file is full"])
def test_a_torn_line_and_a_clock_that_is_set_back(tmp_path: Path, max_bytes: int | None) -> None:
    """Nothing comes between a torn line and the record of it, nor a checkpoint before that of the clock."""
    rotation = Rotation(max_bytes=max_bytes, daily=False)
    runs = Runs(tmp_path / "block.ndjson", rotation, LogOptions(records=4), now="2023-03-10T13:00Z")
    killed = runs.begin()
    runs.write(killed, 3, attest=True)
    kill(killed)
    runs.stray(b'{"@timest')
    runs.now = runs.now.subtract(hours=1)
    runs.run(6)
    assert runs.found() == []
    text = b"".join(path.read_bytes() for path in with_rotated(runs.path))
    assert (text.count(b'"log-recovered"'), text.count(b'"clock-set-back"')) == (1, 1)


type Fault = Callable[[pytest.MonkeyPatch, Runs], None]


def _failing(name: str, code: int, when: Callable[..., object]) -> Fault:
    """A call of the system fails when it is so of the runs and its arguments."""

    def fault(broken: pytest.MonkeyPatch, runs: Runs) -> None:
        call = getattr(os, name)

        def fail(*given: Any) -> Any:
            if when(runs, *given):
                raise OSError(code, os.strerror(code))
            return call(*given)

        broken.setattr(os, name, fail)

    return fault


def _cut_short(broken: pytest.MonkeyPatch, _: Runs) -> None:
    """One line of the journal is written in part."""
    write, failing = os.write, [True]

    def short(fd: int, data: bytes) -> int:
        if failing and b'"boot"' in data:
            failing.clear()
            return write(fd, data[:20])
        return write(fd, data)

    broken.setattr(os, "write", short)


@pytest.mark.parametrize(
    ("fault", "count", "attest", "then"),
    [
        (_cut_short, 3, False, lambda runs, run: None),
        (_failing("write", errno.ENOSPC, lambda _, fd, data: b'"boot"' in data), 1, False, lambda _, run: run.sync()),
        (
            _failing("fsync", errno.EIO, lambda runs, fd: Path(f"/proc/self/fd/{fd}").readlink() == runs.path.parent),
            1, True, lambda runs, run: runs.write(run),
        ),
        (
            _failing("open", errno.EMFILE, lambda runs, path, how, *_: path == runs.heads and how & os.O_APPEND),
            1, True, lambda runs, run: runs.write(run),
        ),
    ],
    ids=["cut short", "refused", "its folder", "not opened again"],
)  # fmt: skip
def test_a_journal_that_could_not_be_written(
    runs: Runs,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    count: int,
    attest: bool,
    then: Callable[[Runs, Appender], None],
) -> None:
    """It is begun anew with the next batch, or once the log is on the disk: a trouble, and a kill accuses nobody."""
    run = runs.begin()
    runs.write(run, attest=True)
    with monkeypatch.context() as broken:
        fault(broken, runs)
        runs.write(run, count, attest=attest)
    then(runs, run)
    assert [type(trouble) for trouble in runs.troubles] == [OSError]
    kill(run)
    runs.run()
    assert runs.found() == []


@pytest.mark.parametrize("link", [False, True])
def test_a_journal_on_a_disk_that_takes_no_new_file(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool
) -> None:
    """What an earlier run left would disown all records of this one: it is emptied, and signatures are believed.

    Never the file is emptied that somebody else's link leads to.
    """
    runs.run()
    other = tmp_path / "other"
    other.write_text("kept")
    if link:
        runs.heads.unlink()
        runs.heads.symlink_to(other)
    else:  # so that a new chain begins
        runs.path.rename(runs.path.with_name("block.ndjson.1"))
        runs.path.write_bytes(b'{"@times')

    def no_inode(path: Path, mode: int = 0o666, exist_ok: bool = True) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as full:
        full.setattr(Path, "touch", no_inode)
        runs.run()
    runs.run()
    assert (runs.found(), other.read_text()) == ([], "kept")
    assert {type(trouble) for trouble in runs.troubles} == {OSError}


def test_a_disk_that_takes_neither_records_nor_their_hashes(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal still has all that is in the log: it is not emptied, and a kill accuses nobody."""
    run = runs.begin()
    runs.write(run, 3)
    with monkeypatch.context() as full:
        _failing("write", errno.ENOSPC, lambda *_: True)(full, runs)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            runs.write(run)
    assert [type(trouble) for trouble in runs.troubles] == [OSError]
    kill(run)
    runs.run()
    assert runs.found() == []


def test_a_checkpoint_that_reached_the_disk_before_its_hash(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power failure the records that it signs are tokgate's own, although the journal lacks them."""
    before = runs.heads.read_bytes()
    run = runs.begin()
    runs.write(run, 2, attest=True)
    kill(run)
    runs.heads.write_bytes(before)
    monkeypatch.setattr("tokgate.blocklog.write.head_journal._boot_id", lambda: "another boot")
    runs.run()
    assert runs.found() == []
    assert not runs.troubles


def test_a_checkpoint_of_before_is_no_end_of_the_log(runs: Runs) -> None:
    """A genuine one that somebody appends again says nothing of what tokgate wrote last."""
    run = runs.begin()
    runs.write(run, attest=True)
    runs.write(run)
    kill(run)
    lines = runs.path.read_bytes().splitlines(keepends=True)
    runs.stray(next(line for line in lines if b'"log-checkpoint"' in line))
    runs.run()
    (said,) = (each["foreign"] for each in runs.told("log-foreign"))
    assert (said["line"], said["lines"]) == (len(lines) + 1, 1)
    assert runs.told("log-cut") == []
