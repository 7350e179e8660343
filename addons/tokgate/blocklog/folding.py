"""Repeats within a minute, counted instead of written: what makes two events the same, and which folds are open.

Pure: clocks are passed in. The window runs on a clock that only goes forward; what is told are instants of the wall.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.blocklog.observation import Stage
from tokgate.policy.decision import Decision
from tokgate.policy.identity import Identity

WINDOW: Final = 60.0
"""Seconds from an event, within which others like it are its repeats."""
MAX_OPEN: Final = 4096
"""Most folds that are open at a time; one more closes the oldest before its minute is over."""

type Key = tuple[object, ...]
"""What all events of a fold have in common. Compare and hash, nothing else."""


def key_of(
    client: str,
    name: str,
    decision: Decision,
    stage: Stage,
    *,
    opened: bool = False,
    mismatch: bool = False,
    passed: str | None = None,
    identity: Identity | None = None,
) -> Key:
    """The key of an event: everything that reviewers group by is in it, so that a count stands for equal events.

    `name` in lower case; where no name was seen, the address.
    """
    return (
        client,
        name,
        stage,
        decision.verdict,
        decision.ban,
        decision.rule,
        decision.service,
        decision.network,
        decision.reason,
        decision.signal,
        decision.exemption,
        opened,
        mismatch,
        passed,
        identity,
    )


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often an event came again, the first time and the last, and the id of its own record."""

    count: int
    first: Instant
    last: Instant
    of: str


@dataclass(slots=True)
class Fold[T]:
    """An event that was recorded, and how often it came again. `event` is what the caller keeps of it."""

    key: Key
    event: T
    ends: float
    count: int = 0
    first: Instant | None = None
    last: Instant | None = None

    def repeats(self, of: str) -> Repeats | None:
        """What there is to tell; None if the event did not come again."""
        if self.first is None or self.last is None:
            return None
        return Repeats(self.count, self.first, self.last, of)


class Folding[T]:
    """The open folds, in the order in which they end."""

    __slots__ = ("_limit", "_open", "_window")

    def __init__(self, window: float = WINDOW, limit: int = MAX_OPEN) -> None:
        """`window` in seconds; `limit` is at least 1."""
        self._window: Final = window
        self._limit: Final = limit
        self._open: Final[dict[Key, Fold[T]]] = {}

    def __len__(self) -> int:
        """How many folds are open."""
        return len(self._open)

    def repeat(self, key: Key, at: Instant) -> Fold[T] | None:
        """Count an event if a fold is open for it; else None, and nothing done."""
        fold = self._open.get(key)
        if fold is None:
            return None
        if fold.first is None:
            fold.first = at
        fold.last = at
        fold.count += 1
        return fold

    def open(self, key: Key, event: T, now: float) -> Fold[T] | None:
        """Begin a fold with an event that was recorded; there must be none for its key. Returns one closed for it."""
        closed = None
        if len(self._open) >= self._limit:
            closed = self._open.pop(next(iter(self._open)))
        self._open[key] = Fold(key, event, now + self._window)
        return closed

    def due(self, now: float) -> Iterator[Fold[T]]:
        """Close and yield the folds whose minute is over."""
        while self._open:
            fold = next(iter(self._open.values()))
            if fold.ends > now:
                return
            del self._open[fold.key]
            yield fold

    def close(self) -> Iterator[Fold[T]]:
        """Close and yield all that is open."""
        return self.due(float("inf"))
