"""What a command makes takes the place of a file, never of what is no file."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tokgate.cli.output_file import becoming


def test_another_run_keeps_the_permissions(tmp_path: Path) -> None:
    """A report that was opened to a group stays open to it when it is made again."""
    report = tmp_path / "report.html"
    with becoming(report) as draft:
        draft.write_text("first")
    assert stat.S_IMODE(report.stat().st_mode) & ~0o640 == 0
    report.chmod(0o664)
    with becoming(report) as draft:
        draft.write_text("second")
    assert (report.read_text(), stat.S_IMODE(report.stat().st_mode)) == ("second", 0o664)


def test_a_link_leads_to_the_file_that_is_meant(tmp_path: Path) -> None:
    """`latest.html` still leads to where it led, and that has the new report."""
    kept, link = tmp_path / "kept" / "report.html", tmp_path / "latest.html"
    kept.parent.mkdir()
    link.symlink_to(kept)
    with becoming(link) as draft:
        draft.write_text("new")
    assert link.is_symlink()
    assert kept.read_text() == "new"
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/stdout"])
def test_a_device_stays_one(device: str) -> None:
    """`-o /dev/null` must not make a file of it: everybody else needs it."""
    before = Path(device).stat()
    with becoming(Path(device)) as target:
        assert target.stat().st_ino == before.st_ino
    assert Path(device).stat().st_mode == before.st_mode


def test_a_pipe_gets_what_is_written(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    heard: list[str] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    with becoming(pipe) as target:
        target.write_text("report")
    reader.join(10)
    assert heard == ["report"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
