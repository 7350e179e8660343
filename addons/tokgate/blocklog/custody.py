"""What makes a log trustworthy while it is written: the chain's head, the checkpoints that are due, where they go.

Used by the appender's thread only. A key that can't be read or made is trouble, never a reason not to log.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from tokgate.blocklog.chain import Head, stated_head
from tokgate.blocklog.checkpoint import Checkpoint
from tokgate.blocklog.document import EventAction, Record
from tokgate.blocklog.outlets import Outlet, outlet
from tokgate.blocklog.signing import Signer
from tokgate.policy.bans import ClientsShown, LogSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How a log is kept. `key` is the private key's file, beside the log by default.

    A checkpoint is due after `records` or `seconds`. Clients are named as `clients` says, with a new key every
    `pseudonym_days`; files are deleted after `retention_days`.
    """

    key: Path | None = None
    records: int = 1000
    seconds: float = 60.0
    forward_secure: bool = False
    outlets: tuple[Outlet, ...] = ()
    clients: ClientsShown = ClientsShown.PLAIN
    pseudonym_days: int = 30
    retention_days: int | None = None


def sealing_of(settings: LogSettings) -> Sealing:
    """What a policy's settings mean. Raises ValueError for an outlet that there is none of."""
    return Sealing(
        key=None if settings.key is None else Path(settings.key),
        forward_secure=settings.forward_security,
        outlets=tuple(outlet(target) for target in settings.checkpoint_to),
        clients=settings.clients,
        pseudonym_days=settings.pseudonym_days,
        retention_days=settings.retention_days,
    )


class Custody:
    """A chain that goes on with each record, and the checkpoints over it."""

    def __init__(self, sealing: Sealing, key: Path | None, trouble: Callable[[Exception], None]) -> None:
        """`key` is where the private key is; None: nothing is signed."""
        self.head = Head(str(uuid4()))
        self.sealing: Final = sealing
        self.attested = 0
        """The sequence up to which there is no need for another checkpoint."""
        self._key: Final = key
        self._trouble: Final = trouble
        self._signer: Signer | None = None
        self._written: Final[list[Checkpoint]] = []

    @property
    def unattested(self) -> int:
        """How many records came after the last checkpoint."""
        return self.head.sequence - self.attested

    def resume(self, last: Record) -> bool:
        """Go on after a record that was written by an earlier run; False if it belongs to no chain."""
        head = stated_head(last)
        if head is None:
            return False
        self.head = head
        self.attested = head.sequence if last["event"].get("action") == EventAction.LOG_CHECKPOINT else 0
        return True

    def checkpoint(self, head: Head, at: str) -> Checkpoint | None:
        """A checkpoint of a head; None if there is no key to sign it."""
        if self._key is None:
            self.attested = head.sequence
            return None
        try:
            if self._signer is None:
                self._signer = Signer(self._key, evolving=self.sealing.forward_secure)
            return self._signer.sign(head, at)
        except OSError as error:
            self._trouble(error)
            self.attested = head.sequence  # not to be tried again at every turn
            return None

    def wrote(self, head: Head, checkpoint: Checkpoint | None) -> None:
        """A record is wholly in the file."""
        self.head = head
        if checkpoint is not None:
            self.attested = head.sequence
            self._written.append(checkpoint)

    def synced(self) -> None:
        """All that was written is on the disk: its checkpoints may be told, and their keys be replaced."""
        while self._written:
            checkpoint = self._written.pop(0)
            if self._signer is not None:
                self._attempt(self._signer.used, checkpoint)
            for send in self.sealing.outlets:
                self._attempt(send, checkpoint.message())

    def _attempt[T](self, act: Callable[[T], None], what: T) -> None:
        try:
            act(what)
        except OSError as error:
            self._trouble(error)
