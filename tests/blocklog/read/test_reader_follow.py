"""Following a log through everything that happens to it while it is read."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokgate.blocklog.read.reader import MAX_LINE, Follower, Junk, Line
from tokgate.blocklog.records.record import encode


def put(path: Path, *numbers: int) -> None:
    with path.open("ab") as stream:
        stream.write(b"".join(encode({"n": n}) for n in numbers))


def poll(follower: Follower) -> list[Any]:
    """What is new: numbers of records, problems of junk."""
    return [line.record["n"] if isinstance(line, Line) else line.problem for line in follower.poll()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "block.ndjson"


type Step = Callable[[Path], object]
TORN = "the last line is torn"
ROTATED = "block-20230310T000000.000000Z.ndjson"


def _put(*numbers: int) -> Step:
    return lambda path: put(path, *numbers)


def _raw(octets: bytes) -> Step:
    def append(path: Path) -> None:
        with path.open("ab") as stream:
            stream.write(octets)

    return append


def _then(*steps: Step) -> Step:
    return lambda path: [step(path) for step in steps]


def _rotate(path: Path) -> None:
    path.rename(path.with_name(ROTATED))


def _empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize(
    "script",
    [
        [(_then(), []), (_put(0, 1), [0, 1]), (_then(), []), (_put(2), [2])],
        [(_raw(b'{"n"'), []), (_raw(b":0}"), []), (_raw(b'\n{"n":1}\n{'), [0, 1])],
        [(_put(0), [0]), (_then(_put(1), _rotate), [1]), (_put(2, 3), [2, 3]), (_put(4), [4])],
        [(_then(_put(0, 1), _raw(b'{"n":')), [0, 1]), (_then(_empty, _put(2)), [TORN, 2]), (_put(3), [3])],
        [(_put(0), [0]), (_then(_raw(b"{"), Path.unlink), []), (_put(1), [TORN, 1])],
    ],
    ids=["once and in order", "a half line waits for its rest", "rotated", "copytruncate", "removed and back"],
)
def test_what_comes_is_told_once(path: Path, script: list[tuple[Step, list[Any]]]) -> None:
    """Whatever happens to the file between two looks: its lines in their order, and a last one that is torn."""
    follower = Follower(path)
    for step, expected in script:
        step(path)
        assert poll(follower) == expected
    put(path, 9)
    (line,) = follower.poll()
    assert line.number == path.read_bytes().count(b"\n")
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


def test_a_line_written_just_before_a_rotation_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading to the end and seeing that there is a new file, the old one may have grown."""
    follower, is_replaced = Follower(path), Follower._is_replaced
    put(path, 0)

    def rotated_meanwhile(self: Follower) -> bool:
        if not path.with_name(ROTATED).exists():
            put(path, 1)
            path.rename(path.with_name(ROTATED))
            put(path, 2)
        return is_replaced(self)

    monkeypatch.setattr(Follower, "_is_replaced", rotated_meanwhile)
    assert poll(follower) == [0, 1, 2]
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


@pytest.mark.parametrize("end", ["newline", "rotated", "emptied"])
def test_a_line_that_is_too_long(path: Path, end: str) -> None:
    """It is not kept in memory, and what is told of it adds up to its octets, whether it ends or its file does."""
    follower = Follower(path)
    put(path, 0)
    assert poll(follower) == [0]
    for _ in range(5):
        _raw(b"x" * (MAX_LINE // 2))(path)
        assert poll(follower) == []
    {"newline": _raw(b"\n"), "rotated": _rotate, "emptied": _empty}[end](path)
    put(path, 1)
    junk, line = follower.poll()
    assert isinstance(junk, Junk)
    assert isinstance(line, Line)
    assert (junk.number, junk.size) == (2, 5 * (MAX_LINE // 2) + (end == "newline"))
    assert (line.number, line.record) == (3 if end == "newline" else 1, {"n": 1})
    follower.close()
