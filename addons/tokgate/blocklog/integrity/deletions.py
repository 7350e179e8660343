"""What `log-deleted` records say: which files tokgate deleted, and whether their list is unbroken. No I/O."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from whenever import Instant

from tokgate.blocklog.paths import bare_name, end_of_archive
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.record import Record, instant_of, text_at, value_at

_MOST_DAYS: Final = 36_500


@dataclass(frozen=True, slots=True)
class Deletion:
    """A `log-deleted` record: its position in the chain, after how many days, and which instant was as long ago."""

    head: Head
    days: int
    over: Instant


@dataclass(slots=True)
class Deletions:
    """The files that records name, with those records."""

    named: dict[str, Deletion] = field(default_factory=dict)
    begun: bool = False

    def add(self, record: Record, head: Head) -> Iterator[str]:
        """Note a record; yields what is wrong with it, in words. A file younger than it says isn't noted."""
        said, at = value_at(record, "tokgate", "deleted"), instant_of(record)
        days = value_at(said, "days")
        deletion = None
        if at is not None and isinstance(days, int) and 1 <= days <= _MOST_DAYS:
            deletion = Deletion(head, days, at.subtract(hours=24 * days))
        follows = text_at(said, "follows")
        if self.begun and follows is not None and bare_name(follows) not in self.named:
            yield f"the files that this record names continue {follows}, and no record tells that tokgate deleted that"
        self.begun = True
        for name in _names(said, "missed"):
            yield f"tokgate would have deleted {name} now, and it was gone already: somebody else deleted it"
        for name in _names(said, "files"):
            ended = end_of_archive(name)
            if deletion is None or ended is None or ended > deletion.over:
                yield f"this record says that tokgate deleted {name} before its time was over (days: {days})"
            else:
                self.named[bare_name(name)] = deletion

    def of(self, name: str) -> Deletion | None:
        """The record that says that tokgate deleted a file."""
        return self.named.get(bare_name(name))


def _names(said: object, key: str) -> list[str]:
    names = value_at(said, key)
    return [str(name) for name in names] if isinstance(names, list) else []
