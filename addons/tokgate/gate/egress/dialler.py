"""Connects to destinations from the addresses that the policy in force names, and counts what becomes of it.

Each source address brings ports of its own: some 28,000 for one destination. From a client's address, a port of its own
is not taken: for connection tracking both would be one connection.
"""

import errno
import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Final

from tokgate.gate.background import Resolver
from tokgate.gate.egress.parents import Parents
from tokgate.gate.sockets import Address, Socket, connect, is_here, traffic_class
from tokgate.policy.settings import EgressSettings
from tokgate.policy.values.hostname import IPAddress
from tokgate.traffic.counters import (
    CONNECT_ERROR,
    CONNECT_SECONDS,
    DNS_ERROR,
    OWN,
    ConnectError,
    Histogram,
    connect_error,
)
from tokgate.traffic.enforcer import Enforcer

BAD: Final = 30.0
"""Seconds for which an address that could not be reached is tried last."""
MOST_BAD: Final = 1024
"""Such addresses that are remembered."""
_FATES: Final = (ConnectError.REFUSED, ConnectError.UNREACHABLE, ConnectError.TIMEOUT)
"""What the client would have met itself."""
_NO_PORT: Final = (errno.EADDRNOTAVAIL, errno.EADDRINUSE)


_is_here: Final = lru_cache(maxsize=16384)(is_here)
"""An address that this machine gets or loses later counts as before."""


class Dialler:
    """What a gate needs to reach destinations, directly or by a parent proxy."""

    def __init__(self, enforcer: Enforcer, mark: int | None) -> None:
        """`mark` is set on sockets, for firewalls that tell the proxy's own traffic by it."""
        self._enforcer: Final = enforcer
        self._sources: Final = Sources(mark)
        self.parents: Final = Parents(enforcer)
        self.resolver: Final = Resolver(failed=partial(enforcer.counters.add, DNS_ERROR))
        self.bad: Final[dict[Address, float]] = {}
        """Until when addresses are tried last, in monotonic seconds."""
        self.connect_seconds: Final = Histogram(enforcer.counters.shared, CONNECT_SECONDS)
        self.tell_failed: Callable[[str, Address, bool], None] | None = None
        """Tells the kernel of a client's destination that has failed, and whether it was refused."""
        self.starved: tuple[ConnectError, float] | None = None
        """The latest error of which this machine is the cause, and when it was, in monotonic seconds."""

    def connect(
        self, destination: Address, egress: EgressSettings, now: float, client: tuple[Socket, str] | None = None
    ) -> Socket:
        """Begin to connect, at `now` in monotonic seconds. A failure is counted. Raises OSError.

        `client`: one whom TPROXY brought, with its address, from which it may be done.
        """
        try:
            return self._sources.connect(destination, egress, client)
        except OSError as error:
            self.failed(connect_error(error.errno), now, destination)
            raise

    def failed(self, kind: ConnectError, now: float, destination: Address | None) -> None:
        """Count a destination that can't be reached, and remember it, unless that is this machine's fault."""
        self._enforcer.counters.add(CONNECT_ERROR, kind)
        if kind in OWN:
            self.starved = kind, now
        elif destination is not None:
            self.bad.pop(destination, None)
            self.bad[destination] = now + BAD
            if len(self.bad) > MOST_BAD:
                del self.bad[next(iter(self.bad))]

    def refuse_next(self, client: str, destination: Address, kind: ConnectError | None) -> None:
        """Have the kernel refuse the client's next connections to a destination, in the way in which it failed."""
        if self.tell_failed is not None and kind in _FATES:
            self.tell_failed(client, destination, kind is ConnectError.REFUSED)

    def is_bad(self, destination: Address, now: float) -> bool:
        """Whether an address could not be reached a short time ago."""
        until = self.bad.get(destination)
        if until is not None and until <= now:
            del self.bad[destination]
        return until is not None and until > now

    def in_order(self, addresses: Iterable[str], port: int) -> tuple[str, ...]:
        """Addresses as they are to be tried: families by turns (RFC 8305 §4), those that failed of late behind all."""
        now = time.monotonic()
        kinds: dict[tuple[bool, bool], list[str]] = {}
        for address in addresses:
            kinds.setdefault((self.is_bad((address, port), now), ":" in address), []).append(address)
        by_turns = {bad: [kinds[key] for key in kinds if key[0] is bad] for bad in (False, True)}
        return tuple(
            each for bad in (False, True) for turn in zip_longest(*by_turns[bad]) for each in turn if each is not None
        )

    def close(self) -> None:
        """End the threads."""
        self.parents.close()
        self.resolver.close()


class Sources:
    """Where connections come from: addresses of a pool in turn, the client's, or the one that the route has."""

    def __init__(self, mark: int | None) -> None:
        """`mark` is set on sockets, for firewalls that tell the proxy's own traffic by it."""
        self._mark: Final = mark
        self._egress = EgressSettings()
        self._pools: dict[bool, list[str]] = {}
        """By whether they are of IPv6."""
        self._turns: dict[bool, Iterator[str]] = {}

    def connect(self, destination: Address, egress: EgressSettings, client: tuple[Socket, str] | None = None) -> Socket:
        """Begin to connect, from another address if one has no port left. Raises OSError.

        `client` as of `Dialler`: where its address is of the destination's family.
        """
        if egress is not self._egress:  # turns go on for as long as a policy stays in force
            self._egress, self._pools = egress, {}
            for address in map(str, egress.addresses):
                self._pools.setdefault(":" in address, []).append(address)
            self._turns = {is_v6: itertools.cycle(pool) for is_v6, pool in self._pools.items()}
        is_v6 = ":" in destination[0]
        if client is not None and (":" in client[1]) is is_v6 and self.takes(client[1], egress):
            sock, source = client
            return connect(destination, self._mark, source, dscp=traffic_class(sock))
        turns = self._turns.get(is_v6)
        if turns is None:
            return connect(destination, self._mark)
        for _ in self._pools[is_v6][1:]:
            try:
                return connect(destination, self._mark, next(turns))
            except OSError as error:
                if error.errno not in _NO_PORT:
                    raise
        return connect(destination, self._mark, next(turns))

    def takes(self, address: str, egress: EgressSettings) -> bool:
        """Whether the connections of a client with this address are made from it: it is not this machine itself."""
        return egress.client and may_be_transparent() and not _is_here(address)

    def are_default(self, egress: EgressSettings) -> bool:
        """Whether connections are as any other program makes them."""
        return self._mark is None and not egress.addresses


def elsewhere(addresses: Iterable[IPAddress]) -> list[str]:
    """The addresses to which this machine can't bind a socket, since it doesn't have them."""
    return [str(address) for address in addresses if not is_here(str(address))]


@lru_cache
def may_be_transparent() -> bool:
    """Whether this process may connect from others' addresses (ip(7): IP_TRANSPARENT), by CAP_NET_RAW."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, True)
        except OSError:
            return False
    return True
