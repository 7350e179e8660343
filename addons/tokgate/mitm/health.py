"""The health of a process with mitmproxy, for status and metrics."""

from dataclasses import dataclass

from whenever import Instant

from tokgate.blocklog.write import writer_health
from tokgate.traffic.counting.counters import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A snapshot of the state; the counters continue to change."""

    started_at: Instant
    policy_version: str
    policy_loaded_at: Instant
    policy_error: str | None
    """Why the newest policy files aren't in force; None when they are."""
    log: writer_health.WriterHealth
    counters: Counters
    connections: int

    @property
    def ok(self) -> bool:
        """Whether nothing needs a person's attention."""
        return self.policy_error is None and self.log.ok and not self.counters.errors
