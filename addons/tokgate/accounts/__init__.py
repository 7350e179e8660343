"""Who an explicit-proxy client is: password files or an LDAP directory, and a cache of what was checked."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from tokgate.policy.membership import Identity
from tokgate.wire.proxy_request import Credentials


class AccountsError(Exception):
    """A password can't be checked now. The message gives the cause, for the log; it quotes no password."""


class UnusablePasswordError(AccountsError):
    """One user can't sign in with any password: the hash is not supported, or the directory has locked the account."""


class Accounts(Protocol):
    """What explicit clients are authenticated against: password files, or an LDAP directory."""

    def identify(self, credentials: Credentials) -> Identity | None:
        """The user whose password this is, with groups; None if it is wrong. Blocks. Raises AccountsError."""

    def state(self) -> object:
        """A value that changes when cached results are no longer valid. Cheap: called once a second."""

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """A message for each kind of name that the database does not have, and for users who can't sign in.

        Blocks. Raises AccountsError.
        """
