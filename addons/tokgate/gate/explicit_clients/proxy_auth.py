"""Authenticates explicit clients of a gate, in threads where checking a password takes a while."""

from collections.abc import Callable
from functools import partial
from typing import Final

from tokgate.accounts.auth_cache import AT_ONCE, AuthCache, AuthResult, CurrentAuthCache
from tokgate.gate.background import BackgroundCalls
from tokgate.gate.connection import Connection
from tokgate.gate.context import Context, Waiting
from tokgate.wire.proxy_request import Credentials

MOST_WAITING: Final = 512
"""Maximum clients that wait for a password check; others get an error."""


class ClientAuthentication:
    """Authenticates explicit clients, if the policy in force requires it: sets `Connection.person`."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context
        self.current: Final = CurrentAuthCache()
        self._checks: BackgroundCalls | None = None

    def close(self) -> None:
        """End the threads."""
        if self._checks is not None:
            self._checks.close()

    def cache(self) -> AuthCache | None:
        """The authentication cache; None if the policy requires no authentication."""
        return self.current.of(self._context.enforcer.snapshot.settings.proxy_auth)

    def authenticate(
        self,
        connection: Connection,
        cache: AuthCache,
        credentials: Credentials | None,
        go_on: Callable[[], None],
        *,
        wrong: bytes,
        unavailable: bytes,
    ) -> None:
        """Call `go_on` when the client is authenticated: at once by the cache, else after a check in a thread.

        `wrong` is the answer to a wrong password, `unavailable` the one if passwords can't be checked.
        """
        enforcer = self._context.enforcer

        def take(answer: AuthResult) -> None:
            connection.person = answer.identity
            if answer.identity is not None:
                go_on()
                return
            if answer.complaint is not None:
                enforcer.failed("proxy-auth", answer.complaint)
            elif credentials is not None and not answer.unavailable:
                enforcer.counters.wrong_passwords += 1
            self._context.refuse(connection, unavailable if answer.unavailable else wrong)

        known = AuthResult(None) if credentials is None else cache.recall(credentials)
        if known is not None:
            take(known)
        elif credentials is not None:
            self._check(connection, partial(cache.verify, credentials), take)

    def _check(
        self, connection: Connection, verify: Callable[[], AuthResult], take: Callable[[AuthResult], None]
    ) -> None:
        """Check a password in a thread; only this client waits for it."""
        context, reading = self._context, connection.state
        if self._checks is None:
            self._checks = BackgroundCalls(AT_ONCE)
            context.loop.call_back(self._checks.descriptor, self._checks.deliver)
        if self._checks.waiting >= MOST_WAITING:
            take(AuthResult(None, unavailable=True))
            return
        waiting = Waiting(context)

        def answered(answer: AuthResult) -> None:
            if connection.state is waiting:  # else the connection has ended meanwhile
                context.listen(connection, reading)
                take(answer)

        context.wait(connection, waiting, context.limits.greeting)
        self._checks.run(verify, answered, AuthResult(None, unavailable=True))
