"""Which name servers answer a question, one after another. Nothing is sent here."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from mitmproxy.connection import Address, Server
from mitmproxy.proxy import commands

from tokgate.traffic.seen import DnsArrival

logger = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds that a name server has before the next one is asked as well. An answer that comes later still counts."""
LAST_PATIENCE: Final = 6.0
"""Seconds that the last one has. Stub resolvers give up after some 5 (resolv.conf(5), `timeout`)."""
MOST_ASKED: Final = 3
"""Most name servers that one question is sent to, as by the C library (resolv.h: MAXNS)."""
FAILED_FOR: Final = 30.0
"""Seconds for which one that gave no answer is asked last."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A question that waits for an answer: what was sent, who may still answer, and who is to be asked next."""

    asked: DnsArrival
    message: bytes
    left: list[Address]
    servers: list[Server] = field(default_factory=list)
    alarm: commands.RequestWakeup | None = None
    """When the last of `servers` has had its time; None: it has what it needs."""
    error: bytes | None = None
    """The last error that a server has answered with."""

    @property
    def server(self) -> Server | None:
        """The server that was asked last."""
        return self.servers[-1] if self.servers else None


class NameServers:
    """Remembers for a while which name servers gave no answer."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now: Final = now
        self._failed: Final[dict[Address, float]] = {}

    def in_order(self, known: Iterable[Address]) -> list[Address]:
        """Those to ask, in this order: as they are configured, but those that have just failed last."""
        now = self._now()
        for address in [each for each, until in self._failed.items() if now >= until]:
            del self._failed[address]
        return sorted(dict.fromkeys(known), key=self._failed.__contains__)[:MOST_ASKED]

    def failed(self, address: Address | None) -> None:
        """It gave no answer, or can't be reached."""
        if address is None:
            return
        if address not in self._failed:
            logger.warning("name server %s gives no answer: for %g s it is asked last", address[0], FAILED_FOR)
        self._failed[address] = self._now() + FAILED_FOR

    def answered(self, address: Address | None) -> None:
        """It gave an answer, whatever it says."""
        if address is not None and self._failed.pop(address, None) is not None:
            logger.warning("name server %s answers again", address[0])
