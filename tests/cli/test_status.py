"""`tokgate status` in text: what a person reads of a running tokgate."""

from typing import Any

import pytest

from cli.command_line import Command
from tokgate.cli import status


def ban(name: str, phase: str | None, idle: str | None = None, *, overdue: bool = False) -> dict[str, Any]:
    """A ban as a running tokgate tells of it."""
    return {"ban": name, "networks": ["office"], "phase": phase, "idle": idle, "overdue": overdue}


def state(*bans: dict[str, Any], ok: bool = True) -> dict[str, Any]:
    """A running tokgate with one gate."""
    report = {"connections": 2, "clients": 1, "errors": {} if ok else {"internal": 3}}
    return {
        "ok": ok,
        "policy": {
            "version": "0c2bfe1dd0f4",
            "loaded_at": "2023-03-10T08:00:00Z",
            "error": None,
            "restart_needed": [],
            "next_transition": None,
            "bans": list(bans),
        },
        "workers": [
            {"name": "gate-0", "pid": 7, "seconds": 61.2, "version": "0c2bfe1dd0f4", "retired": False, "report": report}
        ],
    }


@pytest.mark.parametrize(
    ("told", "line"),
    [
        pytest.param(ban("a", None, "unannounced"), "unannounced: a for office", id="unannounced"),
        pytest.param(ban("a", "announced", "announced"), "announced: a for office", id="announced"),
        pytest.param(ban("a", "block"), "block: a for office", id="block"),
        pytest.param(ban("a", "block", "outside-window"), "block: a for office (outside-window)", id="window"),
        pytest.param(ban("a", "block", overdue=True), "block: a for office (overdue)", id="overdue"),
        pytest.param(ban("a", "expired", "expired"), "expired: a for office", id="expired"),
    ],
)
def test_a_ban(tokgate: Command, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], line: str) -> None:
    """Its phase, and beside it only what the phase doesn't say."""
    monkeypatch.setattr(status, "ask_running", lambda *_: state(told))
    outcome = tokgate("status")
    assert (outcome.code, f"\n  {line}\n" in outcome.out) == (0, True), outcome.out


def test_trouble(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told for the worker that has it, and is exit code 1."""
    monkeypatch.setattr(status, "ask_running", lambda *_: state(ok=False))
    outcome = tokgate("status")
    assert outcome.code == 1
    assert outcome.out.endswith("gate-0 pid 7, up 61 s, policy 0c2bfe1dd0f4, 2 connections of 1 client, 3 × internal\n")
