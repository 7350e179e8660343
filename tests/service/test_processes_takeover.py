"""How long the openers of the program before serve."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tokgate.service.children import Child, Role
from tokgate.service.gate_process import RETIRE
from tokgate.service.process_health import Restarts
from tokgate.service.processes import ChildProcesses


def test_openers_serve_until_those_of_the_next_program_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first of these dies before it serves, nobody else would until another one does."""
    told: list[tuple[int, int]] = []
    started: list[tuple[Role, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append((pid, number)))
    before, old, new = (Child(Role.OPENER, 0, pid, float(pid), "version") for pid in (1, 2, 3))
    before.retired = True
    processes: Any = SimpleNamespace(
        _children={1: before, 2: old},
        _replaced_openers=[old],
        _of=lambda *_: [],
        _generation_due=False,
        _restarts=Restarts(lambda what: None),
        _start=lambda role, slot: started.append((role, slot)),
        _wanted=lambda: [(Role.OPENER, 0)],
    )
    ChildProcesses.retire_replaced(processes)
    ChildProcesses.restart_missing(processes)
    assert (told, started) == ([], [(Role.OPENER, 0)])

    processes._children[3] = new
    ChildProcesses.retire_replaced(processes)
    ChildProcesses.restart_missing(processes)
    assert (told, len(started)) == ([], 1)

    new.report = {"version": "version"}
    ChildProcesses.retire_replaced(processes)
    assert told == [(2, RETIRE)]
