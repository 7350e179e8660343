"""Makes attempts, plainly or through an explicit proxy, and says of each whether the user's own gateway stopped it."""

import contextlib
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from ipaddress import ip_address
from typing import Final

from tokgate.evasion.attempt import Attempt, Opens, Result, ServerReply, Target, broken, read_until
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.hello import vector

type Address = tuple[str, int]
PAUSE = 0.5
"""Seconds of silence behind the first octets of an answer that end it."""


class Carriage(StrEnum):
    """How an attempt's bytes reach the gateway: on their way to the server, or through an explicit proxy."""

    ROUTE = "route"
    """Sent to the server's own address; the network redirects them, or not."""
    CONNECT = "connect"
    SOCKS = "socks"


class SocketStream:
    """A TCP socket with the interface of `Stream`. Times in seconds."""

    def __init__(self, sock: socket.socket, patience: float, more: float = PAUSE) -> None:
        """`patience` is for the first octets that answer what was sent, `more` for each further piece."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: Final = sock
        self._patience: Final = patience
        self._more: Final = more

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises OSError, TimeoutError among them."""
        self._socket.settimeout(self._patience)
        self._socket.sendall(data)

    def end(self) -> None:
        """Send FIN; what the server sends can still be received."""
        self._socket.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes:
        """The octets that have come, at most 64 KiB; empty at the end. Raises OSError, TimeoutError among them."""
        data = self._socket.recv(1 << 16)
        self._socket.settimeout(self._more)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRoute:
    """Where attempts are sent. `dial` opens a TCP connection to an address."""

    carriage: Carriage
    proxy: Address | None = None
    """The address of an explicit proxy; None for redirected clients."""
    tunnel_host: str | None = None
    """What CONNECT and SOCKS ask for; None: the server's address."""
    patience: float = 5.0
    dial: Callable[[Address], socket.socket] = socket.create_connection

    def makes(self, attempt: Attempt) -> bool:
        """Whether an attempt can be made on this route: some are requests to a proxy of one kind."""
        match attempt.opens:
            case Opens.PROXY | Opens.URL:
                return self.carriage is Carriage.CONNECT
            case Opens.SOCKS:
                return self.carriage is Carriage.SOCKS
            case _:
                return True


def make(attempt: Attempt, route: AttemptRoute, target: Target) -> ServerReply:
    """Make an attempt. Never raises OSError: an error of the connection is a result, as any reply is."""
    try:
        sock = route.dial(route.proxy or (target.host, target.port))
    except OSError as error:
        return broken(error)
    with sock:
        stream = SocketStream(sock, route.patience, route.patience if attempt.is_http2 else PAUSE)
        try:
            if attempt.opens in (Opens.TLS, Opens.HTTP) and (refused := _tunnel(stream, route, target)) is not None:
                return refused
            return attempt.play(stream, target)
        except OSError as error:
            return broken(error)
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _tunnel(stream: SocketStream, route: AttemptRoute, target: Target) -> ServerReply | None:
    """Ask for a tunnel to the server, where the route needs one; None if there is one, else the refusal."""
    host = route.tunnel_host or target.host
    if route.carriage is Carriage.CONNECT:
        authority = f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"
        stream.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        head = read_until(stream, lambda said: b"\r\n\r\n" in said)
        if b"\r\n\r\n" not in head:
            return ServerReply(Result.CLOSED, "no tunnel", head)
        if head.split(b" ", 2)[1:2] != [b"200"]:
            return ServerReply(Result.REFUSED, f"no tunnel: {head.partition(b'\r\n')[0].decode('latin-1')}", head)
    elif route.carriage is Carriage.SOCKS:
        stream.send(b"\5\1\0")
        if read_until(stream, lambda said: len(said) >= 2) != b"\5\0":
            return ServerReply(Result.REFUSED, "no tunnel: no method")
        stream.send(b"\5\1\0" + _socks_address(host) + target.port.to_bytes(2))
        reply = read_until(stream, _is_whole)
        if not _is_whole(reply) or reply[1]:
            return ServerReply(Result.REFUSED, f"no tunnel: reply {reply[1:2].hex()}", reply)
    return None


