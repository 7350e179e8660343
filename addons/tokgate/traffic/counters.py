"""Counts traffic by network, visibility and verdict, never by client or name; and what becomes of connections to
destinations.

Counters are in shared memory that outlives the process that counts: their creator can read them, also after a kill.
One process writes its counters; any that shares the memory may read it at any time.
"""

import errno
import json
import mmap
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility

SIZE: Final = 16 << 20
"""Octets that the counters of a process may grow to; only what is used takes memory: some 60 octets a key."""
OVERFULL: Final = ("overfull",)
"""Stands for all keys that no longer fit."""
_WORD: Final = 8
_FIRST: Final = 1
"""The word at which entries begin: before it, how many words are used."""

type Key = tuple[str, ...]


class SharedCounters:
    """Named counters that only grow.

    In memory: entries of a count, the length of the key in octets and the key as JSON, each filled to whole words. A
    new entry counts only once the number of used words includes it, so that a reader never sees half of one.
    """

    def __init__(self, descriptor: int | None = None, size: int = SIZE) -> None:
        """Share the memory behind a descriptor, or make some. Children that are forked share it; see `share`.

        Raises OSError, and the descriptor is closed.
        """
        if descriptor is None:
            descriptor = os.memfd_create("tokgate-counters")
            os.ftruncate(descriptor, size)
        self._descriptor: int | None = descriptor
        try:
            self._memory: Final = mmap.mmap(descriptor, 0)
        except OSError:
            self.keep()
            raise
        self.cells: Final = memoryview(self._memory).cast("Q")
        """`cells[slot] += 1` counts; it is as quick as in a dict."""
        self._slots: Final[dict[Key, int]] = {}
        self._entries: Final[list[tuple[int, Key]]] = []
        self._read_to = _FIRST
        if not self.cells[0]:
            self.cells[0] = _FIRST

    def slot(self, *key: str) -> int:
        """The slot of a key, which is added with 0 if it is new."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._add(key)
        return slot

    def read(self) -> Counter[Key]:
        """All counts that aren't 0, also those of another process."""
        cells, entries = self.cells, self._entries
        at, end = self._read_to, cells[0]
        while at < end:  # keys stay where they are: each is decoded once
            length = cells[at + 1]
            start = (at + 2) * _WORD
            entries.append((at, tuple(json.loads(self._memory[start : start + length]))))
            at += 2 + _words(length)
        self._read_to = at
        return Counter({key: cells[slot] for slot, key in entries if cells[slot]})

    def share(self) -> int:
        """The descriptor of the memory, for a child that is executed; open until `keep`."""
        if self._descriptor is None:
            raise ValueError("the descriptor is closed")
        return self._descriptor

    def keep(self) -> None:
        """Close the memory's descriptor: no other process will get it. The mapping stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        """Unmap the memory, which exists as long as another process maps it."""
        self.keep()
        self.cells.release()
        self._memory.close()

    def _add(self, key: Key) -> int:
        said = json.dumps(key).encode()
        at: int = self.cells[0]
        end = at + 2 + _words(len(said))
        limit = len(self.cells) if key == OVERFULL else len(self.cells) - 2 - _words(len(json.dumps(OVERFULL)))
        if end > limit:
            return self.slot(*OVERFULL)
        start = (at + 2) * _WORD
        self._memory[start : start + len(said)] = said
        self.cells[at + 1] = len(said)
        self.cells[0] = end
        return at


def _words(octets: int) -> int:
    return -(-octets // _WORD)


class ProcessCounters:
    """Counters of each process that counts, and the sum over those that are gone. None of it is lost with a process."""

    def __init__(self) -> None:
        self._counters: Final[dict[int, SharedCounters]] = {}
        self._gone: Final[Counter[Key]] = Counter()
        self._frozen: dict[int, Counter[Key]] = {}

    def begin(self, pid: int, shared: SharedCounters, told: Mapping[Key, int] | None = None) -> None:
        """Add the counters of a process, less `told`: what the program before has reported of them already."""
        self.end(pid)
        self._counters[pid] = shared
        self._gone.subtract(told)

    def of(self, pid: int) -> SharedCounters:
        """The counters of a process that has not ended."""
        return self._counters[pid]

    def keep(self) -> None:
        """Close the descriptors of all memory: a child that was forked passes none of them on."""
        for shared in self._counters.values():
            shared.keep()

    def end(self, pid: int) -> None:
        """Close the counters of an ended process; their counts stay in the sum."""
        shared = self._counters.pop(pid, None)
        if shared is not None:
            self._gone.update(shared.read())
            shared.close()

    def total(self) -> Counter[Key]:
        """The counts of all processes, ended ones too; none decreases."""
        total = Counter(self._gone)
        for pid, shared in self._counters.items():
            total.update(self._frozen[pid] if pid in self._frozen else shared.read())
        return total

    def freeze(self) -> dict[int, Counter[Key]]:
        """What each process has counted. `total` returns this from now on; another program reports what comes later."""
        self._frozen = {pid: shared.read() for pid, shared in self._counters.items()}
        return self._frozen

    def thaw(self) -> None:
        """Undo `freeze`, where no other program takes over."""
        self._frozen = {}


UNKNOWN_NETWORK: Final = "-"
"""Stands for clients that belong to no network."""
UNREADABLE: Final = "unreadable"
"""The outcome of what was refused because it can't be read or hides its destination, which is no ban's refusal."""
DECISION: Final = "decision"
ERROR: Final = "error"
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
    outcome: str
    """A verdict, or UNREADABLE."""


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
        self.shared: Final = shared if shared is not None else SharedCounters()
        if shared is None:
            self.shared.keep()
        self.cells: Final = self.shared.cells
        self.plain: Final[Mapping[str | None, int]] = _BySni(self, Verdict.ALLOW)
        """Slots for connections that pass by their SNI, by network: what is counted most."""
        self.refused: Final[Mapping[str | None, int]] = _BySni(self, Verdict.BLOCK)
        """Slots for those that are refused by it."""
        self.last_error: str | None = None
        """The latest internal error, in a line."""

    def slot(self, network: str | None, visibility: Visibility, outcome: str) -> int:
        """The slot of a kind of decisions: `cells[slot] += 1`."""
        return self.shared.slot(DECISION, network or UNKNOWN_NETWORK, visibility, outcome)

    def count(self, network: str | None, visibility: Visibility, outcome: str) -> None:
        """Count a decision about one connection or request. `outcome`: its verdict, or UNREADABLE."""
        self.cells[self.slot(network, visibility, outcome)] += 1

    def add(self, kind: str, what: str) -> None:
        """Count one more of a kind that is told apart by `what`."""
        self.cells[self.shared.slot(kind, what)] += 1

    def put(self, key: str, number: int) -> None:
        """Set a counter to a number counted elsewhere, so that it is in the sum over all processes."""
        self.cells[self.shared.slot(key)] = number

    @property
    def decisions(self) -> Counter[DecisionKey]:
        """The number of decisions by network, visibility and outcome."""
        return decisions_in(self.shared.read())

    @property
    def errors(self) -> Counter[str]:
        """The number of internal errors, by where they were raised."""
        return errors_in(self.shared.read())

    at_limit = _Single(AT_LIMIT)
    """Connections turned away because there were too many, of all clients or of one."""
    streams_dropped = _Single("stream-dropped")
    """Streams of HTTP/2 that clients reset before anything was made of them."""
    floods = _Single("flood")
    """Connections of HTTP/2 that were ended for resets, or for frames that ask for nothing."""
    loops = _Single("loop")
    """Connections refused because they came from this very proxy, or would have led to it or its own machine."""
    timeouts = _Single("timeout")
    """Connections closed because the client did not say in time what it wants."""
    unfinished = _Single("unfinished")
    """Connections that the client ended before it had said what it wants."""
    cuts = _Single("cut")
    """Connections that were ended while they lasted."""
    wrong_passwords = _Single("wrong-password")
    """Sign-ins to an explicit proxy with a name and password that don't belong together."""


