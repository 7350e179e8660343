"""Retention: whole files go when their time is over, by a time that is certain enough; what remains verifies."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns
from labs.builders import at, present
from labs.samples import OBSERVER
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import encode, new_stamp
from tokgate.blocklog.write import retention
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.retention import SETTLED, STEP_EVERY, LogClock, expired, since_start
from tokgate.blocklog.write.segment import Rotation, Segment

NAME = "block-20230310T230000.000000Z.ndjson"


def test_to_the_microsecond(tmp_path: Path) -> None:
    """A file goes when its end is that old, not before; compressed ones too, oldest first; nobody else's files."""
    names = [NAME, "block-20230310T130000.000000Z.ndjson.zst", "block-20230310T030000.000000Z.ndjson.gz"]
    others = [
        "block.ndjson",
        "block.ndjson.1",
        "other-20230308T230000.000000Z.ndjson",
        "block-20239908T230000.000000Z.ndjson",
    ]
    for name in names + others:
        (tmp_path / name).touch()
    (tmp_path / "block-20230101T000000.000000Z.ndjson").mkdir()
    path = tmp_path / "block.ndjson"
    end = at("2023-03-10T23:00:00Z")
    assert [each.name for each in expired(path, end).files] == sorted(names)
    assert [each.name for each in expired(path, end.subtract(microseconds=1)).files] == sorted(names[1:])


