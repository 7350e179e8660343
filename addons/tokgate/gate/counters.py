"""What is counted of traffic: how much of it, by network, visibility and verdict. Never whose, never which name."""

from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

from tokgate.blocklog.observation import Visibility
from tokgate.gate.tally import Key, Tally
from tokgate.policy.decision import Verdict

UNKNOWN_NETWORK: Final = "-"
"""Stands for clients that belong to no network."""
DECISION: Final = "decision"
ERROR: Final = "error"
LOOP: Final = "loop"
TIMEOUT: Final = "timeout"
CUT: Final = "cut"
WRONG_PASSWORD: Final = "wrong-password"
AT_LIMIT: Final = "refused-at-limit"
HANDED_OVER: Final = "handed-over"
NOT_HANDED_OVER: Final = "not-handed-over"
RECORDS_DROPPED: Final = "records-dropped"
"""Kinds of keys in a tally."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What the decisions counted together have in common."""

    network: str
    visibility: Visibility
    verdict: Verdict


class Counters:
    """Counts since the start of a process. Written on its event loop's thread only, read by whoever has the tally."""

    def __init__(self, tally: Tally | None = None) -> None:
        """Without a `tally` nobody but this process reads them."""
        self.tally: Final = tally if tally is not None else _own_tally()
        self.cells: Final = self.tally.cells
        self.plain: Final[Mapping[str | None, int]] = _Plain(self)
        """Slots for connections that pass by their SNI, by network: what is counted most."""
        self.errors: Final[MutableMapping[str, int]] = _Errors(self.tally)
        """Internal errors, by where they were raised."""
        self.last_error: str | None = None
        """The latest of them, in a line."""

    def slot(self, network: str | None, visibility: Visibility, verdict: Verdict) -> int:
        """Where such decisions are counted: `cells[slot] += 1`."""
        return self.tally.slot(DECISION, network or UNKNOWN_NETWORK, visibility, verdict)

    def count(self, network: str | None, visibility: Visibility, verdict: Verdict) -> None:
        """Count a decision about one connection or request."""
        self.cells[self.slot(network, visibility, verdict)] += 1

    def put(self, key: str, number: int) -> None:
        """Take over what is counted elsewhere, for who adds up all processes that there ever were."""
        self.cells[self.tally.slot(key)] = number

    @property
    def decisions(self) -> Counter[Kind]:
        """All decisions."""
        return decisions_in(self.tally.read())

    @property
    def loops(self) -> int:
        """Connections refused because they came from this very proxy, or would have led to it or its own machine."""
        return int(self.cells[self.tally.slot(LOOP)])

    @loops.setter
    def loops(self, number: int) -> None:
        self.put(LOOP, number)

    @property
    def timeouts(self) -> int:
        """Connections closed because the client did not say in time what it wants."""
        return int(self.cells[self.tally.slot(TIMEOUT)])

    @timeouts.setter
    def timeouts(self, number: int) -> None:
        self.put(TIMEOUT, number)

    @property
    def cuts(self) -> int:
        """Connections that were ended while they lasted."""
        return int(self.cells[self.tally.slot(CUT)])

    @cuts.setter
    def cuts(self, number: int) -> None:
        self.cells[self.tally.slot(CUT)] = number

    @property
    def wrong_passwords(self) -> int:
        """Sign-ins to an explicit proxy with a name and password that don't belong together."""
        return int(self.cells[self.tally.slot(WRONG_PASSWORD)])

    @wrong_passwords.setter
    def wrong_passwords(self, number: int) -> None:
        self.put(WRONG_PASSWORD, number)


def decisions_in(counts: Mapping[Key, int]) -> Counter[Kind]:
    """The decisions among what was counted."""
    return Counter(
        {
            Kind(key[1], Visibility(key[2]), Verdict(key[3])): number
            for key, number in counts.items()
            if key[0] == DECISION
        }
    )


def errors_in(counts: Mapping[Key, int]) -> dict[str, int]:
    """The internal errors among what was counted, by where they were raised."""
    return {key[1]: number for key, number in counts.items() if key[0] == ERROR}


def _own_tally() -> Tally:
    tally = Tally()
    tally.keep()
    return tally


class _Plain(dict[str | None, int]):
    """Slots, found once for each network."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters: Final = counters

    def __missing__(self, network: str | None) -> int:
        slot = self[network] = self._counters.slot(network, Visibility.SNI, Verdict.ALLOW)
        return slot


class _Errors(MutableMapping[str, int]):
    """The errors that this process counts in a tally; what never failed has 0."""

    def __init__(self, tally: Tally) -> None:
        self._tally: Final = tally
        self._slots: Final[dict[str, int]] = {}  # the tally may be long, and this is asked for each second

    def __getitem__(self, where: str) -> int:
        return int(self._tally.cells[self._slot(where)])

    def __setitem__(self, where: str, number: int) -> None:
        self._tally.cells[self._slot(where)] = number

    def __delitem__(self, where: str) -> None:
        self[where] = 0

    def __iter__(self) -> Iterator[str]:
        return (where for where in self._slots if self[where])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _slot(self, where: str) -> int:
        slot = self._slots.get(where)
        if slot is None:
            slot = self._slots[where] = self._tally.slot(ERROR, where)
        return slot