def _is_whole(reply: bytes) -> bool:
    """Whether all of a SOCKS 5 reply is there (RFC 1928 §6)."""
    return len(reply) > 4 and len(reply) >= 6 + ({1: 4, 4: 16}.get(reply[3]) or 1 + reply[4])


def _socks_address(host: str) -> bytes:
    try:
        packed = ip_address(host).packed
    except ValueError:
        return b"\3" + vector(1, host.encode("ascii"))
    return bytes([1 if len(packed) == 4 else 4]) + packed


AT_ONCE: Final = 8
"""Attempts that are made at a time: few enough for any limit on connections of one client."""


class TrialResult(StrEnum):
    """Whether the gateway stopped an attempt."""

    STOPPED = "stopped"
    DOCUMENTED = "documented"
    """A server answered, and docs/cannot-see.md says why."""
    PASSED = "passed"
    """A server answered: for the name, or for octets that nobody could decide about."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An attempt that was made by one carriage, and the reply."""

    attempt: Attempt
    carriage: Carriage
    answer: ServerReply

    @property
    def verdict(self) -> TrialResult:
        """Whether the gateway stopped it: no server answered."""
        if self.answer.result not in (Result.SERVED, Result.OTHER):
            return TrialResult.STOPPED
        return TrialResult.PASSED if self.attempt.limit is None else TrialResult.DOCUMENTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What answers for the name: an address, its port for TLS, and its port for plain HTTP, if it has one."""

    host: str
    tls: int
    http: int | None

    def target(self, attempt: Attempt, name: str) -> Target | None:
        """The target of an attempt at this server; None if the server has no port for it."""
        port = self.tls if attempt.is_tls else self.http
        return None if port is None else Target(name, self.host, port)


class TrialError(Exception):
    """Attempts on this route could show nothing; the message says why."""


def check(route: AttemptRoute, server: Server, name: str, allowed: str) -> Server:
    """Check that an allowed name reaches the server and the banned one doesn't; the server with the ports that do so.

    Raises:
        TrialError: the server isn't reached, or the name isn't banned for this client.

    """
    for attempt, port in ((ATTEMPTS["sni-plain"], server.tls), (ATTEMPTS["plain-request"], server.http)):
        if port is None:
            continue
        reached = make(attempt, route, Target(allowed, server.host, port))
        if reached.result not in (Result.SERVED, Result.OTHER) and attempt.opens is Opens.HTTP:
            server = replace(server, http=None)
            continue
        if reached.result not in (Result.SERVED, Result.OTHER):
            raise TrialError(f"{allowed} at {server.host}:{port} is not reached by {route.carriage}: {_told(reached)}")
        banned = make(attempt, route, Target(name, server.host, port))
        if banned.result in (Result.SERVED, Result.OTHER):
            raise TrialError(f"{name} is not banned for this client by {route.carriage}: {_told(banned)}")
    return server


def try_all(
    routes: Iterable[tuple[AttemptRoute, Server]],
    name: str,
    attempts: Sequence[Attempt],
    progress: Callable[[int, int], None],
) -> Iterator[Trial]:
    """Make all attempts that can be made, in order; `progress` is told how many of how many are done."""
    waiting = [
        (attempt, route, target)
        for route, server in routes
        for attempt in attempts
        if route.makes(attempt) and (target := server.target(attempt, name)) is not None
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [pool.submit(partial(make, *each)) for each in waiting]
        for done, ((attempt, route, _), answer) in enumerate(zip(waiting, answers, strict=True), 1):
            yield Trial(attempt, route.carriage, answer.result())
            progress(done, len(waiting))


def _told(answer: ServerReply) -> str:
    return f"{answer.result} ({answer.detail})" if answer.detail else str(answer.result)
