"""An authentication cache: a password is checked once in a while, and not at each connection.

The keys are keyed digests of name and password, in the memory of this process. `verify` blocks and belongs in a
thread; `recall` does not block.
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

from tokgate.accounts import Accounts, AccountsError, UnusablePasswordError
from tokgate.policy.membership import Identity
from tokgate.policy.settings import ProxyAuth
from tokgate.wire.proxy_request import Credentials

logger = logging.getLogger(__name__)

REMEMBERED: Final = 300.0
"""Seconds for which a right password is cached: a user who is locked out may continue for as long."""
REMEMBERED_WRONG: Final = 10.0
"""Seconds for which a wrong password is cached: programs repeat them quickly."""
LOOK_EVERY: Final = 1.0
"""Seconds between two checks whether the accounts have changed."""
MOST: Final = 65_536
"""Maximum entries of the cache."""
AT_ONCE: Final = 2
"""Passwords checked at a time: guessing uses at most as many cores."""
AWAY: Final = 5.0
"""Seconds without a check after accounts have failed, so that no queue builds up before a server that hangs."""
COMPLAIN_EVERY: Final = 60.0
"""Seconds between two log lines that say that passwords can't be checked."""


@dataclass(frozen=True, slots=True)
class AuthResult:
    """The result of a check. `identity` is None for a wrong password.

    `unavailable`: the password can't be checked now; `complaint`: the cause, at most once a minute.
    """

    identity: Identity | None
    unavailable: bool = False
    complaint: Exception | None = None


_WRONG: Final = AuthResult(None)
_AWAY: Final = AuthResult(None, unavailable=True)


class AuthCache:
    """Checks passwords with user accounts and caches the results. Safe to use from any thread."""

    def __init__(self, find: Callable[[], Accounts], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """`find` opens the accounts at the first check; it may block, since it imports large libraries."""
        self._find: Final = find
        self._accounts: Accounts | None = None
        self._finding: Final = threading.Lock()
        self._monotonic: Final = monotonic
        self._key: Final = secrets.token_bytes()
        self._known: dict[bytes, tuple[AuthResult, float]] = {}
        self._state: object = None
        self._look_at = monotonic() + LOOK_EVERY
        self._away_until = 0.0
        self._complained = -COMPLAIN_EVERY
        self.failure: str | None = None
        """Why the last password could not be checked; None once one could."""
        self._turns: Final = threading.BoundedSemaphore(AT_ONCE)

    def recall(self, credentials: Credentials) -> AuthResult | None:
        """The cached result, or None if there is none. Does not block."""
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

    def verify(self, credentials: Credentials) -> AuthResult:
        """The cached result, or that of a check, which is then cached. Blocks."""
        with self._turns:
            known = self.recall(credentials)  # many connections of one browser come at once
            if known is not None:
                return known
            accounts = self._found()
            remembered = self._known  # if the accounts change meanwhile, the result goes into the old cache
            complaint: AccountsError | None = None
            try:
                identity = accounts.identify(credentials)
            except UnusablePasswordError as error:
                identity, complaint = None, error
            except AccountsError as error:
                self.failure = str(error)
                self._away_until = self._monotonic() + AWAY
                return replace(_AWAY, complaint=self._told(error))
        self.failure = None
        answer = _WRONG if identity is None else AuthResult(identity)
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
        """Log an error at most every COMPLAIN_EVERY seconds; None if it was not logged."""
        now = self._monotonic()
        if now - self._complained < COMPLAIN_EVERY:
            return None
        self._complained = now
        logger.error("users can't sign in: %s", error)
        return error


class CurrentAuthCache:
    """The authentication cache for the policy in force. Other accounts in a new policy get a new cache."""

    def __init__(self) -> None:
        self._stated: ProxyAuth | None = None
        self._cache: AuthCache | None = None

    @property
    def failure(self) -> str | None:
        """Why passwords can't be checked now; empty as far as nobody has found that, None where there are none."""
        return None if self._cache is None else self._cache.failure or ""

    def of(self, stated: ProxyAuth | None) -> AuthCache | None:
        """The cache for these settings; None if the policy states no `proxy_auth`."""
        if stated is not self._stated:
            if stated != self._stated:
                self._cache = None if stated is None else AuthCache(partial(accounts_of, stated))
            self._stated = stated
        return self._cache


def accounts_of(stated: ProxyAuth) -> Accounts:
    """The accounts that a policy names. Libraries are imported here, so that only policies with accounts load them."""
    if stated.ldap is not None:
        from tokgate.accounts.ldap import LdapAccounts

        return LdapAccounts(stated.ldap)
    from tokgate.accounts.htpasswd import FileAccounts

    return FileAccounts(Path(stated.htpasswd or ""), None if stated.groups is None else Path(stated.groups))
