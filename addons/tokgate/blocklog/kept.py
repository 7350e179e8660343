"""Checkpoints that were kept where those who can change the log can't, and what they say against it. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tokgate.blocklog.chain import Head
from tokgate.blocklog.checkpoint import Checkpoint, parse_checkpoints

type Place = tuple[str, int]
"""A file and a line in it, from 1."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint, and where it was kept."""

    checkpoint: Checkpoint
    place: Place


def kept_in(lines: Iterable[str], file: str) -> Iterator[Kept]:
    """The checkpoints in any text: syslog files, `journalctl` output, or nothing but checkpoints."""
    for number, line in enumerate(lines, 1):
        for checkpoint in parse_checkpoints([line]):
            yield Kept(checkpoint, (file, number))


class Attestations:
    """What was attested of each chain, by record number: every hash, since two for one number tell of a second log."""

    def __init__(self, kept: Iterable[Kept], accepts: Callable[[Checkpoint], bool]) -> None:
        """Checkpoints that aren't genuine, or whose key isn't accepted, are passed over and counted in `strange`."""
        self.strange = 0
        self._chains: Final[dict[str, dict[int, dict[str, Kept]]]] = {}
        for one in sorted(kept, key=_by_key):
            head = one.checkpoint.head
            if one.checkpoint.genuine and accepts(one.checkpoint):
                self._chains.setdefault(head.chain, {}).setdefault(head.sequence, {}).setdefault(head.hash, one)
            else:
                self.strange += 1

    def against(self, head: Head) -> Kept | None:
        """A checkpoint that attests another record in this place."""
        stated = self._chains.get(head.chain, {}).get(head.sequence, {})
        return next((one for digest, one in stated.items() if digest != head.hash), None)

    def last(self) -> Iterator[Kept]:
        """Of each chain the checkpoint that reaches farthest."""
        for numbers in self._chains.values():
            yield next(iter(numbers[max(numbers)].values()))

    def conflicts(self) -> Iterator[tuple[Kept, Kept]]:
        """Checkpoints that attest different records in one place of one chain."""
        for numbers in self._chains.values():
            for stated in numbers.values():
                first, *others = stated.values()
                for other in others:
                    yield first, other


def _by_key(one: Kept) -> tuple[int, str, int]:
    """Keys that replace each other in their order, whichever chain they signed: each announces the next."""
    checkpoint = one.checkpoint
    return checkpoint.epoch, checkpoint.head.chain, checkpoint.head.sequence
