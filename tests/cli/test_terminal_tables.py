"""Tables: what fits is a table, what does not is shown row by row."""

import os
import shutil
import sys

import pytest

from tokgate.cli import terminal

NAMES = ("client", "name", "events")
ROWS = (("192.0.2.7", "動画 www.example.org and others", "12"), ("192.0.2.8", "", "3"))
WIDE = """\
 client     name                             events
 ──────────────────────────────────────────────────
 192.0.2.7  動画 www.example.org and others      12
 192.0.2.8                                        3
"""
ONE_BY_ONE = """\
client  192.0.2.7
name    動画 www.example.org and others
events  12

client  192.0.2.8
events  3
"""


@pytest.mark.parametrize(("width", "shown"), [(51, WIDE), (50, ONE_BY_ONE)], ids=["wide", "one by one"])
def test_rows(width: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is cut; wide characters take two places; no line is longer than the terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((width, 24)))
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.show_rows(NAMES, ROWS, right=(False, False, True))
    assert capsys.readouterr().out == shown
