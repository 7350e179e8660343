"""Rotation at its boundaries, files that others move or cut, and writes that stop half-way."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns, append
from labs.builders import at
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.write.segment import Rotation

Lines = Callable[..., list[dict[str, Any]]]


class Log(AppenderRuns):
    """A log that one run writes."""

    def __init__(self, path: Path, rotation: Rotation | None = None, now: str = "2023-03-10T12:00Z") -> None:
        super().__init__(path, rotation or Rotation(), now=now)
        self.appender = self.begin()

    def append(self, *records: dict[str, Any]) -> None:
        """Write records and everything that they bring about."""
        append(self.appender, *records)

    def numbers(self, path: Path | None = None) -> list[int | str]:
        """The records of a file: their number, or their action if they are the log's own."""
        lines = (json.loads(line) for line in (path or self.path).read_bytes().splitlines())
        return [line["n"] if "n" in line else line["event"]["action"] for line in lines]

    def others(self) -> list[Path]:
        """Files beside the log, oldest first."""
        return sorted(path for path in self.path.parent.iterdir() if path != self.path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "block.ndjson"


LINE = len(encode({"n": 0}))


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
    records = [{"n": n} for n in range(5)]
    if at_once:
        log.append(*records)
    else:
        for record in records:
            log.append(record)
    [old] = log.others()[:1]
    assert log.numbers(old) == first_file
    assert all(b"log-continued" in p.read_bytes().splitlines()[0] for p in [*log.others()[1:], path])
    everything = [n for p in [*log.others(), path] for n in log.numbers(p) if n != "log-continued"]
    assert everything == [0, 1, 2, 3, 4]


def test_a_new_file_says_what_it_continues(path: Path, check_lines: Lines) -> None:
    """The first record has the old file's name, its lines and its bytes, and why it ended."""
    log = Log(path, Rotation(max_bytes=LINE))
    log.append({"n": 0}, {"n": 1})
    [old] = log.others()
    first = json.loads(path.read_bytes().splitlines()[0])
    assert first["tokgate"]["continues"] == {"file": old.name, "records": 1, "bytes": LINE}
    assert first["event"]["reason"] == "the file was full"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    check_lines(path)


def test_a_limit_below_a_continuation_still_makes_progress(path: Path) -> None:
    """With an absurd limit each file holds one record, and none is lost or repeated."""
    log = Log(path, Rotation(max_bytes=1))
    log.append(*({"n": n} for n in range(4)))
    assert [log.numbers(p)[-1] for p in [*log.others(), path]] == [0, 1, 2, 3]


def test_the_day_changes_at_midnight_utc(path: Path) -> None:
    """A microsecond before midnight is the old file's, midnight the new one's."""
    log = Log(path, now="2023-03-10T23:59:59.999999Z")
    log.append({"n": 0})
    log.append({"n": 1})
    log.now = at("2023-03-11T00:00:00Z")
    log.append({"n": 2})
    [old] = log.others()
    assert log.numbers(old) == [0, 1]
    assert old.name == "block-20230311T000000.000000Z.ndjson"
    assert log.appender.rotations == 1
    assert log.numbers() == ["log-continued", 2]


def test_a_day_without_records_makes_no_file(path: Path) -> None:
    """Quiet days leave no empty files behind; the next record starts the next one."""
    log = Log(path, now="2023-03-10T12:00:00Z")
    log.appender.ready()
    log.now = at("2023-03-12T12:00:00Z")
    log.append({"n": 0})
    assert log.others() == []
    log.now = at("2023-03-20T12:00:00Z")
    log.append({"n": 1})
    assert len(log.others()) == 1


def test_rotation_can_be_left_to_others(path: Path) -> None:
    """Without limits nothing is rotated, however long or large."""
    log = Log(path, Rotation(max_bytes=None, daily=False), "2023-03-10T12:00:00Z")
    log.append({"n": 0, "pad": "x" * 100_000})
    log.now = at("2024-01-01T00:00:00Z")
    log.append({"n": 1})
    assert log.others() == []


def test_a_file_from_yesterday_is_archived_at_start(path: Path) -> None:
    """A restart on another day doesn't mix the days."""
    path.write_bytes(b'{"n":0}\n')
    moment = at("2023-03-09T23:00:00Z").timestamp()
    os.utime(path, (moment, moment))
    log = Log(path)
    log.appender.ready()
    assert path.exists()  # for whoever reads it, also before the first record
    log.append({"n": 1})
    assert log.numbers(log.others()[0]) == [0]
    assert log.numbers() == ["log-continued", 1]


def test_a_rename_by_others_is_followed(path: Path) -> None:
    """logrotate renames: the next record makes a new file that names the renamed one."""
    log = Log(path)
    log.append({"n": 0})
    path.rename(path.with_name("block.ndjson.1"))
    log.append({"n": 1})
    assert log.numbers() == ["log-continued", 1]
    assert json.loads(path.read_bytes().splitlines()[0])["tokgate"]["continues"]["file"] == "block.ndjson.1"


def test_a_removed_folder_is_made_again(tmp_path: Path) -> None:
    """A log folder that vanishes costs the old file, not the new records."""
    path = tmp_path / "log" / "block.ndjson"
    log = Log(path)
    log.append({"n": 0})
    path.unlink()
    path.parent.rmdir()
    log.append({"n": 1})
    assert log.numbers() == ["log-continued", 1]
    assert "file" not in json.loads(path.read_bytes().splitlines()[0])["tokgate"]["continues"]


def test_a_file_cut_short_by_others_goes_on(path: Path) -> None:
    """copytruncate loses what it loses; the lines after it are whole."""
    log = Log(path)
    log.append({"n": 0}, {"n": 1})
    os.truncate(path, 0)
    log.append({"n": 2})
    assert log.numbers() == [2]
    os.truncate(path, 3)
    log.append({"n": 3})
    assert path.read_bytes() == b'{"n\n{"n":3}\n'


def test_a_torn_line_is_recovered_before_anything_else(path: Path, check_lines: Lines) -> None:
    """After a crash the torn line is ended and the first new record tells of it."""
    path.write_bytes(b'{"n":0}\n{"n":')
    log = Log(path)
    log.append({"n": 1})
    before, torn, told, record = path.read_bytes().splitlines()
    assert (before, torn, record) == (b'{"n":0}', b'{"n":', b'{"n":1}')
    assert json.loads(told)["tokgate"]["torn"]["bytes"] == 5


class Disk:
    """Stands in for os.write: takes as many bytes as it has room for, then fails with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, code: int = errno.ENOSPC) -> None:
        self.room, self.code, self._write = room, code, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        """A short write, or the error."""
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        count = self._write(fd, data[: self.room])
        self.room -= count
        return count


@pytest.mark.parametrize("room", range(3 * LINE + 1))
def test_a_full_disk_tears_nothing_that_does_not_heal(path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Wherever the disk fills up, the rest of the line follows once there is room."""
    log = Log(path)
    log.appender.ready()
    disk = Disk(monkeypatch, room)
    records = [{"n": n} for n in range(4)]
    with pytest.raises(OSError, match="No space"):
        log.append(*records)
    assert log.appender.written == room // LINE
    disk.room = 1 << 20
    log.append()
    assert log.numbers() == [0, 1, 2, 3]


@pytest.mark.parametrize("room", range(LINE + 1))
def test_an_io_error_costs_no_record(path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """When the file itself fails it is opened again: a line left torn is told of, and its record follows whole."""
    log = Log(path, Rotation(daily=False))
    log.appender.ready()
    disk = Disk(monkeypatch, room, errno.EIO)
    with pytest.raises(OSError, match="error"):
        log.append({"n": 0}, {"n": 1})
    log.appender.leave("an error")
    disk.room = 1 << 20
    log.append()
    lines = path.read_bytes().splitlines()
    if 0 < room < LINE - 1:  # what lacks only its newline is whole
        assert json.loads(lines.pop(1))["tokgate"]["torn"]["bytes"] == room
        lines.pop(0)
    assert lines == [b'{"n":0}', b'{"n":1}']


def test_what_was_half_written_and_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a record that is given up never runs into the next one: it is ended, and told of."""
    log = Log(path, Rotation(daily=False))
    log.appender.ready()
    disk = Disk(monkeypatch, 3, errno.EIO)
    with pytest.raises(OSError, match="error"):
        log.append({"n": 0}, {"n": 1})
    disk.room = 1 << 20
    assert log.appender.abandon() == 2
    log.append({"n": 2})
    torn, told, record = path.read_bytes().splitlines()
    assert (torn, record) == (b'{"n', b'{"n":2}')
    assert json.loads(told)["tokgate"]["torn"]["bytes"] == 3


def test_only_records_are_counted_as_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gap that the log admits is of records that were to be kept, not of what it says about its own files."""
    log = Log(path)
    log.appender.ready()
    path.rename(path.with_name("moved"))
    Disk(monkeypatch, 0, errno.EIO)
    with pytest.raises(OSError, match="error"):
        log.append({"n": 0}, {"n": 1})
    assert log.appender.abandon() == 2


def test_a_half_written_line_is_written_whole_into_another_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file is moved away while a line is half in it, the new file gets the whole line."""
    log = Log(path)
    log.appender.ready()
    disk = Disk(monkeypatch, LINE + 3)
    with pytest.raises(OSError, match="No space"):
        log.append({"n": 0}, {"n": 1})
    path.rename(path.with_name("moved"))
    disk.room = 1 << 20
    log.append()
    assert path.with_name("moved").read_bytes() == b'{"n":0}\n{"n'
    assert log.numbers() == ["log-continued", 1]
    said = json.loads(path.read_bytes().splitlines()[0])["tokgate"]["torn"]
    assert said == {"bytes": 3, "sha256": hashlib.sha256(b'{"n').hexdigest()}


def test_a_half_written_line_is_finished_before_its_file_is_rotated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the old file, once it is rotated, finds whole lines in it."""
    log = Log(path)
    log.appender.ready()
    disk = Disk(monkeypatch, LINE + 3)
    with pytest.raises(OSError, match="No space"):
        log.append({"n": 0}, {"n": 1})
    log.now, disk.room = log.now.add(hours=24), 1 << 20
    log.append({"n": 2})
    [old] = log.others()
    assert (log.numbers(old), log.numbers()) == ([0, 1], ["log-continued", 2])


def test_short_writes_are_completed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a byte at a time gets whole lines all the same, also over rotations."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1]))
    log = Log(path, Rotation(max_bytes=2 * LINE))
    log.append(*({"n": n} for n in range(5)))
    numbers = [n for p in [*log.others(), path] for n in log.numbers(p) if n != "log-continued"]
    assert numbers == [0, 1, 2, 3, 4]


def test_a_file_that_cannot_be_renamed_is_written_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If archiving fails the log grows on, and the trouble is told, once in a while and not for each line."""
    log = Log(path, Rotation(max_bytes=LINE))
    monkeypatch.setattr(Path, "rename", _refuse)
    log.append(*({"n": n} for n in range(20)))
    assert log.numbers() == list(range(20))
    assert len(log.troubles) == 1
    assert log.appender.rotations == 0


def _refuse(self: Path, target: Path) -> None:
    raise PermissionError(errno.EACCES, "no", str(self))


def test_what_json_cannot_say_is_rejected_alone(path: Path) -> None:
    """One bad record costs itself only."""
    log = Log(path)
    log.append({"n": 0}, {"n": object()}, {"n": float("nan")}, {"n": 1})
    assert log.numbers() == [0, 1]
    assert len(log.troubles) == 2


def test_a_file_that_fails_to_the_last_is_left_all_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that can't be looked at and a sync that fails are told, cost no record and keep nobody from going on."""
    log = Log(path, Rotation(daily=False))
    log.append({"n": 0})
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", _fail)
        broken.setattr(Path, "lstat", _fail)
        log.append({"n": 1})
        log.appender.leave("an error")
    assert [type(error) for error in log.troubles] == [PermissionError]
    log.append({"n": 2})
    assert log.numbers() == [0, 1, 2]


def _fail(*_: object) -> None:
    raise PermissionError(errno.EACCES, "no")
