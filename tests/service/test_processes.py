"""Generations of gates: what the supervisor tells those that a newer policy has replaced."""

import os
import signal
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tokgate.service.children import Child, Role
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
