"""The files of who looked: rotated with the log, attested by its chain, deleted with it, and compared by verify."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.appending import AppenderRuns
from tokgate.blocklog.access_log import append
from tokgate.blocklog.integrity.chain_state import Finding, FindingCode
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import access_path_for, archived, with_rotated
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.segment import Rotation


class Days(AppenderRuns):
    """Days on which somebody looks, and records are written."""

    def pass_by(self, days: int, looks: int = 1) -> None:
        for _ in range(days):
            for number in range(looks):
                append(access_path_for(self.path), f"look {number} of {self.now}\n".encode())
            self.run_for_a_day()

    def looks(self) -> list[Path]:
        return [path for path, _ in archived(access_path_for(self.path))]

    def findings(self, *, whole: bool = True) -> list[Finding]:
        return [*Verifier(whole=whole).run(with_rotated(self.path))]


@pytest.fixture
def days(tmp_path: Path) -> Days:
    """Four days, three of which are over."""
    runs = Days(tmp_path / "block.ndjson", Rotation(), LogOptions(), "2023-03-01T12:00Z")
    runs.pass_by(4, looks=2)
    assert not runs.troubles
    return runs


def test_attested(days: Days, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """The log's records have the digest of each day's looks, and nothing is found to be wrong."""
    said = [r["tokgate"]["access_log"] for r in check_lines(*with_rotated(days.path)) if "access_log" in r["tokgate"]]
    assert len(said) == 3
    for path, told in zip(days.looks(), said, strict=True):
        content = path.read_bytes()
        assert (told["file"], told["lines"]) == (path.name, 2 if told is not said[0] else 4)
        assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert days.findings() == []


def test_changed_and_gone(days: Days) -> None:
    """A look that was taken out shows, and so does a file, but not where only some of the log is there."""
    first, second, _ = days.looks()
    whole = first.read_bytes()
    first.write_bytes(whole.splitlines(keepends=True)[0])
    second.unlink()
    assert [(each.code, Path(each.file).name) for each in days.findings()] == [
        (FindingCode.CHANGED, first.name),
        (FindingCode.MISSING, with_rotated(days.path)[2].name),
    ]
    assert [(each.code, each.line) for each in days.findings(whole=False)] == [(FindingCode.CHANGED, 1)]
    first.unlink()
    packed = first.with_name(f"{first.name}.gz")  # as an admin may
    for content, found in ((gzip.compress(whole), []), (b"no gzip", [(FindingCode.UNREADABLE, 1)])):
        packed.write_bytes(content)
        assert [(each.code, each.line) for each in days.findings(whole=False)] == found


def test_deleted_with_the_log(days: Days, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """Retention is theirs, too: a signed record names them before they go, and verify finds nothing missing."""
    days.options = LogOptions(retention_days=3)
    days.pass_by(8, looks=1)
    oldest = min(end for _, end in archived(access_path_for(days.path)))
    assert oldest >= min(end for _, end in archived(days.path))
    named = {
        name
        for record in check_lines(*with_rotated(days.path))
        for name in record["tokgate"].get("deleted", {}).get("files", ())
    }
    assert any(name.startswith("block.access-") for name in named)
    assert days.findings() == []
    assert not days.troubles
