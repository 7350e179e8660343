"""Which keys may sign a chain's checkpoints, and how far a chain is signed. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tokgate.blocklog.integrity.checkpoint import Checkpoint


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

    def accepts(self, checkpoint: Checkpoint) -> bool:
        """Whether a given key signed this, or one that it announced. The key that it announces is then accepted too."""
        if not self._given:
            return True
        if checkpoint.key not in self._known:
            return False
        if checkpoint.next_key is not None:
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
