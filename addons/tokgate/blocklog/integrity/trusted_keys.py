"""Which keys may sign a chain's checkpoints, how far a chain is signed, and what checkpoints from outside attest.

Whoever can change the log can't change checkpoints that were sent elsewhere. No I/O.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
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
        heads = ((one.checkpoint.head, one) for one in kept)
        # By epoch across chains, since each key announces the next.
        for head, one in sorted(heads, key=lambda each: (each[1].checkpoint.epoch, each[0].chain, each[0].sequence)):
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


@dataclass(slots=True)
class SigningState:
    """How far a chain is signed: `reach` is the last checkpoint's own record number, `turn` the index of its key."""

    reach: int
    key: str | None = None
    next_key: str | None = None
    epoch: int = 0
    turn: int = -1
    strange: set[str | None] = field(default_factory=set)
    """Keys that signed and are not trusted, and those that they announced."""

    def by(self, checkpoint: Checkpoint) -> None:
        """Note a trusted checkpoint: all records before it are signed."""
        self.reach = checkpoint.head.sequence + 1
        self.announce(checkpoint)

    def announce(self, checkpoint: Checkpoint) -> None:
        """Note which keys a trusted checkpoint names."""
        self.key, self.next_key, self.epoch = checkpoint.key, checkpoint.next_key, checkpoint.epoch

    def is_strange(self, checkpoint: Checkpoint) -> bool:
        """Note a checkpoint that isn't trusted; whether its key, or the one that announced it, is known as such."""
        known = checkpoint.key in self.strange
        self.strange |= {checkpoint.key, checkpoint.next_key}
        return known


class TrustedKeys:
    """Trusted public keys, in base64 and in the order in which they replaced each other, and those they announced.

    Without keys, the first key that signed a chain is trusted.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._given: Final = tuple(keys)
        self._known: Final = set(keys)

    def __bool__(self) -> bool:
        """Whether any key was given to the constructor."""
        return bool(self._given)

    def gave(self, checkpoint: Checkpoint) -> bool:
        """Whether a key that was given to the constructor signed this."""
        return checkpoint.key in self._given

    def add(self, checkpoint: Checkpoint) -> None:
        """Accept the key that signed this."""
        self._known.add(checkpoint.key)

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Whether `accepts` would accept this."""
        return not self._given or checkpoint.key in self._known

    def accepts(self, checkpoint: Checkpoint) -> bool:
        """Whether a given key signed this, or one that it announced. The key that it announces is then accepted too."""
        if not self.knows(checkpoint):
            return False
        if self._given and checkpoint.next_key is not None:
            self._known.add(checkpoint.next_key)
        return True

    def in_turn(self, signed: SigningState, checkpoint: Checkpoint) -> bool:
        """Whether the key may sign here: it signed the previous checkpoint, was announced by it, or was given.

        Once a given key signs, those given before it may not sign any more.
        """
        if checkpoint.key in (signed.key, signed.next_key):
            return checkpoint.epoch >= signed.epoch
        later = self._given[signed.turn + 1 :]
        if checkpoint.key in later:
            signed.turn = self._given.index(checkpoint.key)
            return True
        return signed.key is None


class KeySuccessions:
    """Leads from a log's first key to the one in force where the log begins, after retention deleted what came before.

    With forward security each key signs one checkpoint, which announces the next. Those are kept beside the log.
    Reads in one pass and in constant memory.
    """

    def __init__(self, kept: Iterable[ExternalCheckpoint], trust: TrustedKeys) -> None:
        """`kept` are in the order in which they were made. The first that counts is signed by a given key."""
        self._kept = iter(kept)
        self._trust: Final = trust
        self._seal: Final = SigningState(0)
        self.followed: Final[dict[str, Attested]] = {}

    def lead_to(self, checkpoint: Checkpoint, first: int) -> Instant | None:
        """Whether the keys lead to the one that signed the first checkpoint of a chain, which begins with `first` here.

        If so, the instant before which it can't have signed. Only keys of checkpoints before that record are followed:
        those after it are in the log, and who has a later key can't sign in their place.
        """
        for one, at in self._before(checkpoint.head.chain, first):
            self._seal.announce(one.checkpoint)
            head = one.checkpoint.head
            known = self.followed.setdefault(head.chain, Attested(one.place, head.sequence, at))
            known.sequence, known.latest = max(known.sequence, head.sequence), max(known.latest, at)
            known.place = one.place
        leads = self._seal.key is not None and self._trust.in_turn(self._seal, checkpoint)
        return max(each.latest for each in self.followed.values()) if leads else None

    def _before(self, name: str, first: int) -> Iterator[tuple[ExternalCheckpoint, Instant]]:
        for one in self._kept:
            head, at = one.checkpoint.head, instant_in(one.checkpoint.at)
            begun = self._seal.key is not None or self._trust.gave(one.checkpoint)
            if at is None or not begun or not one.checkpoint.genuine:
                continue
            if not self._trust.in_turn(self._seal, one.checkpoint):
                continue
            if head.chain == name and head.sequence + 1 >= first:  # its own record is in the log
                self._kept = chain((one,), self._kept)
                return
            yield one, at
