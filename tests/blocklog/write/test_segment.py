"""One log file: how it is made, locked, mended and archived."""

import fcntl
import hashlib
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Date

from labs.builders import at
from tokgate.blocklog.paths import archive_name
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.write.segment import LogRefused, Segment, wait_for_lock

TODAY = Date(2023, 3, 10)


def test_a_new_file_and_its_folder_are_private(tmp_path: Path) -> None:
    """A log is made with mode 0640 in folders of 0750, whatever else the umask allows."""
    before = os.umask(0)
    try:
        segment = Segment(tmp_path / "var" / "log" / "block.ndjson", TODAY)
    finally:
        os.umask(before)
    segment.close()
    assert segment.path.stat().st_mode & 0o777 == 0o640
    assert segment.path.parent.stat().st_mode & 0o777 == 0o750


def test_the_entry_of_a_new_file_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a power failure loses the whole file; with every sync it would keep the disk busy."""
    synced: list[Path] = []
    monkeypatch.setattr("tokgate.blocklog.write.segment.sync", synced.append)
    segment = Segment(tmp_path / "block.ndjson", TODAY)
    segment.sync()
    segment.sync()
    assert synced == [tmp_path]
    segment.close()


def test_a_file_that_was_archived_before_it_was_locked_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer rotated between our opening and our locking it: nothing may be written to what is archived."""
    path, archived = tmp_path / "block.ndjson", tmp_path / "archived.ndjson"
    lock = fcntl.flock

    def rotate_first(descriptor: int, how: int) -> None:
        path.rename(archived)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", rotate_first)
    with pytest.raises(LogRefused, match="rotating"):
        Segment(path, TODAY)
    assert archived.read_bytes() == b""


def test_a_log_is_waited_for(tmp_path: Path) -> None:
    """Its last writer may be about to end; who holds it for longer is another tokgate. What isn't there is free.

    A second writer is told so at once, and what to do.
    """
    path = tmp_path / "block.ndjson"
    wait_for_lock(path, 0)
    segment = Segment(path, TODAY)
    for attempt in (lambda: wait_for_lock(path, 0.1), lambda: Segment(path, TODAY)):
        with pytest.raises(LogRefused, match="give each its own file"):
            attempt()
    letting_go = threading.Timer(0.1, segment.close)
    letting_go.start()
    wait_for_lock(path, 30)
    letting_go.join()
    Segment(path, TODAY).close()


