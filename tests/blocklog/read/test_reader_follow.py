"""Following a log through everything that happens to it while it is read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokgate.blocklog.read.reader import MAX_LINE, Follower, Junk, Line
from tokgate.blocklog.records.record import encode


def put(path: Path, *numbers: int) -> None:
    """Append records."""
    with path.open("ab") as stream:
        stream.write(b"".join(encode({"n": n}) for n in numbers))


def poll(follower: Follower) -> list[Any]:
    """What is new: numbers of records, problems of junk."""
    return [line.record["n"] if isinstance(line, Line) else line.problem for line in follower.poll()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log is."""
    return tmp_path / "block.ndjson"


def test_lines_come_once_and_in_order(path: Path) -> None:
    """What is there comes first, then what is appended, and nothing twice."""
    follower = Follower(path)
    assert poll(follower) == []
    put(path, 0, 1)
    assert poll(follower) == [0, 1]
    assert poll(follower) == []
    put(path, 2)
    assert poll(follower) == [2]
    follower.close()


def test_a_file_that_comes_just_after_a_look(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wasn't there when it was opened, and is there now: the next look reads it."""
    follower = Follower(path)
    put(path, 0)
    with monkeypatch.context() as before:
        before.setattr(Path, "open", lambda *_: (path.parent / "missing").stat())
        assert poll(follower) == []
    assert poll(follower) == [0]
    follower.close()


def test_a_half_line_waits_for_its_rest(path: Path) -> None:
    """A line is reported when it is whole, wherever the reads happen to cut it."""
    follower = Follower(path)
    for part in (b'{"n"', b":0}", b'\n{"n":1}\n{'):
        with path.open("ab") as stream:
            stream.write(part)
        got = poll(follower)
        assert got == ([0, 1] if part.startswith(b"\n") else [])
    follower.close()


def test_a_line_written_just_before_a_rotation_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading to the end and seeing that there is a new file, the old one may have grown."""
    follower, is_replaced = Follower(path), Follower._is_replaced
    put(path, 0)

    def rotated_meanwhile(self: Follower) -> bool:
        if not path.with_name("block-20230310T000000.000000Z.ndjson").exists():
            put(path, 1)
            path.rename(path.with_name("block-20230310T000000.000000Z.ndjson"))
            put(path, 2)
        return is_replaced(self)

    monkeypatch.setattr(Follower, "_is_replaced", rotated_meanwhile)
    assert poll(follower) == [0, 1, 2]
    follower.close()


def test_a_rotation_is_followed(path: Path) -> None:
    """The last lines of the old file, then all of the new one."""
    follower = Follower(path)
    put(path, 0)
    assert poll(follower) == [0]
    put(path, 1)
    path.rename(path.with_name("block-20230310T000000.000000Z.ndjson"))
    assert poll(follower) == [1]  # the new file isn't there yet
    put(path, 2, 3)
    assert poll(follower) == [2, 3]
    put(path, 4)
    assert poll(follower) == [4]
    follower.close()


def test_a_follower_that_was_closed(path: Path) -> None:
    """It begins anew with its next look: nothing of a line that it had read in part runs into another."""
    follower = Follower(path)
    for part in (b'{"n"', b"x" * (2 * MAX_LINE)):
        path.write_bytes(part)
        assert poll(follower) == []
        follower.close()
        path.unlink()
        put(path, 0)
        assert [(line.number, line.record) for line in follower.poll() if isinstance(line, Line)] == [(1, {"n": 0})]
        follower.close()
        path.unlink()


def test_truncation_starts_over(path: Path) -> None:
    """After copytruncate the new lines are read from the beginning; a half line that was cut away is told."""
    follower = Follower(path)
    put(path, 0, 1)
    with path.open("ab") as stream:
        stream.write(b'{"n":')
    assert poll(follower) == [0, 1]
    os.truncate(path, 0)
    put(path, 2)
    assert poll(follower) == ["the last line is torn", 2]
    put(path, 3)
    assert [line.number for line in follower.poll()] == [2]
    follower.close()


def test_a_file_that_is_removed_and_comes_back(path: Path) -> None:
    """Removal ends nothing; a torn line at the end of the removed file is told."""
    follower = Follower(path)
    put(path, 0)
    assert poll(follower) == [0]
    with path.open("ab") as stream:
        stream.write(b"{")
    path.unlink()
    assert poll(follower) == []
    put(path, 1)
    assert poll(follower) == ["the last line is torn", 1]
    follower.close()


def test_an_overlong_line_is_one_piece_of_junk(path: Path) -> None:
    """A line beyond the limit is not kept in memory, and the one after it is read."""
    follower = Follower(path)
    for _ in range(5):
        with path.open("ab") as stream:
            stream.write(b"x" * (MAX_LINE // 2))
        assert poll(follower) == []
    with path.open("ab") as stream:
        stream.write(b"\n")
    put(path, 1)
    [junk, line] = list(follower.poll())
    assert junk.number == 1
    assert junk.size == 5 * (MAX_LINE // 2) + 1  # type: ignore[union-attr]
    assert isinstance(line, Line)
    assert line.number == 2
    follower.close()


@pytest.mark.parametrize(
    "end",
    [
        lambda path: path.rename(path.with_name("block-20230310T000000.000000Z.ndjson")),
        lambda path: os.truncate(path, 0),
    ],
    ids=["rotated", "emptied"],
)
def test_a_torn_line_that_is_too_long(path: Path, end: Callable[[Path], object]) -> None:
    """What is told of the rest of a file adds up to its octets, also where no line could be that long."""
    follower = Follower(path)
    put(path, 0)
    with path.open("ab") as stream:
        stream.write(b"x" * (2 * MAX_LINE))
    assert poll(follower) == [0]
    end(path)
    put(path, 1)
    junk, line = follower.poll()
    assert isinstance(junk, Junk)
    assert isinstance(line, Line)
    assert (junk.number, junk.size, line.record["n"]) == (2, 2 * MAX_LINE, 1)
    follower.close()
