"""What a report says of its log's integrity."""

from pathlib import Path

import pytest

from labs.appending import AppenderRuns
from tokgate.blocklog.integrity import verify
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.cli.log import report_integrity
from tokgate.cli.log.report_integrity import digests, verified
from tokgate.cli.terminal import Patience


def test_verifying_shows_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day of five million lines takes minutes; and however many findings there are, they are counted."""
    told: list[tuple[int, int | None]] = []

    class Told(Patience):
        def __call__(self, done: int, total: int | None) -> None:
            told.append((done, total))

    monkeypatch.setattr(verify, "_TICK", 2)
    monkeypatch.setattr(report_integrity, "Patience", Told)
    runs = AppenderRuns(tmp_path / "block.ndjson", options=LogOptions())
    runs.run(5)
    assert verified([runs.path]).sound is True
    assert told == [(2, None), (4, None), (6, None)]
    runs.path.write_bytes(runs.path.read_bytes().replace(b"number 1", b"number x").replace(b"number 3", b"number x"))
    status = verified([runs.path])
    assert status.sound is False
    (sentence,) = status.sentences
    assert sentence.values["count"] == 2
    assert str(sentence.values["first"]).startswith(f"{runs.path}:2:")


def test_files_of_one_name(tmp_path: Path) -> None:
    """Two gateways' current files are both `block.ndjson`: the folder tells them apart."""
    paths = [
        tmp_path / folder / name for folder, name in (("a", "block.ndjson"), ("b", "block.ndjson"), ("b", "other"))
    ]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * number)
    assert [(each.name, each.size) for each in digests(paths)] == [(str(paths[0]), 0), (str(paths[1]), 1), ("other", 2)]
