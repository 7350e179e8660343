"""Authenticates explicit clients of a gate, in threads where checking a password takes a while.

In HTTP a client sends its password with its request (RFC 9110 §11.7), in SOCKS 5 before it (RFC 1929).
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from tokgate.accounts.auth_cache import AT_ONCE, AuthCache, AuthResult, CurrentAuthCache
from tokgate.gate.connection import WAITING, Connection, Greeting, SocksStep
from tokgate.gate.explicit_clients.background import BackgroundCalls
from tokgate.gate.explicit_clients.loop import Loop
from tokgate.traffic import refusal_texts
from tokgate.traffic.enforcer import Enforcer
from tokgate.wire import socks5
from tokgate.wire.basic_auth import ACCEPTED, REJECTED, Credentials, read_basic, read_password

MOST_WAITING: Final = 512
"""Maximum clients that wait for a password check; others get an error."""


class ClientAuthentication:
    """Authenticates explicit clients, if the policy in force requires it: sets `Connection.person`."""

    def __init__(self, loop: Loop, enforcer: Enforcer, patience: float) -> None:
        """`patience`: seconds that a password check may take."""
        self._loop: Final = loop
        self._enforcer: Final = enforcer
        self._patience: Final = patience
        self._current: Final = CurrentAuthCache()
        self._checks: BackgroundCalls | None = None

    def close(self) -> None:
        if self._checks is not None:
            self._checks.close()

    @property
    def failure(self) -> str | None:
        """Why passwords can't be checked, in words; empty if they can, None where none are needed."""
        return self._current.failure

    def cache(self) -> AuthCache | None:
        """The authentication cache; None if the policy requires no authentication."""
        return self._current.of(self._enforcer.snapshot.settings.proxy_auth)

    def in_http(self, connection: Connection, said: bytes, go_on: Callable[[], None]) -> None:
        """Authenticate a request by its `Proxy-Authorization` field, `said`; then `go_on`, or refuse it."""
        cache = self.cache()
        if cache is None:
            go_on()
        else:
            wrong, unavailable = refusal_texts.SIGN_IN, refusal_texts.UNAVAILABLE
            self._identify(connection, cache, read_basic(said.decode("latin-1")), go_on, wrong, unavailable)

    def in_socks(
        self, connection: Connection, greeting: Greeting, cache: AuthCache, go_on: Callable[[Greeting], None]
    ) -> None:
        """Authenticate a SOCKS client by what it has sent so far; then `go_on` once its request has begun."""
        try:
            held = bytes(connection.held)
            methods = socks5.read_methods(held, password=True)
            if methods is not None and greeting.reader is None:
                greeting.reader = SocksStep.METHOD_CHOSEN
                if not self._loop.say(connection, socks5.PASSWORD_CHOSEN):
                    return
            said = None if methods is None else read_password(held[methods:])
        except socks5.SocksError as error:
            self._loop.refuse(connection, error.reply)
        except ValueError:
            self._loop.refuse(connection, REJECTED)
        else:
            if methods is None or said is None:
                self._loop.wait_for_greeting(connection)
                return
            credentials, length = said
            signed_in = partial(self._signed_in, connection, methods + length, go_on)
            self._identify(connection, cache, credentials, signed_in, REJECTED, REJECTED)

    def _signed_in(self, connection: Connection, length: int, go_on: Callable[[Greeting], None]) -> None:
        connection.state = greeting = Greeting(SocksStep.SIGNED_IN)
        connection.held = connection.held[length:]
        if not self._loop.say(connection, ACCEPTED):
            return
        if connection.held:
            go_on(greeting)
        else:
            self._loop.wait_for_greeting(connection)

    def _identify(
        self,
        connection: Connection,
        cache: AuthCache,
        credentials: Credentials | None,
        go_on: Callable[[], None],
        wrong: bytes,
        unavailable: bytes,
    ) -> None:
        """Call `go_on` when the client is authenticated: at once by the cache, else after a check in a thread.

        `wrong` is the answer to a wrong password, `unavailable` the one if passwords can't be checked.
        """

        def take(answer: AuthResult) -> None:
            connection.person = answer.identity
            if answer.identity is not None:
                go_on()
                return
            if answer.complaint is not None:
                self._enforcer.failed("proxy-auth", answer.complaint)
            elif credentials is not None and not answer.unavailable:
                self._enforcer.counters.wrong_passwords += 1
            self._loop.refuse(connection, unavailable if answer.unavailable else wrong)

        known = AuthResult(None) if credentials is None else cache.recall(credentials)
        if known is not None:
            take(known)
        elif credentials is not None:
            self._check(connection, partial(cache.verify, credentials), take)

    def _check(
        self, connection: Connection, verify: Callable[[], AuthResult], take: Callable[[AuthResult], None]
    ) -> None:
        """Check a password in a thread; only this client waits for it."""
        if self._checks is None:
            self._checks = BackgroundCalls(AT_ONCE)
            self._loop.call_back(self._checks.descriptor, self._checks.deliver)
        if self._checks.waiting >= MOST_WAITING:
            take(AuthResult(None, unavailable=True))
            return

        def answered(answer: AuthResult) -> None:
            if connection.state is WAITING:  # else the connection has ended meanwhile
                self._loop.listen(connection)
                take(answer)

        self._loop.suspend(connection, self._patience)
        self._checks.run(verify, answered, AuthResult(None, unavailable=True))
