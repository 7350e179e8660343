"""What would stop a gate's loop is done in threads, and answered by an eventfd: resolving names, checking passwords."""

import os
import socket
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final

THREADS: Final = 64
"""Names resolved at a time."""
SHARE: Final = 8
"""Of them for one client."""
MOST_QUEUED: Final = 512
"""A client's names that wait for their turn."""
MOST_ADDRESSES: Final = 8

Addresses = tuple[str, ...]


class Errands:
    """Runs what blocks. Threads start with the first errand."""

    def __init__(self, threads: int) -> None:
        """`threads` is how many errands run at a time; the others wait."""
        self.descriptor: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when there are answers; then call `deliver`."""
        self.waiting = 0
        """Errands without an answer yet."""
        self._threads: Final = threads
        self._pool: ThreadPoolExecutor | None = None
        self._answered: Final[deque[Callable[[], None]]] = deque()

    def run[T](self, work: Callable[[], T], answer: Callable[[T], None]) -> None:
        """Have `work` done, which must not raise, and what it gives handed to `answer` by `deliver`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=type(self).__name__.lower())

        def done(future: Future[T]) -> None:
            if not future.cancelled():
                self._answered.append(partial(answer, future.result()))
                os.eventfd_write(self.descriptor, 1)

        self.waiting += 1
        self._pool.submit(work).add_done_callback(done)

    def deliver(self) -> None:
        """Hand out the answers that have come."""
        os.eventfd_read(self.descriptor)
        try:
            while self._answered:
                self.waiting -= 1
                self._answered.popleft()()
        finally:
            if self._answered:  # taking one failed: the others are for the next time
                os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        """Stop; errands that wait are not run, and nobody gets an answer any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        os.close(self.descriptor)


class Resolver(Errands):
    """Names to addresses, in the system's order of preference (RFC 6724).

    A name whose servers don't answer keeps a thread for seconds, so a client has but a share of them.
    """

    def __init__(self) -> None:
        """No thread is started yet."""
        super().__init__(THREADS)
        self._asking: Final[Counter[str]] = Counter()
        self._queued: Final[dict[str, deque[tuple[str, Callable[[Addresses], None]]]]] = {}

    def ask(self, client: str, host: str, answer: Callable[[Addresses], None]) -> None:
        """Resolve `host` for a client and call `answer` from `deliver`; empty: not found.

        The client's further names wait for their turn. Should there be too many, `answer` gets nothing, at once.
        """
        if self._asking[client] < SHARE:
            self._asking[client] += 1
            self.run(partial(_addresses, host), partial(self._found, client, answer))
            return
        queue = self._queued.setdefault(client, deque())
        if len(queue) < MOST_QUEUED:
            queue.append((host, answer))
        else:
            answer(())

    def _found(self, client: str, answer: Callable[[Addresses], None], addresses: Addresses) -> None:
        self._asking[client] -= 1
        queue = self._queued.get(client)
        if queue:
            self.ask(client, *queue.popleft())
        if not queue:
            self._queued.pop(client, None)
        if not self._asking[client]:
            del self._asking[client]
        answer(addresses)


def _addresses(host: str) -> Addresses:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # not found, or no name that can be asked for
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
