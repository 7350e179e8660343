"""What is counted of traffic: how much of it, by network, visibility and verdict. Never whose, never which name."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tokgate.blocklog.observation import Visibility
from tokgate.policy.decision import Verdict

UNKNOWN_NETWORK: Final = "-"
"""Stands for clients that belong to no network."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the decisions counted together have in common."""

    network: str
    visibility: Visibility
    verdict: Verdict


@dataclass(slots=True)
class Counters:
    """Counts since the start. Read and written on the event loop's thread only."""

    decisions: Counter[Kind] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Internal errors, by where they were raised."""
    last_error: str | None = None
    """The latest of them, in a line."""
    loops: int = 0
    """Connections refused because they came from this very proxy, or were addressed to it."""
    timeouts: int = 0
    """Connections closed because the client did not say in time what it wants."""

    def count(self, network: str | None, visibility: Visibility, verdict: Verdict, number: int = 1) -> None:
        """Count decisions, each about one connection or request."""
        self.decisions[Kind(network or UNKNOWN_NETWORK, visibility, verdict)] += number
