"""Runs blocking work of a gate in threads and reports results by an eventfd: name resolution, password checks."""

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tokgate.traffic.counters import DnsError
from tokgate.traffic.limits import ResolverLimits, client_key

MOST_ADDRESSES: Final = 8

_RESERVE: Final = 8
"""A client gets at most one in this many of the free lookups."""

_DNS_ERRORS: Final[dict[int | None, DnsError]] = {
    socket.EAI_NONAME: DnsError.NOT_FOUND,
    socket.EAI_NODATA: DnsError.NOT_FOUND,
    socket.EAI_AGAIN: DnsError.UNANSWERED,
    socket.EAI_FAIL: DnsError.UNANSWERED,
}

type Addresses = tuple[str, ...]
type Callback = Callable[[Addresses], None]


class BackgroundCalls:
    """Runs blocking calls in threads, which start with the first call."""

    def __init__(self, threads: int) -> None:
        """`threads` is how many calls run at a time; the others wait."""
        self.descriptor: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Readable when there are answers; then call `deliver`."""
        self.waiting = 0
        """Calls without an answer yet."""
        self._threads: Final = threads
        self._pool: ThreadPoolExecutor | None = None
        self._answered: Final[deque[Callable[[], None]]] = deque()

    def run[T, O](self, work: Callable[[], T], answer: Callable[[T | O], None], otherwise: O) -> None:
        """Call `work` in a thread; `deliver` passes its result to `answer`. `work` must not raise.

        The result is `otherwise` if the system allows no thread at this time. If there are some, one of them does it.
        """
        pool = self._pool or ThreadPoolExecutor(self._threads, thread_name_prefix=type(self).__name__.lower())

        def done(result: T | O) -> None:
            self._answered.append(partial(answer, result))
            os.eventfd_write(self.descriptor, 1)

        self.waiting += 1
        try:
            pool.submit(lambda: done(work()))
        except RuntimeError:  # EAGAIN of pthread_create(3)
            if self._pool is None:  # with what is queued in it
                done(otherwise)
            return
        self._pool = pool

    def deliver(self) -> None:
        """Pass the results that have come to their `answer`."""
        os.eventfd_read(self.descriptor)
        try:
            while self._answered:
                self.waiting -= 1
                self._answered.popleft()()
        finally:
            if self._answered:  # an `answer` raised: the others are called next time
                os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        """Stop. Work that has not begun is dropped, and no result is delivered any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        os.close(self.descriptor)


class Resolver(BackgroundCalls):
    """Names to addresses, in the system's order of preference (RFC 6724).

    A name whose servers don't answer keeps a thread for seconds, so a client has but a share of them: the smaller, the
    fewer are left. Clients whose names wait have their turns one after another.
    """

    def __init__(
        self,
        limits: ResolverLimits | None = None,
        *,
        failed: Callable[[DnsError], None] = lambda kind: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`failed` is called by `deliver` for each name that has no address."""
        self._failed_because: Final = failed
        self._limits: Final = limits or ResolverLimits()
        super().__init__(self._limits.lookups)
        self._monotonic: Final = monotonic
        self._free = self._limits.lookups
        self._asking: Final[Counter[str]] = Counter()
        self._queued: Final[dict[str, deque[tuple[str, Callback]]]] = {}
        """By client, the one whose turn is next first."""
        self._asked: Final[dict[str, list[Callback]]] = {}
        """Who waits for a name that is being resolved."""
        self._failed: Final[dict[str, float]] = {}
        """Until when a name is known not to be found, in monotonic seconds."""

    def ask(self, client: str, host: str, answer: Callback) -> None:
        """Resolve `host` for a client's address and call `answer` from `deliver`; empty: not found.

        The client's further names wait for their turn. `answer` gets () at once if too many wait, or if the name was
        not found within the last `failure_kept` seconds.
        """
        who = client_key(client)
        if self._failed.get(host, 0.0) > self._monotonic():
            answer(())
        elif self._may_ask(who) or host in self._asked:
            self._look_up(who, host, answer)
        elif len(queue := self._queued.setdefault(who, deque())) < self._limits.queued_per_client:
            queue.append((host, answer))
        else:
            answer(())

    def _may_ask(self, who: str) -> bool:
        share = max(1, min(self._limits.per_client, self._free // _RESERVE))
        return self._free > 0 and self._asking[who] < share

    def _look_up(self, who: str, host: str, answer: Callback) -> None:
        waiting = self._asked.get(host)
        if waiting is not None:
            waiting.append(answer)
            return
        self._asked[host] = [answer]
        self._asking[who] += 1
        self._free -= 1
        self.run(partial(addresses_of, host), partial(self._found, who, host), DnsError.OTHER)

    def _found(self, who: str, host: str, found: Addresses | DnsError) -> None:
        addresses = () if isinstance(found, DnsError) else found
        if isinstance(found, DnsError):
            self._failed_because(found)
        self._free += 1
        self._asking[who] -= 1
        if not self._asking[who]:
            del self._asking[who]
        if not addresses:
            self._failed.pop(host, None)
            self._failed[host] = self._monotonic() + self._limits.failure_kept
            if len(self._failed) > self._limits.failures:
                del self._failed[next(iter(self._failed))]
        answers = self._asked.pop(host)
        while (waits := next(filter(self._may_ask, self._queued), None)) is not None:  # one name of each after another
            queue = self._queued.pop(waits)
            if len(queue) > 1:
                self._queued[waits] = queue
            self._look_up(waits, *queue.popleft())
        self.waiting += len(answers)  # each by itself: one that fails costs no other
        self._answered.extend(partial(answer, addresses) for answer in answers)


def addresses_of(host: str) -> Addresses | DnsError:
    """The addresses of a name, or why there are none. Blocks."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return _DNS_ERRORS.get(error.errno, DnsError.OTHER)
    except (OSError, UnicodeError):  # no name that can be asked for
        return DnsError.OTHER
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:MOST_ADDRESSES]
