"""Counts in memory that outlives the process that counts: whoever made it can read them, also after a kill.

One process counts in a tally; any that shares the memory may read it at any time.
"""

import json
import mmap
import os
from collections import Counter
from typing import Final

SIZE: Final = 16 << 20
"""Octets that a tally may grow to; only what is used takes memory: some 60 octets a key."""
OVERFULL: Final = ("overfull",)
"""Stands for all keys for which there was no room."""
_WORD: Final = 8
_FIRST: Final = 1
"""The word at which entries begin: before it, how many words are used."""

type Key = tuple[str, ...]


class Tally:
    """Named counters that only grow.

    In memory: entries of a count, the length of the key in octets and the key as JSON, each filled to whole words. A
    new entry counts only once the number of used words includes it, so that a reader never sees half of one.
    """

    def __init__(self, descriptor: int | None = None, size: int = SIZE) -> None:
        """Share the memory behind a descriptor, or make some. Children that are forked share it; see `share`."""
        if descriptor is None:
            descriptor = os.memfd_create("tokgate-tally")
            os.ftruncate(descriptor, size)
        self._descriptor: int | None = descriptor
        self._memory: Final = mmap.mmap(descriptor, 0)
        self.cells: Final = memoryview(self._memory).cast("Q")
        """`cells[slot] += 1` counts; it is as quick as in a dict."""
        self._slots: Final[dict[Key, int]] = {}
        self._entries: Final[list[tuple[int, Key]]] = []
        self._read_to = _FIRST
        if not self.cells[0]:
            self.cells[0] = _FIRST

    def slot(self, *key: str) -> int:
        """Where a key is counted; from now on it is there, with 0."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._add(key)
        return slot

    def count(self, *key: str, number: int = 1) -> None:
        """Count."""
        self.cells[self.slot(*key)] += number

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
        """Nobody else will be given the memory: close its descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def close(self) -> None:
        """Let the memory go; it is there as long as somebody else has it."""
        self.keep()
        self.cells.release()
        self._memory.close()

    def _add(self, key: Key) -> int:
        said = json.dumps(key).encode()
        at: int = self.cells[0]
        end = at + 2 + _words(len(said))
        room = len(self.cells) if key == OVERFULL else len(self.cells) - 2 - _words(64)
        if end > room:
            return self.slot(*OVERFULL)
        start = (at + 2) * _WORD
        self._memory[start : start + len(said)] = said
        self.cells[at + 1] = len(said)
        self.cells[0] = end
        return at


def _words(octets: int) -> int:
    return -(-octets // _WORD)
