"""Brings records from the processes that make them to the one that writes them, over a socket pair.

One record a datagram (SOCK_SEQPACKET), as JSON. The sender never waits: what the kernel doesn't take now is kept up to
a bound and tried again, what goes beyond is counted, and the count becomes a gap record as soon as there is room.
"""

import contextlib
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from whenever import Instant

from tokgate.blocklog import lifecycle
from tokgate.blocklog.document import Record
from tokgate.blocklog.line import decode, encode
from tokgate.blocklog.stamp import Observer, new_stamp

MAX_RECORD: Final = 128 * 1024
"""Longest record in octets; the longest that is made holds an internal error's trace and is well below."""
KEPT: Final = 10_000
"""Records kept while nobody takes them."""
_BUFFER: Final = 1 << 20


def channel() -> tuple[socket.socket, socket.socket]:
    """A pair (to write, to read) that forked and spawned processes inherit; several may share each end."""
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (write, read):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    return write, read


class RecordSender:
    """A sink for records at the writing end. Used by one thread; `flush` is to be called about once a second."""

    def __init__(self, sock: socket.socket, observer: Observer, now: Callable[[], Instant] = Instant.now) -> None:
        """`sock` is the writing end."""
        self.sent = 0
        self.dropped = 0
        self._socket: Final = sock
        self._observer: Final = observer
        self._now: Final = now
        self._kept: Final[deque[bytes]] = deque()
        self._gap: tuple[int, Instant] | None = None
        sock.setblocking(False)

    def put(self, record: Record) -> bool:
        """Send a record, or keep it for later; False if it had to be dropped, and was counted."""
        line = encode(record)
        if len(self._kept) >= KEPT or len(line) > MAX_RECORD:
            self.dropped += 1
            self._gap = (1, self._now()) if self._gap is None else (self._gap[0] + 1, self._gap[1])
            return False
        self._kept.append(line)
        self.flush()
        return True

    def flush(self) -> bool:
        """Send what is kept, as far as it is taken; whether nothing is left."""
        kept = self._kept
        try:
            while kept:
                self._socket.send(kept[0])
                kept.popleft()
                self.sent += 1
        except OSError:  # full, or nobody there: the reader will be back
            return False
        if self._gap is not None:
            (count, since), self._gap, now = self._gap, None, self._now()
            return self.put(lifecycle.log_gap(new_stamp(now, self._observer), count, since, now))
        return True

    def close(self) -> None:
        """Send what can still be sent, and close."""
        self.flush()
        with contextlib.suppress(OSError):
            self._socket.close()


def receive(sock: socket.socket) -> Record | None:
    """The next record at the reading end; None when all senders have gone.

    Raises:
        BlockingIOError, TimeoutError: nothing has come, in the mode the socket is in.
        ValueError: what came is no record.

    """
    datagram = sock.recv(MAX_RECORD)
    if not datagram:
        return None
    return decode(datagram)
