"""Sends records over a socket pair from the processes that make them to the one that writes them.

One record a message (SOCK_SEQPACKET), as JSON. The sender never waits: what the kernel doesn't accept is kept up to a
bound and sent later. What exceeds the bound is dropped and counted in a `log-gap` record once there is room.

What is kept is in a file without a name (memfd) that the supervisor holds open: what a process puts there before it
answers a client, the supervisor can send after that process was killed. The collector keeps there what it has taken,
until that is on the disk.
"""

import contextlib
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from whenever import Instant

from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.record import Observer, Record, decode, encode, new_stamp

_SPAN: Final = struct.Struct("<QQ")
"""Where messages begin and end; it is written in one piece."""
_LENGTH: Final = struct.Struct("<I")


def new_backlog() -> int:
    """A descriptor of an empty backlog. Raises OSError."""
    descriptor = os.memfd_create("tokgate-records")
    os.pwrite(descriptor, _SPAN.pack(_SPAN.size, _SPAN.size), 0)
    return descriptor


class Backlog:
    """Messages in their order, from one process. Without a descriptor they are in its own memory only."""

    def __init__(self, descriptor: int | None = None) -> None:
        """`descriptor` is from `new_backlog`."""
        self._descriptor: Final = descriptor
        self._kept: Final[deque[bytes]] = deque()
        self._first = self._end = _SPAN.size

    def __len__(self) -> int:
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
            os.pwrite(self._descriptor, _SPAN.pack(self._first, self._end + len(entry)), 0)
            self._end += len(entry)
        self._kept.append(message)

    def sent(self, count: int = 1) -> None:
        """Forget the oldest messages, which were sent."""
        self._first += sum(_LENGTH.size + len(self._kept.popleft()) for _ in range(count))
        if self._descriptor is None:
            return
        begin, left = _SPAN.size, self._end - self._first
        if left <= self._first - begin:  # what is left fits in before it: else memory would only grow
            os.pwrite(self._descriptor, os.pread(self._descriptor, left, self._first), begin)
            self._first, self._end = begin, begin + left
        os.pwrite(self._descriptor, _SPAN.pack(self._first, self._end), 0)
        os.ftruncate(self._descriptor, self._end)


def left_in(descriptor: int) -> Iterator[bytes]:
    """The messages that a process left in its backlog; the first may have been sent as well. Raises OSError."""
    at, end = _SPAN.unpack(os.pread(descriptor, _SPAN.size, 0))
    while at < end:
        (length,) = _LENGTH.unpack(os.pread(descriptor, _LENGTH.size, at))
        yield os.pread(descriptor, length, at + _LENGTH.size)
        at += _LENGTH.size + length


MAX_RECORD: Final = 128 * 1024
"""Longest record in octets; the longest in practice, with an internal error's trace, is well below."""
KEPT: Final = 10_000
"""Most records that are kept while the reader takes none."""
_BUFFER: Final = 1 << 20
_LOOK_AGAIN: Final = 0.05


def channel() -> tuple[socket.socket, socket.socket]:
    """A pair (to write, to read) that forked and spawned processes inherit; several may share each end."""
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (write, read):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return write, read


class RecordSender:
    """A sink for records at the writing end. Used by one thread; `flush` is to be called about once a second."""

    def __init__(
        self,
        sock: socket.socket,
        observer: Observer,
        now: Callable[[], Instant] = Instant.now,
        *,
        backlog: int | None = None,
    ) -> None:
        """`sock` is the writing end; `backlog` the memory for what is kept, by default this process's own."""
        self.sent = 0
        self.dropped = 0
        self._socket: Final = sock
        self._observer: Final = observer
        self._now: Final = now
        self._kept: Final = Backlog(backlog)
        self._gap: tuple[int, Instant] | None = None
        sock.setblocking(False)

    def put(self, record: Record) -> bool:
        """Send a record, or keep it for later; False if it was dropped and counted."""
        line = encode(record)
        if len(self._kept) < KEPT and len(line) <= MAX_RECORD:
            with contextlib.suppress(OSError):  # no memory left
                self.send(line)
                return True
        self.dropped += 1
        self._gap = (1, self._now()) if self._gap is None else (self._gap[0] + 1, self._gap[1])
        return False

    def send(self, line: bytes) -> None:
        """Send a message at once, also one that another sender left behind, or keep it.

        Returns once it outlives this process. Raises OSError without memory.
        """
        if self._kept or not self._sent(line):
            self._kept.put(line)
        self.flush()

    def _sent(self, line: bytes) -> bool:
        try:
            self._socket.send(line)
        except OSError:  # the queue is full, or the reader is restarting
            return False
        self.sent += 1
        return True

    def flush(self) -> bool:
        """Send what is kept, as far as the kernel accepts it; whether nothing is left."""
        kept = self._kept
        while kept:
            if not self._sent(kept.first):
                return False
            kept.sent()
        if self._gap is not None:
            (count, since), self._gap, now = self._gap, None, self._now()
            return self.put(log_state.log_gap(new_stamp(now, self._observer), count, since, now))
        return True

    def finish(self, seconds: float) -> bool:
        """Send what is kept, for at most `seconds`; whether nothing is left."""
        give_up = time.monotonic() + seconds
        while not self.flush():
            left = give_up - time.monotonic()
            if left <= 0:
                return False
            select.select([], [self._socket], [], min(left, _LOOK_AGAIN))
        return True

    def close(self, patience: float = 0.0) -> None:
        """Send what the kernel accepts within `patience` seconds, and close. What is left stays in the backlog."""
        self.finish(patience)
        with contextlib.suppress(OSError):
            self._socket.close()


def receive(sock: socket.socket, kept: Backlog | None = None) -> Record | None:
    """The next record at the reading end; None when all senders have gone. With `kept` it stays there as well.

    Raises:
        BlockingIOError, TimeoutError: no record is there, by the socket's mode.
        ValueError: the message is no record.

    """
    if kept is not None and len(kept) < KEPT and (message := sock.recv(MAX_RECORD, socket.MSG_PEEK)):
        with contextlib.suppress(OSError):  # no memory left
            kept.put(message)  # before it is taken: a kill in between leaves it in both
    datagram = sock.recv(MAX_RECORD)
    return decode(datagram) if datagram else None
