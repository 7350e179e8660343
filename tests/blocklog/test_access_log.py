"""Looks are appended and rotated by several processes at once: none is lost, and the file keeps its rights."""

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path

import pytest

from labs.builders import at
from tokgate.blocklog import access_log
from tokgate.blocklog.access_log import append, rotate

NOW = at("2023-03-10T23:00:00Z")
NAME = "block.access-20230310T230000.000000Z.ndjson"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "block.access.ndjson"


def test_rotated(path: Path) -> None:
    """The digest and the number of lines are of what is in the old file; a new one is there, with its rights."""
    append(path, b"one\n")
    append(path, b"two\n")
    path.chmod(0o660)
    rotated = rotate(path, NOW)
    assert rotated == {"file": NAME, "lines": 2, "sha256": hashlib.sha256(b"one\ntwo\n").hexdigest()}
    old = path.with_name(NAME)
    assert old.read_bytes() == b"one\ntwo\n"
    assert (path.read_bytes(), path.stat().st_mode & 0o777, old.stat().st_mode & 0o777) == (b"", 0o660, 0o660)
    assert sorted(each.name for each in path.parent.iterdir()) == sorted((path.name, old.name))


def test_nothing_to_rotate(path: Path) -> None:
    """Where nobody has looked there is no new file."""
    assert rotate(path, NOW) is None
    assert not path.exists()
    append(path, b"")
    assert rotate(path, NOW) is None
    assert [*path.parent.iterdir()] == [path]


def test_none_is_lost(path: Path) -> None:
    """Who appends while the file is rotated writes into the one or the other, before its digest is made."""

    def look(who: int) -> None:
        for number in range(200):
            append(path, f"{who} {number}\n".encode())

    threads = [threading.Thread(target=look, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    rotated = []
    while any(thread.is_alive() for thread in threads):
        rotated.append(rotate(path, NOW))
    for thread in threads:
        thread.join()
    rotated.append(rotate(path, NOW))
    found: list[bytes] = []
    for each in filter(None, rotated):
        content = path.with_name(each["file"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), content.count(b"\n")) == (each["sha256"], each["lines"])
        found += content.splitlines()
    assert sorted(found) == sorted(f"{who} {number}".encode() for who in range(4) for number in range(200))


def test_somebody_holds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in vain is told, and nothing is written."""
    monkeypatch.setattr(access_log, "PATIENCE", 0.0)
    append(path, b"one\n")
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can't write is told why: nothing else says what to repair."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        append(path, b"one\n")


def test_no_room_for_a_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part of it stays, which the next line would go on in."""
    append(path, b"one\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:2]))
    with pytest.raises(OSError, match="No space left"):
        append(path, b"two\n")
    monkeypatch.undo()
    append(path, b"three\n")
    assert path.read_bytes() == b"one\nthree\n"


def test_removed_while_it_is_rotated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log's writer can't survive is not raised."""
    append(path, b"one\n")

    def link(*_: object) -> None:
        raise FileNotFoundError(2, os.strerror(2))

    monkeypatch.setattr(os, "link", link)
    assert rotate(path, NOW) is None
    assert path.read_bytes() == b"one\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_looks_first(path: Path) -> None:
    """A file that root begins belongs to the owner of its folder, so that it can be rotated; one made by hand stays."""
    os.chown(path.parent, 1234, 4321)
    append(path, b"one\n")
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (1234, 4321, 0o640)
    path.unlink()
    path.touch(0o660)
    os.chown(path, 0, 4322)
    append(path, b"one\n")
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 4322)
