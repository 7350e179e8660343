"""On a terminal: colour, tables and progress; in a pipe, and for those who ask for it, plain text."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.command_line import Command
from labs.logs import refusal
from labs.samples import stamp
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.record import encode
from tokgate.cli import terminal

ESCAPE = "\x1b["
BLOCKED = ("explain", "--client", "192.0.2.7", "--host", "clips.example.org", "--at", "2023-05-02T08:00Z")


type Shown = Callable[..., str]


@pytest.fixture
def on_terminal(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a command's answer is on what it takes for a terminal."""

    def show(*arguments: str, **environment: str) -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in ({"TERM": "xterm", "COLUMNS": "160"} | environment).items():
            monkeypatch.setenv(name, value)
        return tokgate(*arguments).out

    return show


def test_explain_in_color(policies: Path, on_terminal: Shown) -> None:
    assert f"{ESCAPE}1;31mblock{ESCAPE}0m" in on_terminal(*BLOCKED)


def test_check_in_color(policies: Path, on_terminal: Shown) -> None:
    (policies / "policy.yaml").write_text("version: 1\nservice: {}\n")
    assert ESCAPE in on_terminal("check")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_when_asked(policies: Path, on_terminal: Shown, environment: dict[str, str]) -> None:
    """https://no-color.org, and terminals that can't."""
    assert on_terminal(*BLOCKED, **environment).startswith("block: ")


def test_a_timeline_too_wide_for_the_terminal_is_shown_one_by_one(policies: Path, on_terminal: Shown) -> None:
    """Each transition as lines of what and value, none of them folded."""
    shown = on_terminal("timeline", "--from", "2023-03-02T00:00Z", "--limit", "2", COLUMNS="80")
    assert "─" not in shown
    first, *_ = shown.split("\n\n")
    lines = dict(re.split(r" {2,}", re.sub(r"\x1b\[[0-9]*m", "", line), maxsplit=1) for line in first.splitlines())
    assert list(lines) == ["local time", "UTC", "ban", "what changes", "for whom"]
    assert lines["ban"] == "spring-ban"


@pytest.mark.parametrize(("columns", "table"), [("40", False), ("160", True)])
def test_coverage_fits_the_terminal(tmp_path: Path, on_terminal: Shown, columns: str, table: bool) -> None:
    """Where there is no room for a table each network has its lines."""
    log = tmp_path / "block.ndjson"
    seen = {"federal-offices": {"sni": 123456, "quic-sni": 2345, "none": 1}}
    log.write_bytes(encode(coverage_counted(stamp(), seen, stamp().at)))
    shown = on_terminal("log", "summary", "--log", str(log), COLUMNS=columns, NO_COLOR="1")
    assert ("─" in shown) is table
    assert "federal-offices" in shown
    assert "none 1, quic-sni 2345, sni 123456" in shown
    assert "Of 125,802 connections and requests" in shown


@pytest.mark.parametrize(("columns", "table"), [("40", False), ("80", True)])
def test_a_summary_fits_the_terminal(tmp_path: Path, on_terminal: Shown, columns: str, table: bool) -> None:
    """Nothing is cut: where a table does not fit, each row has its lines."""
    log = tmp_path / "block.ndjson"
    log.write_bytes(encode(refusal()) * 3)
    shown = on_terminal("log", "summary", "--log", str(log), "--by", "client", "--by", "attempt", COLUMNS=columns)
    assert ("─" in shown) is table
    assert "192.0.2.7" in shown
    assert shown.count("2023-03-10 11:00Z") == 4


def test_simulate_shows_progress(policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress goes to the terminal, answers stay clean."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(terminal.Patience, "_SECONDS", 0.0)
    file = policies.parent / "queries.ndjson"
    file.write_text('{"client": "192.0.2.7", "host": "clips.example.org"}\n' * 1000)
    outcome = tokgate("simulate", str(file))
    assert re.search(r"queries: [1-9]", outcome.err)
    hosts = [json.loads(line)["host"] for line in outcome.out.splitlines()]
    assert hosts == ["clips.example.org"] * 1000


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