def decisions_in(counts: Mapping[Key, int]) -> Counter[DecisionKey]:
    """The decisions among what was counted."""
    found = {key: number for key, number in counts.items() if key[0] == DECISION}
    return Counter({DecisionKey(key[1], Visibility(key[2]), key[3]): number for key, number in found.items()})


def errors_in(counts: Mapping[Key, int]) -> Counter[str]:
    """The internal errors among what was counted, by where they were raised."""
    return Counter({key[1]: number for key, number in counts.items() if key[0] == ERROR})


class _BySni(dict[str | None, int]):
    """Slots, found once for each network."""

    def __init__(self, counters: Counters, verdict: Verdict) -> None:
        self._counters: Final = counters
        self._verdict: Final = verdict

    def __missing__(self, network: str | None) -> int:
        slot = self[network] = self._counters.slot(network, Visibility.SNI, self._verdict)
        return slot


CONNECT_ERROR: Final = "connect-error"
DNS_ERROR: Final = "dns-error"
CONNECT_SECONDS: Final = "connect-seconds"
"""Kinds of keys in shared counters."""
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets, in seconds, as Prometheus' clients have them."""
_LONGER: Final = "+Inf"
_SUM: Final = "sum"
"""In microseconds."""


class ConnectError(StrEnum):
    """Why a destination can't be connected to."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    RESET = "reset"
    NO_PORT = "no-port"
    """This machine has no free port left for that destination, or none of `settings.egress.addresses` is its own."""
    NO_DESCRIPTOR = "no-descriptor"
    FORBIDDEN = "forbidden"
    """By this machine's own firewall, or a firewall mark that takes a privilege."""
    OTHER = "other"


