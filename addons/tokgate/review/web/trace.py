"""What the page asks of whoever has the policies: why a line was decided so, and where bans stood."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from tokgate.blocklog.reader import Line
from tokgate.review.lanes import Lane


class Step(Protocol):
    """A numbered step: what was found, a line each, and what was considered and does not count."""

    @property
    def title(self) -> str: ...
    @property
    def lines(self) -> Sequence[str]: ...
    @property
    def others(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Explanation:
    """The trace of a decision. `notes` say by which policy, `warnings` why it may not be the one that was made."""

    verdict: str | None = None
    said: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    steps: Sequence[Step] = field(default=())


class Counsel(Protocol):
    """Has the policies. Called from threads, one at a time."""

    def explain(self, line: Line) -> Explanation:
        """Decide a line again, by the policy that it names where that is to be had."""

    def lanes(self, start: datetime, end: datetime, bans: frozenset[str]) -> tuple[list[Lane], str]:
        """Where bans stood, those of `bans` first; and whose word that is."""
