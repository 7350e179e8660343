"""Connects to destinations from the addresses that the policy in force names, and counts what becomes of it."""

from typing import Final

from tokgate.gate.egress.parents import Parents
from tokgate.gate.egress.sources import PolicySources
from tokgate.gate.sockets import Address, Socket
from tokgate.policy.settings import EgressSettings
from tokgate.traffic.counters import (
    CONNECT_ERROR,
    CONNECT_SECONDS,
    FIRST_BYTE_SECONDS,
    OWN,
    ConnectError,
    Histogram,
    connect_error,
)
from tokgate.traffic.enforcer import Enforcer


class Dialler:
    """What a gate needs to reach destinations, directly or by a parent proxy."""

    def __init__(self, enforcer: Enforcer, mark: int | None) -> None:
        """`mark` is set on sockets, for firewalls that tell the proxy's own traffic by it."""
        self._enforcer: Final = enforcer
        self._sources: Final = PolicySources(mark)
        self.parents: Final = Parents(enforcer)
        self.connect_seconds: Final = Histogram(enforcer.counters.shared, CONNECT_SECONDS)
        self.first_octet_seconds: Final = Histogram(enforcer.counters.shared, FIRST_BYTE_SECONDS)
        self.starved: tuple[ConnectError, float] | None = None
        """The latest error of which this machine is the cause, and when it was, in monotonic seconds."""

    def connect(self, destination: Address, egress: EgressSettings, now: float) -> Socket:
        """Begin to connect, at `now` in monotonic seconds. A failure is counted. Raises OSError."""
        try:
            return self._sources.of(egress).connect(destination)
        except OSError as error:
            self.failed(connect_error(error.errno), now)
            raise

    def failed(self, kind: ConnectError, now: float) -> None:
        """Count a destination that can't be reached."""
        self._enforcer.counters.add(CONNECT_ERROR, kind)
        if kind in OWN:
            self.starved = kind, now
