"""Fixtures around `gate_lab`, which this makes importable together with the ClientHello builder."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from whenever import Instant

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "wire")]

from gate_lab import Origin, RunningGate, echo, policy

from builders import ban
from tokgate.gate.gate import Limits
from tokgate.policy.snapshot import Snapshot


@pytest.fixture
def start_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunningGate]]:
    """Starts gates; redirected connections go to the origin given. Stopped, and checked for errors, at the end."""
    running: list[RunningGate] = []

    def start(
        origin: Origin | None = None,
        snapshot: Snapshot | None = None,
        limits: Limits | None = None,
        now: Callable[[], Instant] | None = None,
    ) -> RunningGate:
        if origin is not None:
            monkeypatch.setattr("tokgate.gate.gate.original_destination", lambda sock, listener: origin.address)
        gate = RunningGate(snapshot or policy(ban(networks=("loop",))), limits, now)
        running.append(gate)
        return gate

    yield start
    for gate in running:
        gate.stop()


@pytest.fixture
def start_origin() -> Iterator[Callable[..., Origin]]:
    """Starts origins: by default ones that echo."""
    running: list[Origin] = []

    def start(serve: Callable[..., None] = echo, **options: int) -> Origin:
        running.append(Origin(serve, **options))
        return running[-1]

    yield start
    for origin in running:
        origin.close()
