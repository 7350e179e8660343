"""Parent proxies: which of them a destination is reached by, their addresses, and what is said to them.

They are asked by CONNECT (RFC 9110 §9.3.6).
"""

import binascii
import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from select import EPOLLRDHUP
from typing import Final

from tokgate.gate.background import Addresses, BackgroundCalls, addresses_of
from tokgate.gate.sockets import DONT_WAIT, PEEK, Address, Socket
from tokgate.policy.settings import Upstream
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.counters import DnsError
from tokgate.traffic.enforcer import Enforcer
from tokgate.wire.proxy_request import Credentials

FRESH: Final = 60.0
"""Seconds after which a proxy's name is resolved again; until the answer is there, the last one holds."""
_RETRY: Final = 1.0
MAX_ANSWER: Final = 16 * 1024
"""Octets of an answer's head, beyond which it is none."""


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
            request = connect_request(upstream, *destination)
        except (OSError, ValueError) as error:
            self.tell(error)
            raise OSError(errno.EHOSTUNREACH, str(error)) from error
        return AskedParent(self, request), self._address(upstream)

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

    __slots__ = ("_parents", "_request")

    def __init__(self, parents: Parents, request: bytes) -> None:
        self._parents: Final = parents
        self._request = request

    def is_behind(self, server: Socket, event: int) -> bool:
        """Ask, and read the answer; whether the destination is there now. Raises OSError if it will not be.

        Of what comes behind the answer nothing is taken: that is the destination's.
        """
        if self._request:
            server.send(self._request, DONT_WAIT)
            self._request = b""
        try:
            said = server.recv(MAX_ANSWER, PEEK)
            length = answer_length(said)
        except BlockingIOError:
            said = length = None
        except ParentRefused as error:
            if error.ours:
                self._parents.tell(error)
            raise OSError(errno.ECONNREFUSED, str(error)) from error
        if length is not None:
            server.recv(length, DONT_WAIT)
            return True
        if said == b"" or event & EPOLLRDHUP:
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        return False


def connect_request(upstream: Upstream, host: str, port: int) -> bytes:
    """What is said to a parent for a destination: Basic credentials go with it, which costs no round trip.

    Raises OSError and ParentRefused, after which nothing is said.
    """
    credentials = credentials_of(upstream)
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
    if credentials is not None:
        head += f"Proxy-Authorization: {basic(credentials)}\r\n"
    return f"{head}\r\n".encode("ascii")


def answer_length(said: bytes) -> int | None:
    """The octets of a parent's answer at the beginning of what it said; None: no end yet. Raises ParentRefused."""
    end = said.find(b"\r\n\r\n")
    if end < 0:
        if len(said) >= MAX_ANSWER:
            raise ParentRefused("its answer has no end")
        return None
    status = said.partition(b"\r\n")[0].split(b" ", 2)
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
        raise ParentRefused("it does not speak HTTP")
    if not status[1].startswith(b"2"):
        raise ParentRefused(b" ".join(status[1:]).decode("ascii", "replace"), ours=status[1] == b"407")
    return end + 4


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


class ParentRefused(ValueError):
    """The proxy gives no way to the destination, or makes no sense. The message says what it said.

    `ours`: not the destination's affair but the configuration's.
    """

    def __init__(self, message: str, *, ours: bool = True) -> None:
        super().__init__(message)
        self.ours: Final = ours


def basic(credentials: Credentials) -> str:
    """The value of `Proxy-Authorization` (RFC 7617 §2)."""
    said = f"{credentials.user}:{credentials.password}".encode()
    return f"Basic {binascii.b2a_base64(said, newline=False).decode()}"
