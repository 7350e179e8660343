"""Who answers a question: the hosts file, or which name servers, one after another. Nothing is sent here."""

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from mitmproxy import dns
from mitmproxy.connection import Address, Server
from mitmproxy.net.dns import types
from mitmproxy.proxy import commands

from tokgate.traffic.seen import DnsArrival
from tokgate.wire.dns_message.query import Query

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


def resolver_request(query: Query, *, by_itself: bool) -> dns.DNSMessage:
    """The question for mitmproxy's resolver; not read by mitmproxy, which does not know all names.

    Asked for addresses the resolver answers by itself, and leaves out the aliases by which it found them. Asked for
    anything else it says who is to be asked.
    """
    kind = query.type if by_itself else types.TXT
    return dns.DNSMessage(
        id=query.id,
        query=True,
        op_code=query.opcode,
        authoritative_answer=False,
        truncation=False,
        recursion_desired=True,
        recursion_available=False,
        reserved=0,
        response_code=0,
        questions=[dns.Question(query.name, kind, query.class_)],
        answers=[],
        authorities=[],
        additionals=[],
        timestamp=time.time(),
    )


PATH: Final = Path("/etc/hosts")


def names_host(name: str, path: Path = PATH) -> bool:
    """Whether the file gives an address for a name. It is read again when it has changed."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return False
    return name.lower() in _names(path, changed)


@lru_cache(maxsize=1)
def _names(path: Path, _changed: int) -> frozenset[str]:
    """All names, in lower case: on each line an address, names, and a comment (hosts(5))."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(name.lower() for line in lines for name in line.partition("#")[0].split()[1:])
