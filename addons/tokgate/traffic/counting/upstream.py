"""Counts what becomes of connections to destinations: errors by kind, and how long an answer takes."""

import errno
from bisect import bisect_left
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from tokgate.traffic.counting.shared_counters import SharedCounters

CONNECT_ERROR: Final = "connect-error"
DNS_ERROR: Final = "dns-error"
CONNECT_SECONDS: Final = "connect-seconds"
FIRST_BYTE_SECONDS: Final = "first-byte-seconds"
"""Kinds of keys in shared counters."""
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of a histogram's buckets, in seconds, as Prometheus' clients have them."""
_LONGER: Final = "+Inf"
_SUM: Final = "sum"
"""In microseconds."""


class ConnectError(StrEnum):
    """Why a destination can't be connected to."""

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    RESET = "reset"
    NO_PORT = "no-port"
    """This machine has no free port left for that destination, or none of `settings.egress.addresses` is its own."""
    NO_DESCRIPTOR = "no-descriptor"
    FORBIDDEN = "forbidden"
    """By this machine's own firewall, or a firewall mark that takes a privilege."""
    OTHER = "other"


OWN: Final = frozenset({ConnectError.NO_PORT, ConnectError.NO_DESCRIPTOR})
"""Errors of which this machine is the cause: it lacks what connections take."""
_KINDS: Final[Mapping[int | None, ConnectError]] = {
    errno.ECONNREFUSED: ConnectError.REFUSED,
    errno.EHOSTUNREACH: ConnectError.UNREACHABLE,
    errno.ENETUNREACH: ConnectError.UNREACHABLE,
    errno.ENETDOWN: ConnectError.UNREACHABLE,
    errno.ETIMEDOUT: ConnectError.TIMEOUT,
    errno.ECONNRESET: ConnectError.RESET,
    errno.EADDRNOTAVAIL: ConnectError.NO_PORT,
    errno.EADDRINUSE: ConnectError.NO_PORT,
    errno.EAGAIN: ConnectError.NO_PORT,
    errno.EMFILE: ConnectError.NO_DESCRIPTOR,
    errno.ENFILE: ConnectError.NO_DESCRIPTOR,
    errno.EPERM: ConnectError.FORBIDDEN,
    errno.EACCES: ConnectError.FORBIDDEN,
}


def kind_of(number: int | None) -> ConnectError:
    """The kind of an error of connect(2), by its errno."""
    return _KINDS.get(number, ConnectError.OTHER)


class DnsError(StrEnum):
    """Why a name that an explicit client asked for has no address."""

    NOT_FOUND = "not-found"
    UNANSWERED = "unanswered"
    """No server answered, or it failed."""
    OTHER = "other"


class Histogram:
    """How long something took, in buckets that are shared counters."""

    def __init__(self, shared: SharedCounters, name: str) -> None:
        self._cells: Final = shared.cells
        self._slots: Final = [shared.slot(name, str(bound)) for bound in (*BOUNDS, _LONGER)]
        self._sum: Final = shared.slot(name, _SUM)

    def add(self, seconds: float) -> None:
        self._cells[self._slots[bisect_left(BOUNDS, seconds)]] += 1
        self._cells[self._sum] += int(seconds * 1e6)


def cumulated(counted: Mapping[str, int]) -> tuple[list[tuple[str, float]], float]:
    """The buckets as Prometheus has them, each with what is in those below it, and the sum in seconds."""
    total, buckets = 0, []
    for bound in (*map(str, BOUNDS), _LONGER):
        total += counted.get(bound, 0)
        buckets.append((bound, float(total)))
    return buckets, counted.get(_SUM, 0) / 1e6
