"""Whoever opens a file that is being replaced finds the old one or the new one, and nobody else reads secrets."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tokgate.blocklog.atomic_file import replace_file, replacing, take_rights


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("shared", [False, True])
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, shared: bool) -> None:
    """Somebody who reads meanwhile gets the old content, and afterwards the new; nothing is left beside it."""
    path = tmp_path / "report.html"
    path.write_text("old")
    with replacing(path, 0o640, shared=shared) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_costs_nothing(tmp_path: Path) -> None:
    """When writing fails the old file is still there, and no draft that fills the disk."""
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), replacing(path, 0o640) as draft:
        tmp_path.write_text(draft.name)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_is_gone(tmp_path: Path) -> None:
    """What failed is told, also where somebody removed the draft meanwhile."""

    def fail(draft: Path) -> None:
        draft.unlink()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "report.html", 0o640) as draft:
        fail(draft)
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    """Not even while it is written, whatever the umask."""
    with umask(0), replacing(tmp_path / "block.key", 0o600) as draft:
        assert mode_of(draft) == 0o600
    assert mode_of(tmp_path / "block.key") == 0o600


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    """A draft that holds a later key than the file does not stay on the disk for somebody to find."""
    left = tmp_path / ".block.key.new"
    left.write_text("secret")
    replace_file(tmp_path / "block.key", b"key", 0o600)
    assert [path.name for path in tmp_path.iterdir()] == ["block.key"]


def test_a_draft_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Somebody who may write to the folder can't have another file overwritten."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".block.key.new").symlink_to(victim)
    replace_file(tmp_path / "block.key", b"key", 0o600)
    assert victim.read_text() == "mine"
    assert not (tmp_path / "block.key").is_symlink()


def test_content_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a loss of power the name leads to the old content or to all of the new, and stays."""
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        done.append("renamed")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    replace_file(tmp_path / "a", b"content", 0o600)
    assert done == [".a.new", "renamed", tmp_path.name]


def test_the_folder_is_made(tmp_path: Path) -> None:
    """At the first start there is no folder yet; others may not look into it."""
    with umask(0):
        for _ in range(2):
            replace_file(tmp_path / "var" / "log" / "block.key", b"key", 0o600)
    assert mode_of(tmp_path / "var" / "log") == 0o750


@pytest.mark.parametrize(("user", "given"), [(0, [(1234, 5678)]), (1000, [])])
def test_rights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, given: list[tuple[int, int]]
) -> None:
    """A file that is replaced stays as readable as it was, and root gives it back to its owner."""
    draft, owners = tmp_path / "draft", list[tuple[int, int]]()
    draft.touch(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "chown", lambda _, uid, gid: owners.append((uid, gid)))
    take_rights(draft, os.stat_result((0o100664, 0, 0, 0, 1234, 5678, 0, 0, 0, 0)))
    assert (mode_of(draft), owners) == (0o664, given)
