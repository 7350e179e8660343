"""Which keys may sign a chain's checkpoints, and how far a chain is signed. No I/O."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from whenever import Instant

from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.integrity.external_checkpoints import Attested, ExternalCheckpoint
from tokgate.blocklog.records.record import instant_in


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
