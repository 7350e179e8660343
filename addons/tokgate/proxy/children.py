"""The processes under the supervisor: what each does, how often it failed, and what it says of itself."""

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tokgate.proxy.state import Worker


class Role(StrEnum):
    """What a child does."""

    GATE = "gate"
    OPENER = "opener"
    COLLECTOR = "collector"
    METRICS = "metrics"


@dataclass(slots=True)
class Child:
    """A running process. `slot` tells equals apart; `version` is the policy's that it was started with."""

    role: Role
    slot: int
    pid: int
    started: float
    version: str
    retired: bool = False
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Role and slot."""
        return f"{self.role.value}-{self.slot}"

    def as_worker(self) -> Worker:
        """As it is told. A gate keeps its policy; an opener reads each new one, and reports which it has."""
        reported = {
            Role.GATE: self.version,
            Role.OPENER: self.report.get("version", self.version),
        }
        return Worker(
            name=self.name,
            pid=self.pid,
            seconds=time.monotonic() - self.started,
            version=reported.get(self.role),
            retired=self.retired,
            report=self.report,
        )


@dataclass(slots=True)
class Health:
    """How often a slot's process has died, lately and at all, and when it may be started again."""

    failures: int = 0
    deaths: int = 0
    not_before: float = 0.0
