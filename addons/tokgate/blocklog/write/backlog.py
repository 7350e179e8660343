"""Records that the collector has not taken yet, in memory that outlives the process that made them.

The memory is a file without a name (memfd) that the supervisor holds open: what a process puts there before it answers
a client, the supervisor can send after that process was killed.
"""

import os
import struct
from collections import deque
from collections.abc import Iterator
from typing import Final

_OFFSET: Final = struct.Struct("<Q")
_LENGTH: Final = struct.Struct("<I")


def new_backlog() -> int:
    """A descriptor of an empty backlog. Raises OSError."""
    descriptor = os.memfd_create("tokgate-records")
    os.pwrite(descriptor, _OFFSET.pack(_OFFSET.size), 0)
    return descriptor


class Backlog:
    """Messages in their order, from one process. Without a descriptor they are in its own memory only."""

    def __init__(self, descriptor: int | None = None) -> None:
        """`descriptor` is from `new_backlog`."""
        self._descriptor: Final = descriptor
        self._kept: Final[deque[bytes]] = deque()
        self._first = self._end = _OFFSET.size

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._kept)

    @property
    def first(self) -> bytes:
        """The message that waits longest. Raises IndexError if none does."""
        return self._kept[0]

    def put(self, message: bytes) -> None:
        """Add a message. Raises OSError where the system has no memory left."""
        if self._descriptor is not None:
            entry = _LENGTH.pack(len(message)) + message
            os.pwrite(self._descriptor, entry, self._end)
            self._end += len(entry)
        self._kept.append(message)

    def sent(self) -> None:
        """Forget the oldest message, which was sent."""
        self._first += _LENGTH.size + len(self._kept.popleft())
        if self._descriptor is None:
            return
        if not self._kept:
            os.ftruncate(self._descriptor, _OFFSET.size)
            self._first = self._end = _OFFSET.size
        os.pwrite(self._descriptor, _OFFSET.pack(self._first), 0)


def left_in(descriptor: int) -> Iterator[bytes]:
    """The messages that a process left in its backlog; the first may have been sent as well. Raises OSError."""
    size = os.fstat(descriptor).st_size
    (at,) = _OFFSET.unpack(os.pread(descriptor, _OFFSET.size, 0))
    while at + _LENGTH.size <= size:
        (length,) = _LENGTH.unpack(os.pread(descriptor, _LENGTH.size, at))
        at += _LENGTH.size
        if at + length > size:  # killed while it was written: nobody was answered
            return
        yield os.pread(descriptor, length, at)
        at += length
