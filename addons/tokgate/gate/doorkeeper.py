"""Remembers for a while who has proved who they are, so that a password is checked once and not at each connection.

What is remembered is a keyed digest of name and password, in this process only. Checking blocks, so that it belongs
into a thread; what is remembered is known at once.
"""

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from tokgate.gate.accounts import Accounts, AccountsError, UnusablePasswordError
from tokgate.policy.bans import ProxyAuth
from tokgate.policy.identity import Identity
from tokgate.wire.credentials import Credentials

logger = logging.getLogger(__name__)

REMEMBERED: Final = 300.0
"""Seconds for which a right password is not checked again: so long somebody locked out may go on."""
REMEMBERED_WRONG: Final = 10.0
"""Seconds for which a wrong one is not: programs repeat them quickly."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks whether the accounts have changed."""
MOST: Final = 65_536
"""Digests remembered."""
AT_ONCE: Final = 2
"""Passwords checked at a time: whoever tries very many gets at most that many cores."""
AWAY: Final = 5.0
"""Seconds for which accounts that failed are not asked again, so that nobody waits in a queue before what hangs."""
COMPLAIN_EVERY: Final = 60.0
"""Seconds between two complaints that passwords can't be checked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Who it is; None: not who they say. `unavailable`: it can't be told now; `complaint`: why, once in a while."""

    identity: Identity | None
    unavailable: bool = False
    complaint: Exception | None = None


_WRONG: Final = Answer(None)
_AWAY: Final = Answer(None, unavailable=True)


class Doorkeeper:
    """Asks the accounts, and remembers. Safe to use from any thread."""

    def __init__(self, find: Callable[[], Accounts], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read yet. `find` is called where it may block: it takes large libraries to know some users."""
        self._find: Final = find
        self._accounts: Accounts | None = None
        self._finding: Final = threading.Lock()
        self._monotonic: Final = monotonic
        self._key: Final = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Answer, float]] = {}
        self._state: object = None
        self._look_at = monotonic() + LOOK_EVERY
        self._away_until = 0.0
        self._complained = -COMPLAIN_EVERY
        self._turns: Final = threading.BoundedSemaphore(AT_ONCE)

    def recall(self, credentials: Credentials) -> Answer | None:
        """What is known of them already."""
        now = self._monotonic()
        if now >= self._look_at and self._accounts is not None:
            self._look_at = now + LOOK_EVERY
            state = self._accounts.state()
            if state != self._state:
                self._state, self._known = state, {}
                self._away_until, self._complained = 0.0, -COMPLAIN_EVERY
        found = self._known.get(self._digest(credentials))
        if found is not None and found[1] > now:
            return found[0]
        return _AWAY if now < self._away_until else None

    def verify(self, credentials: Credentials) -> Answer:
        """Recall, or else check: blocks."""
        with self._turns:
            known = self.recall(credentials)  # many connections of one browser come at once
            if known is not None:
                return known
            accounts = self._found()
            remembered = self._known  # should the accounts change meanwhile, the answer goes with the old ones
            complaint: AccountsError | None = None
            try:
                identity = accounts.identify(credentials)
            except UnusablePasswordError as error:
                identity, complaint = None, error
            except AccountsError as error:
                self._away_until = self._monotonic() + AWAY
                return replace(_AWAY, complaint=self._told(error))
        answer = _WRONG if identity is None else Answer(identity)
        until = self._monotonic() + (REMEMBERED_WRONG if identity is None else REMEMBERED)
        while len(remembered) >= MOST:
            remembered.pop(next(iter(remembered)), None)
        remembered[self._digest(credentials)] = answer, until
        return answer if complaint is None else replace(answer, complaint=self._told(complaint))

    def _found(self) -> Accounts:
        with self._finding:
            if self._accounts is None:
                accounts = self._find()
                self._state = accounts.state()
                self._accounts = accounts
            return self._accounts

    def _digest(self, credentials: Credentials) -> bytes:
        said = f"{credentials.user}\0{credentials.password}".encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, said, "sha256")

    def _told(self, error: AccountsError) -> AccountsError | None:
        """The error, once it is told on standard error; None if one was a moment ago."""
        now = self._monotonic()
        if now - self._complained < COMPLAIN_EVERY:
            return None
        self._complained = now
        logger.error("users can't sign in: %s", error)
        return error


class Door:
    """The doorkeeper that the policy in force wants, if it wants one: another policy may name other accounts."""

    def __init__(self) -> None:
        """Nobody stands there yet."""
        self._stated: ProxyAuth | None = None
        self._keeper: Doorkeeper | None = None

    def keeper(self, stated: ProxyAuth | None) -> Doorkeeper | None:
        """Who to ask; None where nobody has to prove anything."""
        if stated is not self._stated:
            if stated != self._stated:
                self._keeper = None if stated is None else Doorkeeper(partial(accounts_of, stated))
            self._stated = stated
        return self._keeper


def accounts_of(stated: ProxyAuth) -> Accounts:
    """The accounts that a policy names. Their libraries are imported only where somebody has to prove anything."""
    if stated.ldap is not None:
        from tokgate.gate.directory import LdapAccounts

        return LdapAccounts(stated.ldap)
    from tokgate.gate.password_files import FileAccounts

    return FileAccounts(Path(stated.htpasswd or ""), None if stated.groups is None else Path(stated.groups))
