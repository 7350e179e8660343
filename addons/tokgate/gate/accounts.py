"""What a doorkeeper asks of whoever knows the users: password files or a directory."""

from typing import Protocol

from tokgate.policy.identity import Identity
from tokgate.wire.credentials import Credentials


class AccountsError(Exception):
    """It can't be told now whether a password is right; the message says why, for the log."""


class Accounts(Protocol):
    """Whoever knows the users."""

    def identify(self, credentials: Credentials) -> Identity | None:
        """Who proved to be whom; None if the password is wrong. Blocks. Raises AccountsError."""
        ...

    def state(self) -> object:
        """Changes when what was proved before has to be proved anew; costs next to nothing."""
        ...
