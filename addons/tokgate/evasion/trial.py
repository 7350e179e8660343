"""Makes attempts through the user's own gateway, and says of each whether it was stopped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final

from tokgate.evasion.attempt import Attempt, Opens
from tokgate.evasion.carrying import AttemptRoute, Carriage, make
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.limits import Limit
from tokgate.evasion.stream import Result, ServerReply, Target

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
        return TrialResult.PASSED if self.limit is None else TrialResult.DOCUMENTED

    @property
    def limit(self) -> Limit | None:
        """The documented limit by which it may pass; None: it has to be stopped."""
        return self.attempt.limit


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
        Unfit: the server isn't reached, or the name isn't banned for this client.

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
