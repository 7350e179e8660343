"""Parent proxies: which of them a destination is reached by, their addresses, and the handshake without blocking."""

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from select import EPOLLRDHUP
from typing import Final

from tokgate.gate.egress.parent_handshake import (
    MAX_ANSWER,
    ConnectHandshake,
    ParentHandshake,
    ParentRefused,
    SocksHandshake,
)
from tokgate.gate.explicit_clients.background import Addresses, BackgroundCalls, addresses_of
from tokgate.gate.sockets import DONT_WAIT, PEEK, Address, Socket
from tokgate.policy.settings import Upstream, UpstreamKind, upstream_for
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.counters import DnsError
from tokgate.traffic.enforcer import Enforcer
from tokgate.wire.proxy_request import Credentials

FRESH: Final = 60.0
"""Seconds after which a proxy's name is resolved again; until the answer is there, the last one holds."""
_RETRY: Final = 1.0


class Parents:
    """The addresses of parent proxies. A name is resolved in a thread: nothing waits for it but its own connections."""

    def __init__(self, enforcer: Enforcer, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._enforcer: Final = enforcer
        self._told: dict[str, float] = {}
        """What an operator was told of, and until when not again, in monotonic seconds."""
        self._monotonic: Final = monotonic
        self._lookups: Final = BackgroundCalls(threads=1)
        self._known: Final[dict[str, Addresses]] = {}
        self._due: Final[dict[str, float]] = {}
        self.descriptor: Final = self._lookups.descriptor
        self.deliver: Final = self._lookups.deliver
        self.close: Final = self._lookups.close

    def begin(self, upstream: Upstream, destination: Address) -> "tuple[AskedParent, Address]":
        """The parent to be asked for a destination, and where it is. Raises OSError if nothing can go out."""
        try:
            parent = handshake(upstream, *destination)
        except (OSError, ValueError) as error:
            self.tell(error)
            raise OSError(errno.EHOSTUNREACH, str(error)) from error
        return AskedParent(self, parent), self._address(upstream)

    def tell(self, error: Exception) -> None:
        """Report what an operator has to mend, once a minute."""
        now, what = self._monotonic(), str(error)
        if now >= self._told.get(what, 0.0):
            self._told = {what: now + FRESH}
            self._enforcer.failed("upstream", error)

    def _address(self, upstream: Upstream) -> Address:
        """Where a proxy is. Raises OSError while its name is not resolved: then nothing goes out."""
        host = upstream.host
        if parse_address(host) is not None:
            return host, upstream.port
        now = self._monotonic()
        if now >= self._due.get(host, 0.0):
            self._due[host] = now + _RETRY if host not in self._known else now + FRESH
            self._lookups.run(partial(addresses_of, host), partial(self._found, host), DnsError.OTHER)
        if host not in self._known:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH), host)
        return self._known[host][0], upstream.port

    def _found(self, host: str, found: Addresses | DnsError) -> None:
        if not isinstance(found, DnsError):
            self._known[host] = found


class AskedParent:
    """A parent proxy that is connected to, and asked for a destination."""

    __slots__ = ("_handshake", "_parents", "_said_first")

    def __init__(self, parents: Parents, handshake: ParentHandshake) -> None:
        self._parents: Final = parents
        self._handshake: Final = handshake
        self._said_first = False

    def is_behind(self, server: Socket, event: int) -> bool:
        """Go on with the handshake; whether the destination is there now. Raises OSError if it will not be."""
        try:
            if not self._said_first:
                self._said_first = True
                server.send(self._handshake.first, DONT_WAIT)
            behind = self._go_on(server)
        except ParentRefused as error:
            if error.ours:
                self._parents.tell(error)
            raise OSError(errno.ECONNREFUSED, str(error)) from error
        if not behind and event & EPOLLRDHUP:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return behind

    def _go_on(self, server: Socket) -> bool:
        """Take what the proxy has said and answer it. Raises OSError, ParentRefused.

        Of what comes behind its answer nothing is taken: that is the destination's.
        """
        while True:
            try:
                said = server.recv(MAX_ANSWER, PEEK)
            except BlockingIOError:
                return False
            progress = self._handshake.read(said)
            if progress is None:
                if said:
                    return False
                raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            server.recv(progress.consumed, DONT_WAIT)
            if progress.say:
                server.send(progress.say, DONT_WAIT)
            if progress.done:
                return True


def parent_for(snapshot: Snapshot, *hosts: str | None) -> Upstream | None:
    """The parent for a destination, by the names and addresses known of it; None where it is reached directly."""
    return upstream_for(snapshot.upstream, hosts) if hosts else None


def handshake(upstream: Upstream, host: str, port: int) -> ParentHandshake:
    """The conversation that leads to a destination. Raises OSError and ParentRefused, after which nothing is said."""
    credentials = credentials_of(upstream)
    kind = SocksHandshake if upstream.kind is UpstreamKind.SOCKS5 else ConnectHandshake
    return kind(host, port, credentials)


def credentials_of(upstream: Upstream) -> Credentials | None:
    """What the file of credentials holds, read anew: it may change while tokgate runs.

    Raises:
        OSError: it can't be read.
        ParentRefused: it is not one line `user:password`.
    """
    if upstream.credentials is None:
        return None
    text = Path(upstream.credentials).read_text("utf-8", errors="replace").rstrip("\r\n")
    user, colon, password = text.partition(":")
    if not user or not colon or "\n" in text:
        raise ParentRefused(f"{upstream.credentials} is not one line `user:password`")
    return Credentials(user, password)
