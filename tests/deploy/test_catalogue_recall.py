"""The share of public lists that the catalogue takes in: their formats, and what counts as taken in."""

import runpy
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "deploy" / "catalogue_recall.py"


def test_lists_of_each_format_are_read(tmp_path: Path) -> None:
    """Included files, hosts files, suffixes and AdGuard's Go file, under the list's name for the service."""
    (tmp_path / "twitter").write_text("include:x\nfull:ads.x.com @ads\nregexp:^a$\n# nothing\n", encoding="utf-8")
    (tmp_path / "x").write_text("x.com\n", encoding="utf-8")
    (tmp_path / "viber.txt").write_text("0.0.0.0 www.viber.com\n", encoding="utf-8")
    (tmp_path / "signal.list").write_text("+.signal.org\n", encoding="utf-8")
    services = tmp_path / "servicelist.go"
    services.write_text('\tID:  "line",\n"||line.me^",\n\tID:  "linear",\n"||linear.app^",\n', encoding="utf-8")
    named = runpy.run_path(str(_SCRIPT))["named"]
    assert named(tmp_path, "x") == {"x.com", "ads.x.com"}
    assert named(tmp_path, "viber") == {"www.viber.com"}
    assert named(tmp_path, "signal") == {"signal.org"}
    assert named(services, "line") == {"line.me"}
    assert named(tmp_path, "kimi") == set()


def test_the_table_counts_a_strangers_name_as_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name below a service's is taken in, one that only looks alike isn't; unknown services have no row."""
    (tmp_path / "signal").write_text("chat.signal.org\nsignal.example\n", encoding="utf-8")
    runpy.run_path(str(_SCRIPT))["main"]([f"mine={tmp_path}"])
    rows = capsys.readouterr().out.splitlines()
    assert rows[:4] == ["| service | mine |", "|---|---|", "| `signal` | 50 % (2) |", "| all | 50 % (2) |"]
    assert "entries rest on one family of lists: " in rows[-1]
