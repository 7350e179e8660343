"""Which keys may sign a chain's checkpoints, and how far they did. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tokgate.blocklog.checkpoint import Checkpoint


@dataclass(slots=True)
class Signed:
    """How far a chain is signed. `reach` is the number of the last checkpoint's own record, `turn` the given key's."""

    reach: int
    key: str | None = None
    next_key: str | None = None
    epoch: int = 0
    turn: int = -1
    strange: set[str] = field(default_factory=set)
    """Keys that signed and may not."""

    def by(self, checkpoint: Checkpoint) -> None:
        """A checkpoint that may be there: everything before it is signed."""
        self.reach = checkpoint.head.sequence + 1
        self.key, self.next_key, self.epoch = checkpoint.key, checkpoint.next_key, checkpoint.epoch


class Trust:
    """Public keys as in checkpoints, in the order in which they took over, and those that they announced.

    Without any, whichever key signed a chain first is believed.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """Keys that were given."""
        self._given: Final = tuple(keys)
        self._known: Final = set(keys)

    def __bool__(self) -> bool:
        """Whether any key was given."""
        return bool(self._given)

    def accepts(self, checkpoint: Checkpoint) -> bool:
        """Whether a key given signed this, or one that it led to. What it announces is accepted from then on."""
        if not self._given:
            return True
        if checkpoint.key not in self._known:
            return False
        if checkpoint.next_key is not None:
            self._known.add(checkpoint.next_key)
        return True

    def in_turn(self, signed: Signed, checkpoint: Checkpoint) -> bool:
        """Whether this key may sign now: that of the checkpoint before, the one that it announced, or a given one.

        A given key takes over from those given before it, which may not sign any more.
        """
        if checkpoint.key in (signed.key, signed.next_key):
            return checkpoint.epoch >= signed.epoch
        later = self._given[signed.turn + 1 :]
        if checkpoint.key in later:
            signed.turn = self._given.index(checkpoint.key)
            return True
        return signed.key is None
