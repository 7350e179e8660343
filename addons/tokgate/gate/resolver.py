"""Resolves names without stopping the gate's loop: `getaddrinfo` in a few threads, answers by an eventfd."""

import os
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

THREADS: Final = 8
MOST_ADDRESSES: Final = 8

Addresses = tuple[str, ...]
Answer = Callable[[Addresses], None]


class Resolver:
    """Names to addresses, in the system's order of preference (RFC 6724). Threads start with the first question."""

    def __init__(self) -> None:
        self.descriptor: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when there are answers; then call `deliver`."""
        self._pool: ThreadPoolExecutor | None = None
        self._answered: Final[deque[tuple[Answer, Addresses]]] = deque()

    def ask(self, host: str, answer: Answer) -> None:
        """Resolve `host` (or pass an address literal through) and call `answer` from `deliver`; empty: not found."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")

        def done(future: Future[Addresses]) -> None:
            self._answered.append((answer, () if future.cancelled() else future.result()))
            os.eventfd_write(self.descriptor, 1)

        self._pool.submit(_addresses, host).add_done_callback(done)

    def deliver(self) -> None:
        """Hand out the answers that have come."""
        os.eventfd_read(self.descriptor)
        while self._answered:
            answer, addresses = self._answered.popleft()
            answer(addresses)

    def close(self) -> None:
        """Stop; questions that are still open get no answer."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        os.close(self.descriptor)


def _addresses(host: str) -> Addresses:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # not found, or no name that can be asked for
        return ()
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
