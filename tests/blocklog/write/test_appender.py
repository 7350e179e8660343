"""Rotation at its boundaries, files that others move, and writes that stop half-way."""

import errno
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns, append
from labs.builders import at
from tokgate.blocklog.paths import key_path_for, with_rotated
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation

Lines = Callable[..., list[dict[str, Any]]]
NOT_DAILY = Rotation(daily=False)


class Log(AppenderRuns):
    """A log that one run writes."""

    def __init__(self, path: Path, rotation: Rotation | None = None, now: str = "2023-03-10T12:00Z") -> None:
        super().__init__(path, rotation or Rotation(), now=now)
        self.appender = self.begin()

    def append(self, *numbers: object) -> None:
        append(self.appender, *({"n": number} for number in numbers))

    def numbers(self, path: Path | None = None) -> list[int | str]:
        """The records of a file: their number, or their action if they are the log's own, or `torn`."""
        found: list[int | str] = []
        for line in (path or self.path).read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                found.append("torn")
            else:
                found.append(record["n"] if "n" in record else record["event"]["action"])
        return found

    def told(self) -> Any:
        """What the current file's first record of the log's own says."""
        line = next(line for line in self.path.read_bytes().splitlines() if line.startswith(b'{"@timestamp"'))
        return json.loads(line)["tokgate"]

    def others(self) -> list[Path]:
        return [path for path in with_rotated(self.path) if path != self.path]

    def everything(self) -> list[int | str]:
        return [n for path in (*self.others(), self.path) for n in self.numbers(path) if n != "log-continued"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "block.ndjson"


@pytest.fixture
def log(path: Path) -> Log:
    """A log that is open, and is not rotated by day."""
    log = Log(path, NOT_DAILY)
    log.appender.ready()
    return log


LINE = len(encode(link(Head("00000000-0000-4000-8000-000000000000"), {"n": 0})[0]))


@pytest.mark.parametrize(
    ("limit", "first_file"),
    [(3 * LINE - 1, [0, 1, 2]), (3 * LINE, [0, 1, 2]), (3 * LINE + 1, [0, 1, 2, 3])],
    ids=["one_below", "exactly", "one_above"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["one_batch", "one_by_one"])
def test_a_file_ends_with_the_line_that_reaches_the_limit(
    path: Path, limit: int, first_file: list[int], at_once: bool
) -> None:
    """Whether lines come alone or in a batch, the same line is the last of the file."""
    log = Log(path, Rotation(max_bytes=limit))
    for numbers in [range(5)] if at_once else [[n] for n in range(5)]:
        log.append(*numbers)
    old, *others = log.others()
    assert log.numbers(old) == first_file
    assert all(b"log-continued" in p.read_bytes().splitlines()[0] for p in [*others, path])
    assert log.everything() == [0, 1, 2, 3, 4]


def test_a_new_file_says_what_it_continues(path: Path, check_lines: Lines) -> None:
    """The first record has the old file's name, its lines and its bytes, and why it ended."""
    log = Log(path, Rotation(max_bytes=LINE))
    log.append(0, 1)
    [old] = log.others()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    (first,) = check_lines(path)
    last = json.loads(old.read_bytes())["event"]
    continues = {"file": old.name, "records": 1, "bytes": LINE, "sequence": 1, "hash": last["hash"]}
    assert (first["tokgate"]["continues"], first["event"]["reason"]) == (continues, "the file was full")


def test_the_day_changes_at_midnight_utc(path: Path) -> None:
    """A microsecond before midnight is the old file's, midnight the new one's."""
    log = Log(path, now="2023-03-10T23:59:59.999999Z")
    log.append(0)
    log.append(1)
    log.now = at("2023-03-11T00:00:00Z")
    log.append(2)
    [old] = log.others()
    assert log.numbers(old) == [0, 1]
    assert old.name == "block-20230311T000000.000000Z.ndjson"
    assert log.appender.rotations == 1
    assert log.numbers() == ["log-continued", 2]


def test_a_day_without_records_makes_no_file(path: Path) -> None:
    """Quiet days leave no empty files behind; the next record starts the next one."""
    log = Log(path, now="2023-03-10T12:00:00Z")
    log.appender.ready()
    for day, files in ((12, 0), (20, 1)):
        log.now = at(f"2023-03-{day}T12:00:00Z")
        log.append(day)
        assert len(log.others()) == files


@pytest.mark.parametrize("kept", ["block.ndjson.1", None])
def test_a_file_that_others_take_away(tmp_path: Path, kept: str | None) -> None:
    """The next record makes a new one, and its folder, that names the one which was renamed, as logrotate does."""
    path = tmp_path / "log" / "block.ndjson"
    log = Log(path)
    log.append(0)
    if kept is None:
        shutil.rmtree(path.parent)
    else:
        path.rename(path.with_name(kept))
    log.append(1)
    assert log.numbers() == ["log-continued", 1]
    assert log.told()["continues"].get("file") == kept


class Disk:
    """Stands in for os.write to the log: takes as many bytes as it has room for, then fails with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code, self._write = room, code, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        """A short write, or the error."""
        if b'"boot"' in data:  # the journal of hashes
            return self._write(fd, data)
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        count = self._write(fd, data[: self.room])
        self.room -= count
        return count


@pytest.mark.parametrize("lines", range(4))
@pytest.mark.parametrize("part", [0, 1, LINE // 2, LINE - 2, LINE - 1])
def test_a_full_disk_tears_nothing_that_does_not_heal(
    log: Log, monkeypatch: pytest.MonkeyPatch, lines: int, part: int
) -> None:
    """Wherever the disk fills up, the rest of the line follows once there is room."""
    disk = Disk(monkeypatch, lines * LINE + part)
    with pytest.raises(OSError, match="No space"):
        log.append(0, 1, 2, 3)
    assert log.appender.written == lines
    disk.room = 1 << 20
    log.append()
    assert log.numbers() == [0, 1, 2, 3]


@pytest.mark.parametrize("room", [0, 1, LINE // 2, LINE - 2, LINE - 1, LINE])
def test_an_io_error_costs_no_record(log: Log, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """When the file itself fails it is opened again: a line left torn is told of, and its record follows whole."""
    disk = Disk(monkeypatch, room, errno.EIO)
    with pytest.raises(OSError, match="error"):
        log.append(0, 1)
    log.appender.leave("an error")
    disk.room = 1 << 20
    log.append()
    if 0 < room < LINE - 1:  # what lacks only its newline is whole
        assert log.numbers() == ["torn", "log-recovered", 0, 1]
    else:
        assert log.numbers() == [0, 1]


@pytest.mark.parametrize("renamed", [False, True])
def test_what_was_given_up(path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, renamed: bool) -> None:
    """The rest of a record never runs into the next one; what the log says of its own files isn't counted as lost."""
    disk = Disk(monkeypatch, 3, errno.EIO)
    if renamed:
        path.rename(path.with_name("moved"))
        disk.room = 0
    with pytest.raises(OSError, match="error"):
        log.append(0, 1)
    disk.room = 1 << 20
    assert log.appender.abandon() == 2
    log.append(2)
    assert log.numbers()[-1] == 2
    assert renamed or log.numbers() == ["torn", "log-recovered", 2]


def test_a_half_written_line_is_written_whole_into_another_file(
    path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file is moved away while a line is half in it, the new file gets the whole line."""
    disk = Disk(monkeypatch, LINE + 3)
    with pytest.raises(OSError, match="No space"):
        log.append(0, 1)
    path.rename(path.with_name("moved"))
    disk.room = 1 << 20
    log.append()
    assert log.numbers(path.with_name("moved")) == [0, "torn"]
    assert log.numbers() == ["log-continued", 1]
    assert log.told()["torn"] == {"bytes": 3, "sha256": hashlib.sha256(b'{"n').hexdigest()}


def test_a_half_written_line_is_finished_before_its_file_is_rotated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the old file, once it is rotated, finds whole lines in it."""
    log = Log(path)
    log.appender.ready()
    disk = Disk(monkeypatch, LINE + 3)
    with pytest.raises(OSError, match="No space"):
        log.append(0, 1)
    log.now, disk.room = log.now.add(hours=24), 1 << 20
    log.append(2)
    [old] = log.others()
    assert (log.numbers(old), log.numbers()) == ([0, 1], ["log-continued", 2])


def _refuse(*_: object) -> None:
    raise PermissionError(errno.EACCES, "no")


def test_a_file_that_cannot_be_renamed_is_written_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If archiving fails the log grows on, and the trouble is told, once in a while and not for each line."""
    log = Log(path, Rotation(max_bytes=LINE))
    monkeypatch.setattr(Path, "rename", _refuse)
    log.append(*range(20))
    assert log.numbers() == list(range(20))
    assert (len(log.troubles), log.appender.rotations) == (1, 0)


def test_a_file_that_fails_to_the_last_is_left_all_the_same(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that can't be looked at and a sync that fails are told, cost no record and keep nobody from going on."""
    log.append(0)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", _refuse)
        broken.setattr(Path, "lstat", _refuse)
        log.append(1)
        log.appender.leave("an error")
    assert {type(error) for error in log.troubles} == {PermissionError}
    log.append(2)
    assert log.numbers() == [0, 1, 2]


def test_a_damaged_rotated_file(path: Path) -> None:
    """What can't be read is told, and the chain goes on behind the last record that the writer knows of."""
    runs = AppenderRuns(path)
    runs.run(50)
    path.with_name("block.ndjson.1.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    runs.run()
    assert len(runs.troubles) == 1
    assert json.loads(path.read_bytes().splitlines()[0])["event"]["sequence"] == 52


def test_what_no_chain_can_be_read_from_is_not_continued(path: Path) -> None:
    """After a file that only a crash has left behind, a new chain begins: it must not seem to follow the last file."""
    runs = AppenderRuns(path)
    runs.run()
    before = path.rename(path.with_name("block.ndjson.1")).read_text()
    path.write_bytes(b'{"n": 2, "ev')
    runs.run()
    first = json.loads(path.read_bytes().splitlines()[1])
    assert (first["event"]["action"], first["event"]["sequence"]) == ("log-recovered", 1)
    assert first["tokgate"]["chain"] not in before


@pytest.mark.parametrize(("last", "number", "unsigned"), [("stopped", 9, 8), ("log-checkpoint", 9, 0), (None, 1, 0)])
def test_whose_last_record_nothing_tells(path: Path, last: str | None, number: int, unsigned: int) -> None:
    """Without a journal or a checkpoint by its key a run goes on in the chain of the last record, if it is in one."""
    record = {"event": {"action": last}}
    linked = record if last is None else link(Head("c", 7, "ab" * 32), record)[0]
    path.write_bytes(encode(linked))
    runs = AppenderRuns(path)
    run = runs.begin()
    run.ready()
    assert run.unattested == unsigned
    runs.write(run)
    assert json.loads(path.read_bytes().splitlines()[1])["event"]["sequence"] == number


def test_a_slow_disk_is_not_signed_more_often(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that takes many writes gets one checkpoint, as one that takes a single write."""
    write, found = os.write, list[list[str]]()
    for limit in (1 << 20, 700):
        monkeypatch.setattr(os, "write", lambda fd, data, limit=limit: write(fd, data[:limit]))
        runs = AppenderRuns(path.with_name(f"{limit}.ndjson"), options=LogOptions(records=3))
        append(runs.begin(), *(stopped(runs.stamp(), 1, f"number {number}") for number in range(9)))
        found.append([json.loads(line)["event"]["action"] for line in runs.path.read_bytes().splitlines()])
    assert found == [["stopped"] * 9 + ["log-checkpoint"]] * 2


def test_the_key_of_the_settings_signs(path: Path, tmp_path: Path) -> None:
    """With `settings.log.key` no second key lies beside the log, which whoever may change the log could use."""
    key = tmp_path / "keys" / "log.key"
    key.parent.mkdir()
    AppenderRuns(path, options=LogOptions(key=key)).run()
    assert key.exists()
    assert not key_path_for(path).exists()
    other = path.with_name("other.ndjson")
    AppenderRuns(other).run()
    assert key_path_for(other).exists()
