"""How explicit clients of a gate say who they are, and how that is checked without stopping its loop.

In HTTP a client says it with its request (RFC 9110 §11.7), in SOCKS 5 before it (RFC 1929).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from tokgate.gate.connection import Connection, State
from tokgate.gate.doorkeeper import AT_ONCE, Answer, Door, Doorkeeper
from tokgate.gate.relay import DONT_WAIT
from tokgate.gate.resolver import Errands
from tokgate.policy.identity import Identity
from tokgate.wire import socks5
from tokgate.wire.credentials import ACCEPTED, REJECTED, Credentials, read_basic, read_password

if TYPE_CHECKING:
    from tokgate.gate.gate import Gate

_WHO_ASKS: Final = b"tokgate: the proxy has to know who asks: name and password are missing or wrong.\n"
_AUTHENTICATE: Final = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="tokgate", charset="UTF-8"\r\n'
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_WHO_ASKS), _WHO_ASKS)
)
_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
MOST_WAITING: Final = 512
"""Clients whose passwords wait to be checked; more are told to come again."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who a client of SOCKS has proved to be, before it says what it wants."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class No:
    """What is said to a wrong password, and when none can be checked."""

    wrong: bytes
    unavailable: bytes


_NO_IN_HTTP: Final = No(_AUTHENTICATE, _UNAVAILABLE)
_NO_IN_SOCKS: Final = No(REJECTED, REJECTED)


class Introductions:
    """Knows, or has it found out, who an explicit client is, where the policy in force wants to know."""

    def __init__(self, gate: "Gate") -> None:
        self._gate: Final = gate
        self._door: Final = Door()
        self._checks: Errands | None = None

    def close(self) -> None:
        """Check no more passwords."""
        if self._checks is not None:
            self._gate.epoll.unregister(self._checks.descriptor)
            self._checks.close()

    def keeper(self) -> Doorkeeper | None:
        """Who checks passwords; None where nobody has to prove anything."""
        return self._door.keeper(self._gate.enforcer.snapshot.settings.proxy_auth)

    def in_http(self, connection: Connection, said: bytes, go_on: Callable[[Identity | None], None]) -> None:
        """Go on with a request whose `Proxy-Authorization` is `said`; or tell the client that it can't."""
        keeper = self.keeper()
        if keeper is None:
            go_on(None)
        else:
            self._identify(connection, keeper, read_basic(said.decode("latin-1")), go_on, _NO_IN_HTTP)

    def in_socks(self, connection: Connection, keeper: Doorkeeper, go_on: Callable[[], None]) -> None:
        """Read who a client of SOCKS is, as far as it has said it; go on when there is more, and it is known."""
        try:
            methods = socks5.read_methods(connection.held, password=True)
            if methods is not None and not connection.greeting:
                connection.greeting = True
                connection.client.send(socks5.PASSWORD_CHOSEN, DONT_WAIT)
            said = None if methods is None else read_password(connection.held[methods:])
        except socks5.SocksError as error:
            self._gate.refuse(connection, error.reply)
            return
        except ValueError:
            self._gate.refuse(connection, REJECTED)
            return
        except OSError:
            self._gate.close(connection)
            return
        if methods is None or said is None:
            self._gate.wait_for_greeting(connection)
            return
        credentials, length = said
        introduced = partial(self._introduced, connection, methods + length, go_on)
        self._identify(connection, keeper, credentials, introduced, _NO_IN_SOCKS)

    def _introduced(self, connection: Connection, length: int, go_on: Callable[[], None], identity: Identity) -> None:
        connection.greeting = Introduction(identity)
        connection.held = connection.held[length:]
        try:
            connection.client.send(ACCEPTED, DONT_WAIT)
        except OSError:
            self._gate.close(connection)
            return
        if connection.held:
            go_on()
        else:
            self._gate.wait_for_greeting(connection)

    def _identify(
        self,
        connection: Connection,
        keeper: Doorkeeper,
        credentials: Credentials | None,
        go_on: Callable[[Identity], None],
        no: No,
    ) -> None:
        """Go on when it is known who asks: at once if they were known, else when a thread has checked the password."""

        def take(answer: Answer) -> None:
            if answer.identity is not None:
                go_on(answer.identity)
            else:
                self._count(answer, asked=credentials is not None)
                self._gate.refuse(connection, no.unavailable if answer.unavailable else no.wrong)

        known = Answer(None) if credentials is None else keeper.recall(credentials)
        if known is not None:
            take(known)
        elif credentials is not None:
            self._check(connection, partial(keeper.verify, credentials), take)

    def _count(self, answer: Answer, *, asked: bool) -> None:
        if answer.complaint is not None:
            self._gate.enforcer.failed("proxy-auth", answer.complaint)
        elif asked and not answer.unavailable:
            self._gate.enforcer.counters.wrong_passwords += 1

    def _check(self, connection: Connection, verify: Callable[[], Answer], take: Callable[[Answer], None]) -> None:
        """Have a password checked in a thread; meanwhile the client waits, and nobody else does."""
        gate = self._gate
        if self._checks is None:
            self._checks = Errands(AT_ONCE)
            gate.callbacks[self._checks.descriptor] = self._checks.deliver
            gate.epoll.register(self._checks.descriptor, 1)
        if self._checks.waiting >= MOST_WAITING:
            take(Answer(None, unavailable=True))
            return

        def answered(answer: Answer) -> None:
            if connection.state is State.WAITING:  # else it has ended meanwhile
                connection.state = State.GREETING
                gate.watch_client(connection)  # tells again what came meanwhile
                take(answer)

        connection.state = State.WAITING
        connection.deadline = gate.now + gate.limits.greeting
        gate.watch_greeting(connection)
        self._checks.run(verify, answered)
