"""How the proxy fares, for whoever watches over it."""

from dataclasses import dataclass

from whenever import Instant

from tokgate.blocklog import health as log_health
from tokgate.gate.counters import Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One look at the state; the counters go on counting."""

    started_at: Instant
    policy_version: str
    policy_loaded_at: Instant
    policy_error: str | None
    """Why the newest policy files aren't in force; None when they are."""
    log: log_health.Health
    counters: Counters
    connections: int

    @property
    def ok(self) -> bool:
        """Whether nothing needs a person's attention."""
        return self.policy_error is None and self.log.ok and not self.counters.errors