def test_only_a_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with a link or a pipe is said at once; and without patience one look is enough."""
    path, link, pipe = tmp_path / "block.ndjson", tmp_path / "link", tmp_path / "pipe"
    segment = Segment(path, TODAY)
    link.symlink_to(path)
    os.mkfifo(pipe)
    for other in (link, pipe):
        with pytest.raises(LogRefused, match="name a file"):
            wait_for_lock(other, 60)
    pauses: list[float] = []
    monkeypatch.setattr("tokgate.blocklog.write.segment.time.monotonic", lambda: sum(pauses))
    monkeypatch.setattr("tokgate.blocklog.write.segment.time.sleep", pauses.append)
    for patience, looks in ((0, 1), (0.125, 4)):
        pauses.clear()
        with pytest.raises(LogRefused):
            wait_for_lock(path, patience)
        assert len(pauses) + 1 == looks
    segment.close()


PARTS = [b"", b"{", b"x", b"\0\0", b"{}", b'{"n":1}', b'{"n":"abc"}', b'{"n":"more than 16"}', b"{\0}"]


@given(st.lists(st.sampled_from(PARTS), max_size=20), st.booleans(), st.booleans())
def test_the_last_record_and_what_comes_after_it(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ended: bool, known: bool
) -> None:
    """Wherever reads cut it: the last JSON object, or the first of those that are known; what is torn, what is not.

    What a kill left gets a newline, a length and a digest; lines of others are told apart from it.
    """
    path = tmp_path_factory.getbasetemp() / "any.ndjson"
    content = b"\n".join(lines) + b"\n" * ended
    path.write_bytes(content)
    present = content.removesuffix(b"\n").split(b"\n") if content else []
    whole = [number for number, one in enumerate(present) if one in (b"{}", b'{"n":1}', b'{"n":"abc"}')]
    own = [number for number, one in enumerate(present) if known and one == b'{"n":1}'][:1]
    near = [number for number in whole if number >= len(present) - 16][-1:]
    last = next(iter(own or near), None)
    after = present[last + 1 :] if last is not None else present[-16:]
    torn = all(one[:1] in (b"{", b"\0") for one in after) and len(after) <= 16 and not (own and whole[-1] > own[0])
    with pytest.MonkeyPatch.context() as small:
        small.setattr("tokgate.blocklog.write.segment._CHUNK", 16)
        segment = Segment(path, TODAY)
        found = segment.survey(lambda line: Head("chain", 1) if known and b'"n":1}' in line else None)
    segment.close()
    assert found.last == (None if last is None else json.loads(present[last]))
    digest = hashlib.sha256(b"\n".join(after)).hexdigest()
    if b'{"n":"more than 16"}' not in after:  # a line that is read in parts
        told, foreign = found.rest.torn(), found.rest.foreign("any.ndjson", found.line, running=False)
        assert (None if told is None else told["sha256"]) == (digest if after and torn else None)
        assert (None if foreign is None else (foreign["sha256"], foreign["lines"])) == (
            (digest, len(after)) if after and not torn else None
        )
    assert (segment.size, segment.lines) == (path.stat().st_size, path.read_bytes().count(b"\n"))
    assert path.read_bytes() == content + b"\n" * bool(content and not content.endswith(b"\n"))


def test_a_file_in_order_is_taken_as_it_is(tmp_path: Path) -> None:
    """Lines are counted, the day is that of the last change, and nothing is written."""
    path = tmp_path / "block.ndjson"
    path.write_bytes(b"{}\n" * 5)
    moment = at("2023-03-09T23:59:59Z").timestamp()
    os.utime(path, (moment, moment))
    segment = Segment(path, TODAY)
    assert segment.survey().rest.lines == 0
    segment.close()
    assert (segment.lines, segment.size, segment.day, path.stat().st_mtime) == (5, 15, Date(2023, 3, 9), moment)


def test_a_folder_that_is_moved_away(tmp_path: Path) -> None:
    """Also where something else has its name now: the path no longer leads to the file."""
    path = tmp_path / "log" / "block.ndjson"
    segment = Segment(path, TODAY)
    path.parent.rename(tmp_path / "moved")
    assert segment.replaced()
    path.parent.touch()
    assert segment.replaced()
    segment.close()


@pytest.mark.parametrize(
    ("keep", "free", "missing"), [(300, 30, 0), (300, 29, 300), (900, 50, 0), (900, 49, 500), (0, 0, 0)]
)
def test_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, free: int, missing: int) -> None:
    """As much as the settings keep, at most a twentieth of the disk; that much exactly is enough."""
    segment = Segment(tmp_path / "block.ndjson", TODAY)
    disk = SimpleNamespace(f_blocks=1000, f_frsize=10, f_bavail=free)
    monkeypatch.setattr(os, "fstatvfs", lambda _: disk)
    assert segment.room_missing(keep) == missing
    segment.close()


def test_archive_names_sort_by_time_and_are_never_taken(tmp_path: Path) -> None:
    """Two rotations in one microsecond get two names, in their order."""
    path, moment = tmp_path / "block.ndjson", at("2023-03-10T11:00:00.5Z")
    first = archive_name(path, moment)
    assert first.name == "block-20230310T110000.500000Z.ndjson"
    first.touch()
    assert archive_name(path, moment).name == "block-20230310T110000.500001Z.ndjson"
