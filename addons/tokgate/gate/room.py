"""Which gates of a generation have room for connections, in memory that all of them share."""

import mmap
from typing import Final


class Rooms:
    """One octet a gate, made before the gates are forked. Each writes its own; the supervisor, those of dead ones."""

    def __init__(self, gates: int) -> None:
        self._memory: Final = mmap.mmap(-1, gates)

    def tell(self, slot: int, has_room: bool) -> None:
        self._memory[slot] = has_room

    def elsewhere(self, slot: int) -> bool:
        """Whether another gate than `slot` has room."""
        return any(has_room for number, has_room in enumerate(self._memory[:]) if number != slot)
