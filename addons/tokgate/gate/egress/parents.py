"""Parent proxies: which of them a destination is reached by, their addresses, and what is said to them.

They are asked by CONNECT (RFC 9110 §9.3.6) or SOCKS 5 (RFC 1928). A handshake is sans-IO: it begins with `first`;
`read` then takes all that has come and was not consumed.
"""

import binascii
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from select import EPOLLRDHUP
from typing import Final

from tokgate.gate.explicit_clients.background import Addresses, BackgroundCalls, addresses_of
from tokgate.gate.sockets import DONT_WAIT, PEEK, Address, Socket
from tokgate.policy.settings import Upstream, UpstreamKind, upstream_for
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.counters import DnsError
from tokgate.traffic.enforcer import Enforcer
from tokgate.wire.proxy_request import ACCEPTED, SOCKS_VERSION, Credentials
from tokgate.wire.socks5 import METHOD_CHOSEN, PASSWORD_CHOSEN, VERSION, Reply

FRESH: Final = 60.0
"""Seconds after which a proxy's name is resolved again; until the answer is there, the last one holds."""
_RETRY: Final = 1.0
MAX_ANSWER: Final = 16 * 1024
"""Octets of an answer's head, beyond which it is none."""
_LONGEST: Final = 255
"""Octets of a name, user or password in SOCKS 5."""
_ADDRESS_LENGTHS: Final = {1: 4, 4: 16}

type ParentHandshake = ConnectHandshake | SocksHandshake
"""What a gate and a parent proxy say to each other before octets are relayed. Sans-IO."""


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


# -- what is said to them


class ParentRefused(ValueError):
    """The proxy gives no way to the destination, or makes no sense. The message says what it said.

    `ours`: not the destination's affair but the configuration's.
    """

    def __init__(self, message: str, *, ours: bool = True) -> None:
        super().__init__(message)
        self.ours: Final = ours


@dataclass(frozen=True, slots=True)
class Progress:
    """So many octets of the answer are consumed; `say` comes next, or the way is there (`done`)."""

    consumed: int
    say: bytes = b""
    done: bool = False


class ConnectHandshake:
    """CONNECT to an HTTP proxy. Basic credentials go with the request, which costs no round trip."""

    def __init__(self, host: str, port: int, credentials: Credentials | None) -> None:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        head = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        if credentials is not None:
            head += f"Proxy-Authorization: {basic(credentials)}\r\n"
        self.first: Final = f"{head}\r\n".encode("ascii")

    def read(self, data: bytes) -> Progress | None:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) >= MAX_ANSWER:
                raise ParentRefused("its answer has no end")
            return None
        status = data.partition(b"\r\n")[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].isdigit():
            raise ParentRefused("it does not speak HTTP")
        if not status[1].startswith(b"2"):
            said = b" ".join(status[1:]).decode("ascii", "replace")
            raise ParentRefused(said, ours=status[1] == b"407")
        return Progress(end + 4, done=True)


class SocksHandshake:
    """SOCKS 5, by name where there is one. A password is offered only where there are credentials (RFC 1929)."""

    def __init__(self, host: str, port: int, credentials: Credentials | None) -> None:
        """Raises ParentRefused for a name or credentials that SOCKS can't say."""
        self._request: Final = bytes((VERSION, 1, 0)) + _address(host) + port.to_bytes(2)
        self._credentials: Final = credentials
        self.first: Final = bytes((VERSION, 1, 0 if credentials is None else 2))
        self._password: Final = b"" if credentials is None else _password(credentials)
        self._step = self._method

    def read(self, data: bytes) -> Progress | None:
        return self._step(data)

    def _method(self, data: bytes) -> Progress | None:
        if len(data) < 2:
            return None
        wanted = METHOD_CHOSEN if self._credentials is None else PASSWORD_CHOSEN
        if data[:2] != wanted:
            raise ParentRefused("it accepts no way of signing in that we have")
        self._step = self._answer if self._credentials is None else self._accepted
        return Progress(2, say=self._request if self._credentials is None else self._password)

    def _accepted(self, data: bytes) -> Progress | None:
        if len(data) < 2:
            return None
        if data[:2] != ACCEPTED:
            raise ParentRefused("the credentials are wrong")
        self._step = self._answer
        return Progress(2, say=self._request)

    def _answer(self, data: bytes) -> Progress | None:
        if len(data) < 5:
            return None
        if data[0] != VERSION or data[1] != Reply.SUCCEEDED:
            raise ParentRefused(f"SOCKS reply {data[1]}", ours=False)
        length = 1 + data[4] if data[3] == 3 else _ADDRESS_LENGTHS.get(data[3])
        if length is None:
            raise ParentRefused("it does not speak SOCKS 5")
        whole = 4 + length + 2
        return Progress(whole, done=True) if len(data) >= whole else None


def basic(credentials: Credentials) -> str:
    """The value of `Proxy-Authorization` (RFC 7617 §2)."""
    said = f"{credentials.user}:{credentials.password}".encode()
    return f"Basic {binascii.b2a_base64(said, newline=False).decode()}"


def _address(host: str) -> bytes:
    for kind, version in ((1, IPv4Address), (4, IPv6Address)):
        try:
            return bytes((kind,)) + version(host).packed
        except ValueError:
            continue
    name = host.encode("ascii", "replace")
    if not 0 < len(name) <= _LONGEST:
        raise ParentRefused("the name is too long")
    return bytes((3, len(name))) + name


def _password(credentials: Credentials) -> bytes:
    user, password = credentials.user.encode(), credentials.password.encode()
    if not (0 < len(user) <= _LONGEST and 0 < len(password) <= _LONGEST):
        raise ParentRefused("SOCKS takes a user and a password of 1 to 255 octets")
    return bytes((SOCKS_VERSION, len(user))) + user + bytes((len(password),)) + password
