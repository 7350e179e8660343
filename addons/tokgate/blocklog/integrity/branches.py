"""Records since the last checkpoint, and which of them the next checkpoint leads back to. No I/O.

Whoever can write to a log can append a record whose number and hash fit. The writer doesn't take it for its own: its
next record continues the one that it wrote itself. So two records claim one number, and the checkpoint decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tokgate.blocklog.integrity.external_checkpoints import LinePosition
from tokgate.blocklog.records.chain import Head, proper_hash
from tokgate.blocklog.records.record import Record

_MOST: Final = 20_000
"""Most records that are held; without a checkpoint for so long there is nothing to decide by."""


@dataclass(slots=True)
class Node:
    """A record, and the one before it; None at the first that is held."""

    head: Head
    place: LinePosition
    parent: "Node | None" = None


class Branches:
    """The records of one chain since its last checkpoint."""

    def __init__(self, first: Node) -> None:
        self.head = first
        """The record that the next one follows."""
        self._held: dict[int, list[Node]] = {first.head.sequence: [first]}
        self._count = 1

    def rival(self, record: Record, head: Head) -> Node | None:
        """The record that this one follows, where another one claims its number; None if nothing is as it should be."""
        claimed = [node.head.hash for node in self._held.get(head.sequence, ())]
        if head.hash in claimed or not (claimed or head.sequence == self.head.head.sequence + 1):
            return None  # a copy, or out of order
        before = reversed(self._held.get(head.sequence - 1, ()))
        return next((node for node in before if proper_hash(node.head.hash, record) == head.hash), None)

    def add(self, head: Head, place: LinePosition, parent: Node | None = None) -> None:
        """The next record, by default after the current one."""
        self.head = Node(head, place, parent or self.head)
        self._held.setdefault(head.sequence, []).append(self.head)
        self._count += 1
        if self._count > _MOST and len(self._held) == self._count:
            self._restart()

    def hashes(self, first: int) -> list[bytes] | None:
        """The hashes from a record number up to the one before the current; None if not all are held."""
        found: list[bytes] = []
        node = self.head.parent
        while node is not None and node.head.sequence >= first:
            found.append(bytes.fromhex(node.head.hash))
            node = node.parent
        found.reverse()
        return found if len(found) == self.head.head.sequence - first else None

    def settle(self) -> Iterator[Node]:
        """The records to which the current one doesn't lead back, in the order of their lines; all are forgotten."""
        if len(self._held) != self._count:  # some number is claimed twice
            way: set[int] = set()
            node: Node | None = self.head
            while node is not None:
                way.add(id(node))
                node = node.parent
            lost = [one for nodes in self._held.values() for one in nodes if id(one) not in way]
            yield from sorted(lost, key=lambda one: one.place)
        self._restart()

    def _restart(self) -> None:
        self.head.parent = None
        self._held, self._count = {self.head.head.sequence: [self.head]}, 1
