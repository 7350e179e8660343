"""What a doorkeeper asks of whoever knows the users: password files or a directory."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from tokgate.policy.identity import Identity
from tokgate.wire.credentials import Credentials


class AccountsError(Exception):
    """It can't be told now whether a password is right; the message says why, for the log."""


class UnusablePasswordError(AccountsError):
    """It can't be told of one user, until somebody sets their password anew."""


class Accounts(Protocol):
    """Whoever knows the users."""

    def identify(self, credentials: Credentials) -> Identity | None:
        """Who proved to be whom; None if the password is wrong. Blocks. Raises AccountsError."""
        ...

    def state(self) -> object:
        """Changes when what was proved before has to be proved anew; costs next to nothing."""
        ...

    def lacks(self, users: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
        """What of these it is known not to have, and who can't sign in, in words. Blocks. Raises AccountsError."""
        ...
