"""Folding: events that repeat within a minute are counted instead of logged one by one.

No clock is read. Windows are measured in monotonic seconds; recorded instants are wall-clock time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from whenever import Instant

from tokgate.policy.decision import Decision
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Stage

WINDOW: Final = 60.0
"""Seconds after an event within which equal events are its repeats."""
MAX_OPEN: Final = 4096
"""Most folds that are open at a time; one more closes the oldest early."""

NAMES_COUNTED: Final = 1024
"""Names told apart in a fold of events with different names."""

type FoldKey = tuple[object, ...]
"""What all events of a fold have in common. Opaque: only for comparing and hashing."""

_OF_DECISION: Final = attrgetter("verdict", "ban", "rule", "service", "network", "reason", "signal", "exemption")


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
) -> FoldKey:
    """The key of an event: it holds every field that a reviewer may group by, so that a count stands for equal events.

    `name` is in lower case; without a name it is the address.
    """
    return client, name, stage, _OF_DECISION(decision), opened, mismatch, passed, identity


@dataclass(slots=True)
class Fold[T]:
    """An event that was recorded, how often it was repeated, and the first and last time.

    `event` is the caller's; `ends` is in monotonic seconds.
    """

    key: FoldKey
    event: T
    ends: float
    count: int = 0
    first: Instant | None = None
    last: Instant | None = None
    names: dict[str, None] | None = None
    """Of a fold of events with different names, up to NAMES_COUNTED."""

    def meet(self, name: str) -> None:
        """Take note of the name in a further event."""
        if self.names is not None and len(self.names) < NAMES_COUNTED:
            self.names[name] = None


class Folding[T]:
    """The open folds, in the order in which they end."""

    __slots__ = ("_limit", "_open", "_window")

    def __init__(self, window: float = WINDOW, limit: int = MAX_OPEN) -> None:
        """`window` in seconds; `limit` is at least 1."""
        self._window: Final = window
        self._limit: Final = limit
        self._open: Final[dict[FoldKey, Fold[T]]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def repeat(self, key: FoldKey, at: Instant) -> Fold[T] | None:
        """Count an event if a fold is open for its key; else None."""
        fold = self._open.get(key)
        if fold is None:
            return None
        if fold.first is None:
            fold.first = at
        fold.last = at
        fold.count += 1
        return fold

    def open(self, key: FoldKey, event: T, now: float, *, names: bool = False) -> Fold[T] | None:
        """Begin a fold with an event that was recorded; there must be none for its key. Returns one closed for it.

        With `names`, of events that have different ones.
        """
        closed = None
        if len(self._open) >= self._limit:
            closed = self._open.pop(next(iter(self._open)))
        self._open[key] = Fold(key, event, now + self._window, names={} if names else None)
        return closed

    def due(self, now: float) -> Iterator[Fold[T]]:
        """Close and yield the folds whose window is over at `now`, in monotonic seconds."""
        while self._open:
            fold = next(iter(self._open.values()))
            if fold.ends > now:
                return
            del self._open[fold.key]
            yield fold

    def close(self) -> Iterator[Fold[T]]:
        """Close and yield all folds, as at the end of a run."""
        return self.due(float("inf"))


class Shares:
    """How many records each client may still have of its own in the present minute."""

    __slots__ = ("_ends", "_most", "_taken", "_window")

    def __init__(self, most: int, window: float = WINDOW) -> None:
        """`window` in seconds."""
        self._most: Final = most
        self._window: Final = window
        self._ends = float("-inf")
        self._taken: Final[dict[str, int]] = {}

    def take(self, client: str, now: float) -> bool:
        """Take one; False if the client has had all of this minute's."""
        if now >= self._ends:
            self._taken.clear()
            self._ends = now + self._window
        taken = self._taken.get(client, 0)
        self._taken[client] = taken + 1
        return taken < self._most
