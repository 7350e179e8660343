"""Checkpoints from outside the log, which whoever can change the log can't change, and their conflicts with it.

No I/O.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.blocklog.integrity.checkpoint import Checkpoint, parse_checkpoints
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.record import instant_in

type LinePosition = tuple[str, int]
"""A file and a line in it, from 1."""


@dataclass(frozen=True, slots=True)
class ExternalCheckpoint:
    """A checkpoint, and its position in the file in which it was kept."""

    checkpoint: Checkpoint
    place: LinePosition


def checkpoints_in(lines: Iterable[str], file: str) -> Iterator[ExternalCheckpoint]:
    """The checkpoints in any text, such as syslog files or `journalctl` output, with their positions."""
    for number, line in enumerate(lines, 1):
        for checkpoint in parse_checkpoints([line]):
            yield ExternalCheckpoint(checkpoint, (file, number))


@dataclass(slots=True)
class Attested:
    """What checkpoints attest of a chain: up to which record, and the latest of their instants."""

    place: LinePosition
    sequence: int
    latest: Instant


class Attestations:
    """The attested hashes of each chain by record number. Two for one number mean that the key signed two logs."""

    def __init__(self, kept: Iterable[ExternalCheckpoint], accepts: Callable[[Checkpoint], bool]) -> None:
        """Checkpoints that aren't genuine, or whose key isn't accepted, are skipped and counted in `strange`."""
        self.strange = 0
        self._chains: Final[dict[str, dict[int, dict[str, ExternalCheckpoint]]]] = {}
        for one in sorted(kept, key=_by_key):
            head = one.checkpoint.head
            if one.checkpoint.genuine and accepts(one.checkpoint):
                self._chains.setdefault(head.chain, {}).setdefault(head.sequence, {}).setdefault(head.hash, one)
            else:
                self.strange += 1

    def against(self, head: Head) -> ExternalCheckpoint | None:
        """A checkpoint that attests another hash for this record number; None if there is none."""
        stated = self._chains.get(head.chain, {}).get(head.sequence, {})
        return next((one for digest, one in stated.items() if digest != head.hash), None)

    def holds(self, checkpoint: Checkpoint) -> bool:
        """Whether this very checkpoint was kept, and its key is accepted."""
        kept = self._chains.get(checkpoint.head.chain, {}).get(checkpoint.head.sequence, {}).get(checkpoint.head.hash)
        return kept is not None and kept.checkpoint == checkpoint

    def last_before(self, name: str, first: int) -> Attested | None:
        """The last checkpoint of a chain whose own record is before a number."""
        numbers = self._chains.get(name, {})
        last = max((number for number in numbers if number + 1 < first), default=None)
        kept = None if last is None else next(iter(numbers[last].values()))
        at = None if kept is None else instant_in(kept.checkpoint.at)
        return None if kept is None or at is None else Attested(kept.place, kept.checkpoint.head.sequence, at)

    def last(self) -> Iterator[ExternalCheckpoint]:
        """The checkpoint with the highest record number of each chain."""
        for numbers in self._chains.values():
            yield next(iter(numbers[max(numbers)].values()))

    def conflicts(self) -> Iterator[tuple[ExternalCheckpoint, ExternalCheckpoint]]:
        """Pairs of checkpoints that attest different hashes for one record number of one chain."""
        for numbers in self._chains.values():
            for stated in numbers.values():
                first, *others = stated.values()
                for other in others:
                    yield first, other


def _by_key(one: ExternalCheckpoint) -> tuple[int, str, int]:
    """A sort key: by epoch across chains, since each key announces the next."""
    checkpoint = one.checkpoint
    return checkpoint.epoch, checkpoint.head.chain, checkpoint.head.sequence
