"""The state of one chain while it is verified. No I/O."""

from dataclasses import dataclass, field
from typing import Final

from whenever import Instant

from tokgate.blocklog.integrity.branches import Branches
from tokgate.blocklog.integrity.deletions import Deletion
from tokgate.blocklog.integrity.external_checkpoints import LinePosition
from tokgate.blocklog.integrity.trusted_keys import SigningState
from tokgate.blocklog.records.chain import Head

CLOCK_TOLERANCE: Final = 2.0
"""Seconds that a clock may be set back without a record."""


@dataclass(slots=True)
class Clock:
    """The latest checkpoint's instant, and whether a record tells since then that the clock was set back."""

    latest: Instant | None = None
    told: bool = False
    steps: int = 0
    """How often records told that the clock was set back."""

    def checkpoint(self, at: Instant | None) -> Instant | None:
        """Note a checkpoint's instant; the one before it, if that is later and no record tells why."""
        before, told, self.told = self.latest, self.told, False
        self.latest = at if at is not None else before
        if before is None or at is None or told or at >= before.subtract(seconds=CLOCK_TOLERANCE):
            return None
        return before

    def tell(self) -> None:
        """Note a record that the clock was set back."""
        self.told, self.steps = True, self.steps + 1


@dataclass(frozen=True, slots=True)
class Misfit:
    """A record whose hash its content and the record before it don't give: the one or the other was changed."""

    number: int
    place: LinePosition
    before: LinePosition


@dataclass(slots=True)
class Chain:
    """The state of one chain while it is verified.

    `begins` is the position of its first record here, `follows` the file that this one continues; `deleted`: the signed
    `log-deleted` record that names that file.
    """

    first: int
    head: Head
    place: LinePosition
    recent: Branches
    begins: LinePosition
    seal: SigningState
    follows: str | None = None
    deleted: Deletion | None = None
    records: int = 0
    unsigned_since: str | None = None
    latest: str | None = None
    clock: Clock = field(default_factory=Clock)
    misfits: list[Misfit] = field(default_factory=list)
    """Those since the last checkpoint, which shows what was changed."""

    @property
    def signed(self) -> int:
        """The number of the last record that a checkpoint in the log covers; 0 for none."""
        return 0 if self.seal.key is None else self.seal.reach - 1

    @property
    def key(self) -> str | None:
        """The key of the last trusted checkpoint; None if there is none."""
        return self.seal.key
