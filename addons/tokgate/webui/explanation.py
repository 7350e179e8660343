"""What the review page needs of the policies: the trace of a decision, and the phases of bans over time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tokgate.analytics.report.bans import BanPhases
from tokgate.blocklog.read.reader import Line


class ExplanationStep(Protocol):
    """A numbered step: what was found, a line each, and what was considered and does not count."""

    @property
    def title(self) -> str: ...
    @property
    def lines(self) -> Sequence[str]: ...
    @property
    def others(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """The trace of a decision. `notes` name the policy used; `warnings` say why it may differ from the original one."""

    verdict: str | None = None
    said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    steps: Sequence[ExplanationStep] = field(default=())


@dataclass(frozen=True, slots=True)
class Devices:
    """What the policies know of clients: names by address, and the time zones of all networks."""

    names: Mapping[str, str] = field(default_factory=dict)
    zones: tuple[str, ...] = ()


class Explainer(Protocol):
    """Answers from the policies. Called from threads, one call at a time."""

    def explain(self, line: Line) -> Explanation:
        """Decide again what the line records, by the policy version that the line names if it is available."""

    def lanes(self, start: datetime, end: datetime, bans: frozenset[str]) -> tuple[list[BanPhases], str]:
        """The phases of bans in `[start, end)`, those of `bans` first, and a text that names their source."""

    def devices(self, clients: Collection[str]) -> Devices:
        """What the current policies know of these clients; nothing if there are no policies."""
