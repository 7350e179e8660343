"""Fixtures around `gate_lab`: gates and origins that end with the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from whenever import Instant

from labs.builders import ban
from labs.gate_lab import Origin, RunningGate, echo, policy, stop_time
from labs.records import Monotonic
from tokgate.gate import background
from tokgate.gate.background import addresses_of
from tokgate.gate.sockets import Address
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.limits import Limits


@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    """The clock by which deadlines of gates pass."""
    return stop_time(monkeypatch)


@pytest.fixture
def start_gate(monkeypatch: pytest.MonkeyPatch, monotonic: Monotonic) -> Iterator[Callable[..., RunningGate]]:
    """Starts gates; redirected connections go to the origin given. Stopped, and checked for errors, at the end."""
    running: list[RunningGate] = []
    monkeypatch.setattr(background, "addresses_of", lambda host: addresses_of(host) if host == "localhost" else ())

    def start(
        origin: Origin | Address | None = None,
        snapshot: Snapshot | None = None,
        limits: Limits | None = None,
        now: Callable[[], Instant] | None = None,
    ) -> RunningGate:
        if origin is not None:
            place = origin if isinstance(origin, tuple) else origin.address
            monkeypatch.setattr("tokgate.gate.context.original_destination", lambda sock, listener: place)
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

    def start(serve: Callable[..., None] = echo, **options: Any) -> Origin:
        running.append(Origin(serve, **options))
        return running[-1]

    yield start
    for origin in running:
        origin.close()