OWN: Final = frozenset({ConnectError.NO_PORT, ConnectError.NO_DESCRIPTOR})
"""Errors of which this machine is the cause: it lacks what connections take."""
_KINDS: Final[Mapping[int | None, ConnectError]] = {
    errno.ECONNREFUSED: ConnectError.REFUSED,
    errno.EHOSTUNREACH: ConnectError.UNREACHABLE,
    errno.ENETUNREACH: ConnectError.UNREACHABLE,
    errno.ENETDOWN: ConnectError.UNREACHABLE,
    errno.ETIMEDOUT: ConnectError.TIMEOUT,
    errno.ECONNRESET: ConnectError.RESET,
    errno.EADDRNOTAVAIL: ConnectError.NO_PORT,
    errno.EADDRINUSE: ConnectError.NO_PORT,
    errno.EAGAIN: ConnectError.NO_PORT,
    errno.EMFILE: ConnectError.NO_DESCRIPTOR,
    errno.ENFILE: ConnectError.NO_DESCRIPTOR,
    errno.EPERM: ConnectError.FORBIDDEN,
    errno.EACCES: ConnectError.FORBIDDEN,
}


def connect_error(number: int | None) -> ConnectError:
    """The kind of an error of connect(2), by its errno."""
    return _KINDS.get(number, ConnectError.OTHER)


class DnsError(StrEnum):
    """Why a name that an explicit client asked for has no address."""

    NOT_FOUND = "not-found"
    UNANSWERED = "unanswered"
    """No server answered, or it failed."""
    OTHER = "other"


class Histogram:
    """How long something took, in buckets that are shared counters."""

    def __init__(self, shared: SharedCounters, name: str) -> None:
        self._cells: Final = shared.cells
        self._slots: Final = [shared.slot(name, str(bound)) for bound in (*BOUNDS, _LONGER)]
        self._sum: Final = shared.slot(name, _SUM)

    def add(self, seconds: float) -> None:
        self._cells[self._slots[bisect_left(BOUNDS, seconds)]] += 1
        self._cells[self._sum] += int(seconds * 1e6)


def cumulated(counted: Mapping[str, int]) -> tuple[list[tuple[str, float]], float]:
    """The buckets as Prometheus has them, each with what is in those below it, and the sum in seconds."""
    total, buckets = 0, []
    for bound in (*map(str, BOUNDS), _LONGER):
        total += counted.get(bound, 0)
        buckets.append((bound, float(total)))
    return buckets, counted.get(_SUM, 0) / 1e6
