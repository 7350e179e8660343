"""Collects names that resemble a banned service and matched nothing: without clients, by the hour, bounded.

A carrier asks `name not in ordinary` of each name that passes; all else happens for names met for the first time, and
between connections.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokgate.policy.analysis.likeness import Likeness
from tokgate.policy.values.hostname import DomainName, normalise

if TYPE_CHECKING:
    from tokgate.policy.analysis.near_miss import Resemblance

MOST_ORDINARY: Final = 16_384
"""Names remembered that resemble nothing; one more, and all are forgotten."""
MOST_PENDING: Final = 2_048
"""Names that wait to be compared; further ones are ignored until they come again."""
MOST_KNOWN: Final = 4_096
"""Spellings remembered of names that resemble something."""
MOST_TOLD: Final = 200
"""Candidates that are listed in an hour; requests for others are only counted."""
A_TURN: Final = 256
"""Names looked at between connections: some three milliseconds at most."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A candidate, and how often such names were asked for."""

    likeness: Likeness
    count: int


class NearMisses:
    """What was met since it was last told. Used by one thread; `look` is to be called about once a second."""

    def __init__(self, resemblance: "Resemblance") -> None:
        self.ordinary: Final[set[str]] = set()
        """Names that resemble nothing, as they were shown."""
        self.more = 0
        """The number of requests for candidates that are not listed."""
        self._resemblance: Final = resemblance
        self._pending: Final[dict[str, int]] = {}
        self._known: Final[dict[str, Likeness]] = {}
        self._counts: Final[dict[Likeness, int]] = {}

    def meet(self, name: str) -> None:
        """A name passed that matched no rule."""
        likeness = self._known.get(name)
        if name in self.ordinary:
            return
        if likeness is not None:
            self._count(likeness, 1)
        elif name in self._pending:
            self._pending[name] += 1
        elif len(self._pending) < MOST_PENDING:
            self._pending[name] = 1

    def look(self, most: int = A_TURN) -> None:
        """Look at names that were met for the first time."""
        for name in list(self._pending)[:most]:
            number = self._pending.pop(name)
            normal = normalise(name)
            likeness = self._resemblance.find(normal.value) if isinstance(normal, DomainName) else None
            if likeness is None:
                if len(self.ordinary) >= MOST_ORDINARY:
                    self.ordinary.clear()
                self.ordinary.add(name)
                continue
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[name] = likeness
            self._count(likeness, number)

    def take(self) -> tuple[tuple[NearMiss, ...], int]:
        """The candidates, the most frequent first, and how often others were asked for; then they are forgotten."""
        self.look(MOST_PENDING)
        found = sorted(self._counts.items(), key=lambda item: (-item[1], item[0].name))
        told, more = tuple(NearMiss(likeness, count) for likeness, count in found), self.more
        self._counts.clear()
        self.more = 0
        return told, more

    def _count(self, likeness: Likeness, number: int) -> None:
        if likeness in self._counts:
            self._counts[likeness] += number
        elif len(self._counts) < MOST_TOLD:
            self._counts[likeness] = number
        else:
            self.more += number
