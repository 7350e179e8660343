"""Retention: whole files go when their time is over, to the second; what remains still verifies."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocklog.samples import OBSERVER
from builders import at
from tokgate.blocklog.appender import Appender, Rotation
from tokgate.blocklog.custody import Sealing
from tokgate.blocklog.lifecycle import stopped
from tokgate.blocklog.reader import with_rotated
from tokgate.blocklog.retention import expired
from tokgate.blocklog.stamp import new_stamp
from tokgate.blocklog.verify import Verifier

NAME = "block-20230310T230000.000000Z.ndjson"


def test_to_the_microsecond(tmp_path: Path) -> None:
    """A file goes when its end is that old, not before; compressed ones too, oldest first; nobody else's files."""
    names = [NAME, "block-20230309T230000.000000Z.ndjson.zst", "block-20230308T230000.000000Z.ndjson.gz"]
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
    assert [each.name for each in expired(path, end)] == sorted(names)
    assert [each.name for each in expired(path, end.subtract(microseconds=1))] == sorted(names[1:])


def test_what_remains_verifies(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """Ten days, of which three are kept: the others are gone, a record says which, and there is no finding."""
    path, now, troubles = tmp_path / "block.ndjson", [at("2023-03-01T12:00:00Z")], list[Exception]()

    def run(days: int | None) -> None:
        appender = Appender(
            path,
            Rotation(),
            lambda: new_stamp(now[0], OBSERVER),
            trouble=troubles.append,
            reject=troubles.append,
            sealing=Sealing(retention_days=days),
        )
        appender.add(stopped(new_stamp(now[0], OBSERVER), 1, "SIGTERM"))
        while appender.pending:
            appender.advance()
        appender.attest()
        while appender.pending:
            appender.advance()
        appender.leave("closed")

    for _ in range(10):
        path.touch()
        run(None)
        now[0] = now[0].add(hours=24)
        appended = path.stat()
        os.utime(path, (appended.st_atime, now[0].subtract(hours=24).timestamp()))
    before = len(with_rotated(path))
    run(3)
    files = with_rotated(path)
    assert before - len(files) > 4
    told = [r["tokgate"]["deleted"] for r in check_lines(*files) if r["event"]["action"] == "log-deleted"]
    assert sum(len(one["files"]) for one in told) > 4
    assert {one["days"] for one in told} == {3}
    assert list(Verifier(whole=True).run(files)) == []
    assert not troubles


def test_a_record_tells_before_anything_is_deleted(tmp_path: Path) -> None:
    """Killed in between, the log has lost nothing without saying so: what goes first is the word, on the disk."""
    path, now = tmp_path / "block.ndjson", at("2023-03-10T12:00:00Z")
    troubles: list[Exception] = []

    def appender(days: int | None) -> Appender:
        return Appender(
            path,
            Rotation(max_bytes=2000 if days is None else None, daily=False),
            lambda: new_stamp(now, OBSERVER),
            trouble=troubles.append,
            reject=troubles.append,
            sealing=Sealing(retention_days=days),
        )

    def write(to: Appender) -> None:
        to.add(stopped(new_stamp(now, OBSERVER), 1, "SIGTERM"))
        while to.pending:
            to.advance()

    first = appender(None)
    for _ in range(8):
        write(first)
    first.leave("closed")
    old = [file for file in with_rotated(path) if file != path]
    now = now.add(hours=48)
    killed = appender(1)
    write(killed)
    assert all(file.exists() for file in old)
    assert b'"log-deleted"' in path.read_bytes()
    killed.sync()
    assert not any(file.exists() for file in old)
    assert list(Verifier(whole=True).run(with_rotated(path))) == []

    old[-1].mkdir()  # what can't be deleted is told, and stops nothing
    (old[-1] / "file").touch()
    assert list(expired(path, now)) == []
    assert not troubles
