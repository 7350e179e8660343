"""Who, what, when, why: counts over the log's records about traffic, exact and in bounded memory.

Each event is counted once in each table, so every table adds up to `events`: a record is one event, or as many as it
says it stands for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from tokgate.blocklog.document import TRAFFIC, EventAction, Record
from tokgate.blocklog.reader import Junk, Line, text_at, value_at

MAX_KEYS: Final = 100_000
"""Most different keys a table holds. Keys first met after that are counted together, in `other`."""


class By(StrEnum):
    """The tables of a summary."""

    CLIENT = "client"
    NAME = "name"
    BAN = "ban"
    SERVICE = "service"
    NETWORK = "network"
    SIGNAL = "signal"
    REASON = "reason"
    ACTION = "action"
    VERDICT = "verdict"
    ATTEMPT = "attempt"
    """Client, name, ban and network together: one row answers who, what and why."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a key was met, and its earliest and latest time stamps, in whatever order they came."""

    key: tuple[str, ...]
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Table:
    """Tallies, most frequent first; `other` counts what belongs to none of them, `keys` is how many there were."""

    rows: tuple[Tally, ...]
    other: int
    keys: int

    @property
    def total(self) -> int:
        """All events."""
        return sum(row.count for row in self.rows) + self.other


@dataclass(frozen=True, slots=True)
class Summary:
    """`records` are all lines that were read, `events` what those about traffic stand for, `dropped` what gaps tell."""

    records: int
    events: int
    junk: int
    dropped: int
    first: str | None
    last: str | None
    tables: dict[By, Table]


@dataclass(slots=True)
class _Running:
    count: int
    first: str
    last: str

    def add(self, other: "_Running") -> None:
        self.count += other.count
        if other.first < self.first:
            self.first = other.first
        if other.last > self.last:
            self.last = other.last


@dataclass(slots=True)
class _Counter:
    limit: int
    running: dict[tuple[str, ...], _Running] = field(default_factory=dict)
    other: int = 0

    def add(self, key: tuple[str, ...], met: _Running) -> None:
        found = self.running.get(key)
        if found is not None:
            found.add(met)
        elif len(self.running) < self.limit:
            self.running[key] = replace(met)
        else:
            self.other += met.count

    def table(self, top: int | None) -> Table:
        order = sorted(self.running.items(), key=lambda item: (-item[1].count, item[0]))
        shown = order if top is None else order[:top]
        rows = tuple(Tally(key, tally.count, tally.first, tally.last) for key, tally in shown)
        hidden = sum(tally.count for _, tally in order[len(shown) :])
        return Table(rows, self.other + hidden, len(order))


_ABSENT: Final = "-"


def _of(*path: str) -> Callable[[Record], str]:
    return lambda record: text_at(record, *path) or _ABSENT


def _client(record: Record) -> str:
    return text_at(record, "source", "ip") or text_at(record, "source", "address") or _ABSENT


def _name(record: Record) -> str:
    """The registrable domain; else the name as it is; else the address."""
    return (
        text_at(record, "destination", "registered_domain")
        or text_at(record, "destination", "domain")
        or text_at(record, "destination", "ip")
        or _ABSENT
    )


_KEYS: Final[dict[By, Callable[[Record], str]]] = {
    By.CLIENT: _client,
    By.NAME: _name,
    By.BAN: _of("tokgate", "ban"),
    By.SERVICE: _of("tokgate", "service"),
    By.NETWORK: _of("tokgate", "network"),
    By.SIGNAL: _of("tokgate", "signal"),
    By.REASON: _of("tokgate", "reason"),
    By.ACTION: _of("event", "action"),
    By.VERDICT: _of("tokgate", "verdict"),
}


def _met(record: Record) -> _Running:
    """How many events a record stands for, from when to when: itself, or repeats of an earlier one (folding.py)."""
    at = text_at(record, "@timestamp") or ""
    count = value_at(record, "tokgate", "repeats", "count")
    if type(count) is not int or count < 1:
        return _Running(1, at, at)
    first, last = (text_at(record, "tokgate", "repeats", end) or at for end in ("first", "last"))
    return _Running(count, min(first, last), max(first, last))


_TRAFFIC: Final = frozenset(action.value for action in TRAFFIC)


class Summariser:
    """Counts line by line; `summary()` may be asked at any time."""

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        """Nothing counted yet."""
        self._counters: Final = {by: _Counter(max_keys) for by in By}
        self._records = self._junk = self._dropped = 0
        self._all: _Running | None = None

    def add(self, line: Line | Junk) -> None:
        """Count a line."""
        if isinstance(line, Junk):
            self._junk += 1
            return
        record = line.record
        self._records += 1
        action = text_at(record, "event", "action")
        if action == EventAction.LOG_GAP:
            dropped = value_at(record, "tokgate", "gap", "dropped")
            self._dropped += dropped if isinstance(dropped, int) else 0
        if action not in _TRAFFIC:
            return
        met = _met(record)
        if self._all is None:
            self._all = replace(met)
        else:
            self._all.add(met)
        keys = {by: key(record) for by, key in _KEYS.items()}
        for by, text in keys.items():
            self._counters[by].add((text,), met)
        attempt = (keys[By.CLIENT], keys[By.NAME], keys[By.BAN], keys[By.NETWORK])
        self._counters[By.ATTEMPT].add(attempt, met)

    def summary(self, top: int | None = None) -> Summary:
        """What was counted; each table cut to its `top` most frequent rows, the rest in `other`."""
        tables = {by: counter.table(top) for by, counter in self._counters.items()}
        met = self._all
        if met is None:
            return Summary(self._records, 0, self._junk, self._dropped, None, None, tables)
        return Summary(self._records, met.count, self._junk, self._dropped, met.first, met.last, tables)


def summarise(lines: Iterable[Line | Junk], *, top: int | None = None, max_keys: int = MAX_KEYS) -> Summary:
    """The summary of lines, in one pass."""
    counting = Summariser(max_keys)
    for line in lines:
        counting.add(line)
    return counting.summary(top)
