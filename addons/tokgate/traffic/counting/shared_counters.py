"""Counters in shared memory that outlive the process that counts: their creator can read them, also after a kill.

One process writes its counters; any that shares the memory may read it at any time. `ProcessCounters` adds up several.
"""

import json
import mmap
import os
from collections import Counter
from collections.abc import Mapping
from typing import Final

SIZE: Final = 16 << 20
"""Octets that the counters of a process may grow to; only what is used takes memory: some 60 octets a key."""
OVERFULL: Final = ("overfull",)
"""Stands for all keys for which there was no room."""
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
        room = len(self.cells) if key == OVERFULL else len(self.cells) - 2 - _words(len(json.dumps(OVERFULL)))
        if end > room:
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