def test_what_remains_verifies(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """Of ten days three are kept: records name each of the other files once, and there is no finding.

    A run that opens yesterday's file and rotates it at once names what has expired in one record, not in two.
    """
    path = tmp_path / "block.ndjson"
    runs = AppenderRuns(path, Rotation(), LogOptions(retention_days=3), "2023-03-01T12:00Z")
    for _ in range(10):
        runs.run_for_a_day()
    files = with_rotated(path)
    assert files[0].name > "block-20230305"
    told = [r["tokgate"]["deleted"] for r in check_lines(*files) if r["event"]["action"] == "log-deleted"]
    names = [name for one in told for name in one["files"]]
    assert len(names) == len(set(names)) > 4
    assert {one["days"] for one in told} == {3}
    assert list(Verifier(whole=True).run(files)) == []
    assert not runs.troubles


def kept_for_a_day(folder: Path) -> AppenderRuns:
    """Runs with a file for each record, which is deleted after a day; a checkpoint before them says what time it is."""
    runs = AppenderRuns(folder / "block.ndjson", options=LogOptions())
    runs.run()
    runs.rotation, runs.options = Rotation(daily=False, max_bytes=1), LogOptions(retention_days=1)
    return runs


@pytest.mark.parametrize(("end", "kept"), [("2023-03-09T12:00:00.000001Z", True), ("2023-03-09T12:00:00Z", False)])
def test_a_day_has_24_hours(tmp_path: Path, end: str, kept: bool) -> None:
    """A log that has to be kept for a day is kept for all of it, and no longer."""
    stamped = at(end).format_iso(unit="microsecond").replace("-", "").replace(":", "")
    old = tmp_path / f"block-{stamped}.ndjson"
    old.touch()
    runs = kept_for_a_day(tmp_path)
    runs.run(2)
    assert (old.exists(), runs.troubles) == (kept, [])


def test_a_folder_that_can_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where old files can't be looked for, that is told, and what is to be logged is logged all the same."""

    def unreadable(*_: object) -> None:
        raise PermissionError("no listing")

    runs = kept_for_a_day(tmp_path)
    monkeypatch.setattr(retention, "expired", unreadable)
    runs.run(2)
    assert {type(trouble) for trouble in runs.troubles} == {PermissionError}
    assert sum(file.read_text().count("number") > 0 for file in with_rotated(runs.path)) == 3


def test_a_record_tells_before_anything_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in between, the log has lost nothing without saying so: what goes first is the word, on the disk."""
    path = tmp_path / "block.ndjson"
    monotonic = [1000.0]
    monkeypatch.setattr("tokgate.blocklog.write.appender.time.monotonic", lambda: monotonic[0])
    runs = AppenderRuns(path, Rotation(max_bytes=2000, daily=False), LogOptions())
    first = runs.begin()
    runs.write(first, 8)
    first.leave("closed")
    old = [file for file in with_rotated(path) if file != path]
    runs.now = runs.now.add(hours=48)
    runs.rotation, runs.options = Rotation(max_bytes=None, daily=False), LogOptions(retention_days=1)
    killed = runs.begin()
    runs.write(killed, attest=True)
    runs.write(killed)
    assert b'"log-deleted"' not in path.read_bytes()  # a checkpoint says what time it is, but not yet for an hour
    monotonic[0] += SETTLED
    runs.write(killed)
    assert all(file.exists() for file in old)
    assert b'"log-deleted"' in path.read_bytes()
    killed.sync()
    assert not any(file.exists() for file in old)
    assert list(Verifier(whole=True).run(with_rotated(path))) == []
    assert not runs.troubles


def test_where_others_need_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written there but what makes room: the record of files whose time is over, and its checkpoint."""
    old = tmp_path / "block-20230301T000000.000000Z.ndjson"
    old.touch()
    runs = kept_for_a_day(tmp_path)
    runs.rotation = Rotation(max_bytes=None, daily=False)
    monkeypatch.setattr(Segment, "room_missing", lambda _, keep: keep)
    run = runs.begin()
    run.ready()
    while run.pending:
        run.advance()
    run.sync()
    assert not old.exists()
    run.advance()  # nothing is to be written
    run.add(stopped(runs.stamp(), 1, "SIGTERM"))
    with pytest.raises(OSError, match=r"262144 KiB that settings\.log\.keep_free keeps"):
        run.advance()
    run.leave("closed")


def test_a_clock_that_is_ahead_for_a_while_deletes_a_day_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 days ahead, the whole log looks old: evidence of a year must not be gone before the clock is mended."""
    names = [f"block-202303{day:02}T000000.000000Z.ndjson" for day in range(1, 11)]
    for name in names:
        (tmp_path / name).touch()
    monotonic = [1000.0]
    monkeypatch.setattr("tokgate.blocklog.write.retention.time.monotonic", lambda: monotonic[0])
    rotation, options = Rotation(daily=False, max_bytes=None), LogOptions(retention_days=30)
    runs = AppenderRuns(tmp_path / "block.ndjson", rotation, options, "2023-03-11T00:30Z")
    appender = runs.begin()

    def written() -> list[str]:
        runs.write(appender, attest=True)
        return sorted(each.name for each in tmp_path.glob("block-*.ndjson"))

    assert written() == names
    runs.now = runs.now.add(hours=24 * 400)
    assert written() == names
    monotonic[0] += STEP_EVERY / 2
    assert written() == names  # no checkpoint has said for an hour that it is so late
    runs.now = runs.now.subtract(hours=24 * 400)
    monotonic[0] += STEP_EVERY
    assert written() == names  # and those that said it were wrong
    monotonic[0] += STEP_EVERY
    assert written() == names
    runs.now = runs.now.add(hours=24 * 400)
    monotonic[0] += 60
    assert written() == names
    monotonic[0] += STEP_EVERY
    assert written() == names[2:]  # the oldest, and those that ended within a day of it
    for _ in range(5):
        monotonic[0] += STEP_EVERY / 8
        assert written() == names[2:]
    runs.now = runs.now.subtract(hours=24 * 400)
    monotonic[0] += STEP_EVERY
    assert written() == names[2:]
    appender.leave("closed")
    assert not runs.troubles


def _linked(tmp_path: Path, names: dict[str, str | None], moment: str = "2023-03-08T10:00:00Z") -> Path:
    """Rotated files, each with a first record that says which file it continues."""
    for name, follows in names.items():
        record = stopped(new_stamp(at(moment), OBSERVER), 1, "SIGTERM")
        if follows is not None:
            record["tokgate"] = {"continues": {"file": follows, "records": 1, "bytes": 1}}
        (tmp_path / name).write_bytes(encode(link(Head("chain"), record)[0]))
    return tmp_path / "block.ndjson"


FILES = [f"block-20230301T{hour:02}0000.000000Z.ndjson" for hour in (5, 11, 17, 23)]


def test_a_file_that_is_gone_before_its_time_is_named(tmp_path: Path) -> None:
    """Files that somebody took out of the middle are told apart from those that tokgate deletes now."""
    first, second, third, last = FILES
    path = _linked(tmp_path, {first: None, third: second, last: f"{third}.zst"}, "2023-03-01T01:00:00Z")
    found = expired(path, at("2023-03-01T17:00:00Z"))
    assert ([file.name for file in found.files], found.follows, found.missed) == ([first, third], None, (second,))
    found = expired(path, at("2023-03-01T11:00:00Z"))
    assert ([file.name for file in found.files], found.missed) == ([first], (second,))
    (tmp_path / first).unlink()
    found = expired(path, at("2023-03-01T23:00:00Z"))
    assert (found.follows, found.missed) == (second, ())


@pytest.mark.parametrize(("days", "gone"), [(-1, 0), (0, 1), (1, 2), (2, 2), (400, 2)])
def test_a_step_of_deletion(tmp_path: Path, days: int, gone: int) -> None:
    """At most the 24 hours after the end of the oldest file, however late it is; a fresh file's old name stops none."""
    names = [f"block-2023030{day}T230000.000000Z.ndjson" for day in (2, 3, 4)]
    path, oldest = _linked(tmp_path, dict.fromkeys(names), "2023-03-01T10:00:00Z"), at("2023-03-02T23:00:00Z")
    assert expired(tmp_path / "other.ndjson", oldest).files == ()
    for _ in range(2):
        assert [file.name for file in expired(path, oldest.add(hours=24 * days)).files] == names[:gone]
        _linked(tmp_path, {"block-20230101T000000.000000Z.ndjson": None})


def test_a_gap_among_later_files(tmp_path: Path) -> None:
    """It is told of when its time comes, and not with each deletion before that."""
    first, second, third, last = FILES
    path = _linked(tmp_path, {first: None, second: first, last: third}, "2023-03-01T01:00:00Z")
    assert expired(path, at("2023-03-01T05:00:00Z")).missed == ()
    assert expired(path, at("2023-03-01T11:00:00Z")).missed == (third,)


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes by its name: otherwise it would stay for good."""

    def refused(*_: object) -> None:
        raise PermissionError("no")

    path = _linked(tmp_path, {FILES[0]: None})
    monkeypatch.setattr(retention, "first_record", refused)
    assert expired(path, at("2023-03-01T05:00:00Z")).files == (tmp_path / FILES[0],)


def test_files_go_once_their_record_is_signed(tmp_path: Path) -> None:
    """Each with the record that names it; one that can't be deleted is told of and keeps no other."""
    troubles: list[Exception] = []
    keeper = retention.Retention(tmp_path / "block.ndjson", 1, troubles.append)
    names = [tmp_path / name for name in FILES]
    for path in (names[0], names[2]):
        path.touch()
    names[1].mkdir()
    for sequence, path in enumerate(names, 7):
        keeper.planned = (record := {"n": sequence}), (path,)
        keeper.wrote({"n": sequence}, sequence)  # another record
        keeper.wrote(record, sequence)
    for signed, left in ((6, [True, True, True]), (7, [False, True, True]), (8, [False, True, True])):
        keeper.delete(signed)
        assert [path.exists() for path in names[:3]] == left
        assert keeper.about_to_delete
    assert [type(trouble) for trouble in troubles] == [IsADirectoryError]
    keeper.delete(10)
    assert not names[2].exists()
    assert not keeper.about_to_delete


def test_a_renamed_file_keeps_its_age(tmp_path: Path) -> None:
    """Who gives a fresh file an old name doesn't get it deleted, and signed for, by tokgate."""
    path = _linked(tmp_path, {FILES[0]: None})
    assert expired(path, at("2023-03-08T09:59:59Z")).files == ()
    assert expired(path, at("2023-03-08T10:00:00Z")).files == (tmp_path / FILES[0],)
    (tmp_path / FILES[0]).write_bytes(b"nothing that can be read")
    assert expired(path, at("2023-03-01T05:00:00Z")).files == (tmp_path / FILES[0],)


NOON = at("2023-03-10T12:00:00Z")


class Clocks:
    """A wall clock that can be set, and one that can't."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.up = NOON, 1000.0
        monkeypatch.setattr("tokgate.blocklog.write.retention.time.monotonic", lambda: self.up)
        self.log = LogClock(lambda: new_stamp(self.wall, OBSERVER), lambda: self.up)
        self.look()

    def look(self, seconds: float = 0.0, *, jump: float = 0.0) -> tuple[str, float] | None:
        """Some seconds later, and a jump of the wall clock: what is recorded."""
        self.up += seconds
        self.wall = self.wall.add(seconds=seconds + jump)
        told = self.log.look()
        return None if told is None else (told["event"]["action"], told["tokgate"]["clock"]["seconds"])


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def test_jumps(clocks: Clocks) -> None:
    """Both directions are told once, with their seconds; time that passes is no jump, however long."""
    assert clocks.look(86_400) is None
    assert clocks.look(1, jump=2) is None
    assert clocks.look(1, jump=400 * 86_400) == ("clock-set-forward", 400 * 86_400)
    assert clocks.look(1) is None
    assert clocks.look(0, jump=-400 * 86_400) == ("clock-set-back", 400 * 86_400)
    assert clocks.look(1) is None


def test_settled(clocks: Clocks) -> None:
    """A checkpoint's time counts once it has stood for an hour; the newest such one; never one that proved wrong."""
    assert clocks.log.settled() is None
    clocks.log.signed(NOON)
    clocks.look(SETTLED - 1)
    assert clocks.log.settled() is None
    clocks.log.signed(clocks.wall)
    clocks.look(1)
    assert clocks.log.settled() == NOON
    clocks.look(60, jump=86_400)
    clocks.log.signed(clocks.wall)
    clocks.look(SETTLED - 1)
    assert clocks.log.settled() == NOON.add(seconds=SETTLED - 1)
    clocks.look(0, jump=-86_400)
    clocks.look(SETTLED)
    assert clocks.log.settled() == NOON.add(seconds=SETTLED - 1)


def test_an_earlier_run(clocks: Clocks) -> None:
    """The checkpoint with which a run ended tells at once what time it was; another record does not."""
    clocks.log.was_written(NOON, signed=False)
    assert clocks.log.settled() is None
    clocks.log.was_written(NOON, signed=True)
    assert clocks.log.settled() == NOON


def test_many_checkpoints(clocks: Clocks) -> None:
    """However many come within an hour, one from about an hour ago is found."""
    for _ in range(5000):
        clocks.look(1)
        clocks.log.signed(clocks.wall)
    settled = present(clocks.log.settled())
    assert SETTLED <= (clocks.wall - settled).total("seconds") <= SETTLED * 1.2


def test_seconds_of_sleep_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that slept for an hour has no clock that jumped."""
    monkeypatch.setattr(time, "clock_gettime", lambda clock: {time.CLOCK_BOOTTIME: 4600.0}[clock])
    assert since_start() == 4600.0
