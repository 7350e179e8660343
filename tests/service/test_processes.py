"""What the supervisor tells gates that a newer policy has replaced, and openers of the program before."""

import os
import signal
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tokgate.service.children import Child, Role
from tokgate.service.gate_process import RETIRE
from tokgate.service.process_health import Restarts
from tokgate.service.processes import GENERATIONS, ChildProcesses


def test_an_old_gate_is_told_once_to_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many policies follow: a second SIGTERM would cut its connections off before their time."""
    told: Counter[tuple[int, int]] = Counter()
    monkeypatch.setattr(os, "kill", lambda pid, number: told.update([(pid, number)]))
    children: dict[int, Child] = {}

    def start(role: Role, slot: int, **_: bool) -> bool:
        pid = len(children) + 1
        children[pid] = Child(role, slot, pid, float(pid), "version")
        return True

    processes: Any = SimpleNamespace(
        _children=children,
        _options=SimpleNamespace(workers=1),
        _start=start,
        _wait=lambda *_: None,
        _newest_gates=lambda: [child for child in children.values() if not child.retired],
    )
    for _ in range(GENERATIONS + 4):
        ChildProcesses.next_generation(processes)

    assert {pid: number for (pid, sent), number in told.items() if sent == signal.SIGTERM} == {1: 1, 2: 1, 3: 1}


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
