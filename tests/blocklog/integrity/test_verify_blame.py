"""Where verification puts the blame: on what was changed, not on what stands beside it or comes after it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.appending import AppenderRuns
from tokgate.blocklog.integrity.trusted_keys import checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.records.chain import Head, link, stated_head
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation


class Log(AppenderRuns):
    """A log of three runs in files of some five records, with a checkpoint after each third record and at each end."""

    def __init__(self, folder: Path, *, forward_secure: bool = False) -> None:
        self.kept: list[str] = []
        options = LogOptions(outlets=(self.kept.append,), records=3, forward_secure=forward_secure)
        super().__init__(folder / "block.ndjson", Rotation(max_bytes=3000, daily=False), options)
        for _ in range(3):
            self.run(7)
            self.now = self.now.add(seconds=60)
        self.trusted = json.loads(self.kept[0].partition(" ")[2])["key"]

    def rewrite(self, file: Path, first: int, last: int) -> None:
        """Write lines of a file anew, with hashes that fit."""
        lines = file.read_bytes().splitlines(keepends=True)
        head = stated_head(json.loads(lines[first - 2]))
        for number in range(first, last + 1):
            record, head = link(head or Head("none"), stopped(self.stamp(), 1, "forged"))
            lines[number - 1] = json.dumps(record).encode() + b"\n"
        file.write_bytes(b"".join(lines))

    def blamed(self, *, kept: bool = False) -> list[tuple[str, int, str]]:
        """File, line and code of each finding."""
        found = self.found(self.trusted, kept=self.kept if kept else ())
        return [(Path(each.file).name, each.line, each.code.value) for each in found]


def _changed(line: bytes) -> bytes:
    return line.replace(b"number", b"nobody")


@pytest.mark.parametrize("forward_secure", [False, True])
def test_every_line_that_is_written_anew(tmp_path: Path, forward_secure: bool) -> None:
    """With a hash that fits, so that only the next line doesn't follow it: the blame is on the line itself."""
    log = Log(tmp_path, forward_secure=forward_secure)
    assert log.blamed() == []
    for file in log.files[1:4]:
        text = file.read_bytes()
        lines = text.splitlines()
        for number in range(2, len(lines) + 1):
            if b"log-checkpoint" in lines[number - 1]:
                continue
            log.rewrite(file, number, number)
            (name, line, code), *others = log.blamed()
            assert (name, line, code) == (file.name, number, "changed")
            assert {code for *_, code in others} <= {"signature"}
            file.write_bytes(text)


@pytest.mark.parametrize("forward_secure", [False, True])
def test_every_line_that_is_changed(tmp_path: Path, forward_secure: bool) -> None:
    """Whose hash stays what it was: the checkpoint after it signs that hash, so the line before it is right."""
    log = Log(tmp_path, forward_secure=forward_secure)
    for file in log.files[1:4]:
        text = file.read_bytes()
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            if _changed(line) != line:
                file.write_bytes(b"".join([*lines[: number - 1], _changed(line), *lines[number:]]))
                assert log.blamed() == [(file.name, number, "changed")]
        file.write_bytes(text)


def test_a_tail_written_anew_before_a_rotation(tmp_path: Path) -> None:
    """The next file says with which record it goes on: it isn't blamed."""
    log = Log(tmp_path)
    file = log.files[2]
    last = len(file.read_bytes().splitlines())
    log.rewrite(file, last - 1, last)
    assert (file.name, last, "changed") in log.blamed()
    said = [each.message for each in log.found(log.trusted, whole=False) if each.code == "changed"]
    assert any("is not the one with which the next file goes on: it was written anew" in message for message in said)
    assert {code for name, _, code in log.blamed() if name != file.name} <= {"signature"}


def _under_one_checkpoint(folder: Path) -> tuple[Log, int, int]:
    """A log of one file and one checkpoint, and the lines, from 1, of two of its records."""
    log = Log(folder)
    log.options = LogOptions(records=100)
    log.rotation = Rotation(daily=False)
    log.run(12)
    lines = enumerate(log.path.read_bytes().splitlines(), 1)
    first, second = (number for number, line in lines if b"number 4" in line or b"number 8" in line)
    return log, first, second


def test_two_changes_under_one_checkpoint(tmp_path: Path) -> None:
    """What can't be told apart is said to be one or the other."""
    log, forged, edited = _under_one_checkpoint(tmp_path)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join([*lines[: edited - 1], _changed(lines[edited - 1]), *lines[edited:]]))
    log.rewrite(log.path, forged, forged)
    said = {each.line: each.message for each in log.found(log.trusted, whole=False) if each.code == "changed"}
    assert sorted(said) == [forged + 1, edited]
    assert all(message.endswith("or the record before it was written anew") for message in said.values())


def test_a_change_and_a_gap_under_one_checkpoint(tmp_path: Path) -> None:
    """Without all that the checkpoint signs, the record after the one that was written anew is not accused."""
    log, gone, forged = _under_one_checkpoint(tmp_path)
    log.rewrite(log.path, forged, forged)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join([*lines[: gone - 1], *lines[gone:]]))
    said = {each.line: each.message for each in log.found(log.trusted, whole=False) if each.code == "changed"}
    assert [*said] == [forged]
    assert said[forged].endswith("or the record before it was written anew")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """By the file that continued it."""
    log = Log(tmp_path)
    gone = log.files[2]
    gone.unlink()
    (found,) = log.found(log.trusted, whole=False)
    assert found.message.endswith(f"the last of them were in {gone.name}")


@pytest.mark.parametrize(
    ("harm", "also"),
    [
        (Path.unlink, []),
        (lambda path: path.write_bytes(b""), []),
        (lambda path: (path.unlink(), path.mkdir()), ["unreadable"]),
    ],
    ids=["deleted", "emptied", "a folder"],
)
def test_evolving_keys_after_a_gap(tmp_path: Path, harm: Callable[[Path], object], also: list[str]) -> None:
    """Where the checkpoint is gone that announced a key, one finding says so, and none if it was kept elsewhere."""
    log = Log(tmp_path, forward_secure=True)
    harm(log.files[2])
    assert [code for *_, code in log.blamed()] == ["missing", "key", *also]
    assert [code for *_, code in log.blamed(kept=True)] == ["missing", *also]
    untrusted = Verifier((), checkpoints_in(log.kept, "kept.txt")).run(log.files)
    assert "key" in [each.code.value for each in untrusted]  # who keeps checkpoints of any key knows none


def test_a_checkpoint_kept_elsewhere_by_a_strange_key(tmp_path: Path) -> None:
    """Whoever writes the log anew may also have sent checkpoints to where they are kept: their key stays strange."""
    (tmp_path / "own").mkdir()
    log = Log(tmp_path / "own", forward_secure=True)
    log.path.with_suffix(".key").unlink()
    log.run(7)
    assert "key" in [code for *_, code in log.blamed(kept=True)]
