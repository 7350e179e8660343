"""The order in which files were written, by what they hold, and lines that some reader would read otherwise."""

from pathlib import Path

import pytest

from labs.builders import at
from labs.samples import OBSERVER
from tokgate.blocklog.read.reader import decode_strictly, first_record, in_order, open_log, written_last
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import encode, new_stamp


def put(path: Path, number: int, chain: str = "chain", moment: str = "2023-03-10T12:00Z", before: bytes = b"") -> Path:
    """A file that begins with a record of that number."""
    record, _ = link(Head(chain, number - 1), stopped(new_stamp(at(moment), OBSERVER), 1, "SIGTERM"))
    path.write_bytes(before + encode(record))
    return path


def test_files_are_sorted_by_what_they_hold(tmp_path: Path) -> None:
    """By the time at which a chain begins, then by number, whatever the names; what holds no record comes last."""
    late = put(tmp_path / "a", 1, "a", "2023-03-11T12:00Z")
    second, first = put(tmp_path / "b", 10, "b"), put(tmp_path / "c", 9, "b", "2023-03-10T13:00Z")
    empty, folder = tmp_path / "d", tmp_path / "e"
    empty.touch()
    folder.mkdir()
    assert in_order([folder, empty, late, second, first]) == [first, second, late, folder, empty]


@pytest.mark.parametrize(("rubbish", "found"), [(0, True), (31, True), (32, False)])
def test_a_first_record_behind_rubbish(tmp_path: Path, rubbish: int, found: bool) -> None:
    """A few lines of others don't hide a file's place in the order; a large file of others is not read for it."""
    path = put(tmp_path / "block.ndjson.1", 7, before=b"{\n" * rubbish)
    record = first_record(path, open_log)
    assert (record is not None) is found
    if record is not None:
        assert record[1].sequence == 7


def test_the_file_that_was_written_last(tmp_path: Path) -> None:
    """By its records, not by its name; unknown where none has records."""
    path = tmp_path / "block.ndjson"
    assert written_last(path) is None
    early, late = (tmp_path / f"block-2023031{day}T000000.000000Z.ndjson" for day in (0, 1))
    early.touch()
    assert written_last(path) is None
    put(early, 2)
    put(late, 1)
    path.touch()
    assert written_last(path) == early


@pytest.mark.parametrize(
    ("line", "repeated"),
    [
        (b'{"a": 1, "b": {"a": 2}}', None),
        (b'{"a": 1, "b": 2, "b": 3}', "b"),
        (b'{"x": {"a": 1, "b": 2, "b": 3}}', "b"),
        (b'{"x": {"b": 2, "b": 3}, "a": 1, "a": 1}', "b"),
    ],
)
def test_a_key_that_stands_twice(line: bytes, repeated: str | None) -> None:
    """It is named: some readers see its first value, some its last."""
    record, found = decode_strictly(line)
    assert (record is not None, found) == (True, repeated)


@pytest.mark.parametrize("line", [b"[" * 200_000, b'{"a":' * 200_000, b"[]", b"1", b"", b"\xff{}"])
def test_what_is_no_record(line: bytes) -> None:
    """However it is made, it ends no verification."""
    assert decode_strictly(line) == (None, None)
