"""Counts traffic by network, visibility and verdict; never by client or name."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.traffic.counting.shared_counters import Key, SharedCounters

UNKNOWN_NETWORK: Final = "-"
"""Stands for clients that belong to no network."""
DECISION: Final = "decision"
ERROR: Final = "error"
LOOP: Final = "loop"
TIMEOUT: Final = "timeout"
UNFINISHED: Final = "unfinished"
CUT: Final = "cut"
WRONG_PASSWORD: Final = "wrong-password"
AT_LIMIT: Final = "refused-at-limit"
HANDED_OVER: Final = "handed-over"
NOT_HANDED_OVER: Final = "not-handed-over"
RECORDS_DROPPED: Final = "records-dropped"
"""Kinds of keys."""


@dataclass(frozen=True, slots=True)
class DecisionKey:
    """The key by which decisions are counted."""

    network: str
    visibility: Visibility
    verdict: Verdict


class _Single:
    """An attribute that is one shared counter."""

    def __init__(self, key: str) -> None:
        self._key: Final = key

    def __get__(self, counters: "Counters", _: object = None) -> int:
        return int(counters.cells[counters.shared.slot(self._key)])

    def __set__(self, counters: "Counters", number: int) -> None:
        counters.put(self._key, number)


class Counters:
    """Counts since the start of a process. Written by its event loop's thread only."""

    def __init__(self, shared: SharedCounters | None = None) -> None:
        """Without `shared` the counts can be read in this process only."""
        self.shared: Final = shared if shared is not None else _unshared()
        self.cells: Final = self.shared.cells
        self.plain: Final[Mapping[str | None, int]] = _BySni(self, Verdict.ALLOW)
        """Slots for connections that pass by their SNI, by network: what is counted most."""
        self.refused: Final[Mapping[str | None, int]] = _BySni(self, Verdict.BLOCK)
        """Slots for those that are refused by it."""
        self.errors: Final[dict[str, int]] = _Errors(self.shared)
        """Internal errors, by where they were raised."""
        self.last_error: str | None = None
        """The latest of them, in a line."""

    def slot(self, network: str | None, visibility: Visibility, verdict: Verdict) -> int:
        """The slot of a kind of decisions: `cells[slot] += 1`."""
        return self.shared.slot(DECISION, network or UNKNOWN_NETWORK, visibility, verdict)

    def count(self, network: str | None, visibility: Visibility, verdict: Verdict) -> None:
        """Count a decision about one connection or request."""
        self.cells[self.slot(network, visibility, verdict)] += 1

    def add(self, kind: str, what: str) -> None:
        """Count one more of a kind that is told apart by `what`."""
        self.cells[self.shared.slot(kind, what)] += 1

    def put(self, key: str, number: int) -> None:
        """Set a counter to a number counted elsewhere, so that it is in the sum over all processes."""
        self.cells[self.shared.slot(key)] = number

    @property
    def decisions(self) -> Counter[DecisionKey]:
        """The number of decisions by network, visibility and verdict."""
        return decisions_in(self.shared.read())

    at_limit = _Single(AT_LIMIT)
    """Connections turned away because there were too many, of all clients or of one."""
    loops = _Single(LOOP)
    """Connections refused because they came from this very proxy, or would have led to it or its own machine."""
    timeouts = _Single(TIMEOUT)
    """Connections closed because the client did not say in time what it wants."""
    unfinished = _Single(UNFINISHED)
    """Connections that the client ended before it had said what it wants."""
    cuts = _Single(CUT)
    """Connections that were ended while they lasted."""
    wrong_passwords = _Single(WRONG_PASSWORD)
    """Sign-ins to an explicit proxy with a name and password that don't belong together."""


def decisions_in(counts: Mapping[Key, int]) -> Counter[DecisionKey]:
    """The decisions among what was counted."""
    return Counter(
        {
            DecisionKey(key[1], Visibility(key[2]), Verdict(key[3])): number
            for key, number in counts.items()
            if key[0] == DECISION
        }
    )


def errors_in(counts: Mapping[Key, int]) -> dict[str, int]:
    """The internal errors among what was counted, by where they were raised."""
    return {key[1]: number for key, number in counts.items() if key[0] == ERROR}


def _unshared() -> SharedCounters:
    shared = SharedCounters()
    shared.keep()
    return shared


class _BySni(dict[str | None, int]):
    """Slots, found once for each network."""

    def __init__(self, counters: Counters, verdict: Verdict) -> None:
        self._counters: Final = counters
        self._verdict: Final = verdict

    def __missing__(self, network: str | None) -> int:
        slot = self[network] = self._counters.slot(network, Visibility.SNI, self._verdict)
        return slot


class _Errors(dict[str, int]):
    """The errors that this process has counted, shared as well; what never failed has 0."""

    def __init__(self, shared: SharedCounters) -> None:
        self._shared: Final = shared

    def __missing__(self, where: str) -> int:
        return 0

    def __setitem__(self, where: str, number: int) -> None:
        super().__setitem__(where, number)
        self._shared.cells[self._shared.slot(ERROR, where)] = number
