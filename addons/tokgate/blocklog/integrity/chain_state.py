"""The state of one chain while it is verified: what its records say of each other, and what a checkpoint says of them.

No I/O.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from whenever import Instant

from tokgate.blocklog.integrity.checkpoint import Checkpoint, tree_root
from tokgate.blocklog.integrity.trusted_keys import LinePosition, SigningState
from tokgate.blocklog.paths import bare_name, end_of_archive
from tokgate.blocklog.records.chain import Head, is_hash, proper_hash
from tokgate.blocklog.records.record import EventAction, Record, counted, instant_in, instant_of, text_at, value_at


class FindingCode(StrEnum):
    """The kind of a finding; docs/log.md explains each."""

    CHANGED = "changed"
    """The content does not give the hash that the record states."""
    MISSING = "missing"
    """Records were removed, or a file is missing."""
    ORDER = "order"
    """The record stands after one with a higher number: moved, or copied."""
    UNCHAINED = "unchained"
    """A record of no chain: inserted, or stripped of its fields."""
    TORN = "torn"
    """A line that is no record, and that no recovery record mentions."""
    RECOVERY = "recovery"
    """A recovery record for torn lines that don't exist."""
    SIGNATURE = "signature"
    """A checkpoint whose signature doesn't verify, or that signs another record than the one before it."""
    KEY = "key"
    """A checkpoint by an untrusted key. Reported once for each key."""
    UNSIGNED = "unsigned"
    """More records without a checkpoint than the writer leaves."""
    CUT = "cut"
    """An external checkpoint attests records that the log doesn't have."""
    CONTRADICTED = "contradicted"
    """An external checkpoint attests another hash for this record number."""
    NEW_CHAIN = "new-chain"
    """A record of another chain in the middle of a file."""
    DELETED = "deleted"
    """A `log-deleted` record that retention doesn't explain."""
    FOREIGN = "foreign"
    """A line that tokgate did not write, although its number and hash may fit; or a record that declares such lines."""
    CLOCK = "clock"
    """A checkpoint that is earlier than the one before it, and no record tells that the clock was set back."""
    UNREADABLE = "unreadable"
    """The rest of a file can't be read: damaged, or cut short."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and its position; `line` counts from 1."""

    file: str
    line: int
    code: FindingCode
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} [{self.code}]"


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

    at_least: float = 0
    """Days for which the policy has files kept; infinity: for good."""
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
        if isinstance(days, int) and days < self.at_least:
            kept = "for good" if math.isinf(self.at_least) else f"for {counted(round(self.at_least), 'day')}"
            yield f"this record says that files were deleted after {counted(days, 'day')}: the policy keeps them {kept}"
        for name in _names(said, "files"):
            ended = end_of_archive(name)
            if deletion is None or ended is None or ended > deletion.over:
                yield f"this record says that tokgate deleted {name} before its time was over (days: {days})"
            else:
                self.named[bare_name(name)] = deletion


def _names(said: object, key: str) -> list[str]:
    names = value_at(said, key)
    return [str(name) for name in names] if isinstance(names, list) else []


_MOST: Final = 20_000
"""Most records that are kept; without a checkpoint for so long there is nothing to decide by."""


@dataclass(slots=True)
class RecentRecord:
    """A record, and the one before it; None at the first that is kept."""

    head: Head
    place: LinePosition
    parent: "RecentRecord | None" = None


class RecentRecords:
    """The records of one chain since its last checkpoint, and which of them the next checkpoint leads back to.

    Whoever can write to a log can append a record whose number and hash fit. The writer's next record continues the one
    that it wrote itself. So two records claim one number, and the checkpoint decides.
    """

    def __init__(self, first: RecentRecord) -> None:
        self.head = first
        """The record that the next one follows."""
        self._by_number: dict[int, list[RecentRecord]] = {first.head.sequence: [first]}
        self._count = 1

    def rival(self, record: Record, head: Head) -> RecentRecord | None:
        """The record that this one follows, where another one claims its number; None if nothing is as it should be."""
        claimed = [node.head.hash for node in self._by_number.get(head.sequence, ())]
        if head.hash in claimed or not (claimed or head.sequence == self.head.head.sequence + 1):
            return None  # a copy, or out of order
        before = reversed(self._by_number.get(head.sequence - 1, ()))
        return next((node for node in before if proper_hash(node.head.hash, record) == head.hash), None)

    def add(self, head: Head, place: LinePosition, parent: RecentRecord | None = None) -> None:
        """The next record, by default after the current one."""
        self.head = RecentRecord(head, place, parent or self.head)
        self._by_number.setdefault(head.sequence, []).append(self.head)
        self._count += 1
        if self._count > _MOST and len(self._by_number) == self._count:
            self._restart()

    def hashes(self, first: int) -> list[bytes] | None:
        """The hashes from a record number up to the one before the current; None if not all are kept."""
        found: list[bytes] = []
        node = self.head.parent
        while node is not None and node.head.sequence >= first:
            found.append(bytes.fromhex(node.head.hash))
            node = node.parent
        found.reverse()
        return found if len(found) == self.head.head.sequence - first else None

    def settle(self) -> Iterator[RecentRecord]:
        """The records to which the current one doesn't lead back, in the order of their lines; all are forgotten."""
        if len(self._by_number) != self._count:  # some number is claimed twice
            way: set[int] = set()
            node: RecentRecord | None = self.head
            while node is not None:
                way.add(id(node))
                node = node.parent
            lost = [one for nodes in self._by_number.values() for one in nodes if id(one) not in way]
            yield from sorted(lost, key=lambda one: one.place)
        self._restart()

    def _restart(self) -> None:
        self.head.parent = None
        self._by_number, self._count = {self.head.head.sequence: [self.head]}, 1


_BETWEEN_RUNS: Final = {
    EventAction.LOG_RECOVERED,
    EventAction.LOG_FOREIGN,
    EventAction.LOG_CUT,
    EventAction.LOG_CONTINUED,
    EventAction.LOG_DELETED,
    EventAction.LOG_GAP,
    EventAction.LOG_CHECKPOINT,
    EventAction.ACCESS_LOG_ROTATED,
    EventAction.CLOCK_SET_BACK,
    EventAction.CLOCK_SET_FORWARD,
    EventAction.STARTED,
}
"""Records that may stand after a run that ended in order, since the next one begins with them."""


@dataclass(slots=True)
class Runs:
    """What the records of a chain say of runs: `started`, `stopped`, a last checkpoint, and then `started` again.

    Nothing is known before the first `started`, or where earlier records are not here.
    """

    known: bool
    stopped: bool = False
    over: bool = False
    """Whether the last run ended in order, and a checkpoint covers that."""
    late: list[LinePosition] = field(default_factory=list)
    """Records since, which no run can have written, and no checkpoint covers."""
    begun: int | None = None
    """The number of a `started` that no checkpoint covers yet; the writer signs it at once."""
    counted: Instant | None = None
    """Up to when this run counted its traffic."""
    excused: bool = False
    """Whether a count may have been lost, or the clock was set, since then."""

    def add(self, record: Record, place: LinePosition, number: int) -> str | None:
        """Note a record; what is wrong with it, in words."""
        action = text_at(record, "event", "action")
        if self.over and action not in _BETWEEN_RUNS:
            self.late.append(place)
        match action:
            case EventAction.STARTED:
                self.known, self.stopped, self.over, self.begun = True, False, False, number
                self.counted, self.excused = instant_of(record), False
            case EventAction.STOPPED:
                self.stopped = self.known
            case EventAction.LOG_GAP | EventAction.CLOCK_SET_BACK | EventAction.CLOCK_SET_FORWARD:
                self.excused = True
            case EventAction.COVERAGE_COUNTED:
                since, before, excused = instant_in(text_at(record, "tokgate", "since")), self.counted, self.excused
                self.counted, self.excused = instant_of(record), False
                if since is None or before is None or excused:
                    return None
                if since > before.add(seconds=CLOCK_TOLERANCE):
                    return f"this count begins at {since}, and the one before it ended at {before}: one is not here"
        return None

    def signed(self) -> None:
        """Note a trusted checkpoint over all records until now."""
        self.over, self.begun = self.stopped, None
        self.late.clear()


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
        """Note when a checkpoint was made. Returns the time of the one before if it is later and no record says why."""
        before, told, self.told = self.latest, self.told, False
        self.latest = at if at is not None else before
        if before is None or at is None or told or at >= before.subtract(seconds=CLOCK_TOLERANCE):
            return None
        return before

    def tell(self) -> None:
        """Note a record that the clock was set back."""
        self.told, self.steps = True, self.steps + 1


@dataclass(slots=True)
class Chain:
    """The state of one chain while it is verified.

    `begins` is the position of its first record here, `follows` the file that this one continues; `deleted`: the signed
    `log-deleted` record that names that file.
    """

    first: int
    head: Head
    place: LinePosition
    recent: RecentRecords
    begins: LinePosition
    seal: SigningState
    follows: str | None = None
    deleted: Deletion | None = None
    records: int = 0
    unsigned_since: str | None = None
    latest: str | None = None
    clock: Clock = field(default_factory=Clock)
    runs: Runs = field(default_factory=lambda: Runs(known=False))
    misfits: list[tuple[int, LinePosition, LinePosition]] = field(default_factory=list)
    """Records whose hash their content and the record before don't give: number, place, and that of the one before.

    Those since the last checkpoint, which shows which of the two was changed.
    """

    @property
    def signed(self) -> int:
        """The number of the last record that a checkpoint in the log covers; 0 for none."""
        return 0 if self.seal.key is None else self.seal.reach - 1

    @property
    def key(self) -> str | None:
        """The key of the last trusted checkpoint; None if there is none."""
        return self.seal.key


def new_chain(place: LinePosition, record: Record, head: Head) -> Chain:
    """The state of a chain after its first record in these files."""
    follows = text_at(record, "tokgate", "continues", "file")
    return Chain(
        head.sequence,
        head,
        place,
        RecentRecords(RecentRecord(head, place)),
        place,
        SigningState(head.sequence - 1),
        follows,
        runs=Runs(known=head.sequence > 1),
    )


def signs_another(chain: Chain, checkpoint: Checkpoint, before: str | None) -> str | None:
    """What a genuine checkpoint signs, in words, if that isn't the records before it."""
    among = f"some of the records {chain.seal.reach + 1} to {chain.head.sequence - 1} were written anew"
    if checkpoint.head.sequence != chain.head.sequence - 1 or (before and checkpoint.head.hash != before):
        return f"this checkpoint signs another record than the one before it: {among}"
    if checkpoint.tree is not None:
        leaves = chain.recent.hashes(checkpoint.tree.first)
        if leaves and tree_root(leaves).hex() != checkpoint.tree.root:
            return f"this checkpoint's tree is of other records than those before it: {among}"
    return None


def foreign(chain: Chain) -> Iterator[Finding]:
    """Findings for records that the present one doesn't continue, and forget those before it."""
    for node in chain.recent.settle():
        what = f"this is not record {node.head.sequence} of the chain that goes on: it was put in"
        yield Finding(*node.place, FindingCode.FOREIGN, f"{what}, with a number and a hash that fit")


def misfit(chain: Chain, place: LinePosition, record: Record, head: Head) -> Iterator[Finding]:
    """A finding for a record that does not fit the one before it, if it shows itself which of the two was changed."""
    stated = continues(record, head)
    if stated is not None and proper_hash(stated, record) == head.hash:
        what = f"record {head.sequence - 1} is not the one with which the next file goes on: it was written anew"
        yield Finding(*chain.place, FindingCode.CHANGED, f"{what}, with a hash that fits, and maybe others before it")
    else:
        chain.misfits.append((head.sequence, place, chain.place))


def changed(chain: Chain, *, signed: bool | None) -> Iterator[Finding]:
    """Findings for records that do not fit, and forget them.

    `signed`: a checkpoint signs the hashes that the records state; False: it signs others; None: unknown.
    """
    for number, place, before in chain.misfits:
        what = f"the content of record {number} does not give its hash"
        if signed or place == before:
            yield Finding(*place, FindingCode.CHANGED, what)
        elif signed is False and len(chain.misfits) == 1:
            what = f"record {number - 1} is not the one that the next record follows: it was written anew"
            yield Finding(*before, FindingCode.CHANGED, f"{what}, with a hash that fits, and maybe others before it")
        else:
            yield Finding(*place, FindingCode.CHANGED, f"{what}, or the record before it was written anew")
    chain.misfits.clear()


def follow(chain: Chain, place: LinePosition, record: Record, head: Head) -> tuple[str | None, Finding | None]:
    """The hash that must precede a record, if it is known, and a finding if its number is wrong."""
    last, number = chain.head, head.sequence
    if number == last.sequence + 1:
        return last.hash, None
    if number > last.sequence:
        gap = (
            f"record {number - 1} is"
            if number == last.sequence + 2
            else f"records {last.sequence + 1} to {number - 1} are"
        )
        what, file = f"{gap} missing before record {number}", text_at(record, "tokgate", "continues", "file")
        return continues(record, head), Finding(
            *place, FindingCode.MISSING, what if file is None else f"{what}; the last of them were in {file}"
        )
    consecutive = proper_hash(last.hash, record) == head.hash  # if so, the previous record's number was changed
    what = f"record {number} stands after record {last.sequence}: moved, copied or renumbered"
    return last.hash if consecutive else None, Finding(*place, FindingCode.ORDER, what)


def continues(record: Record, head: Head) -> str | None:
    """The last hash of the previous file, as this file's first record states it; None if it states none."""
    continues = value_at(record, "tokgate", "continues")
    if value_at(continues, "sequence") != head.sequence - 1:
        return None
    stated = value_at(continues, "hash")
    return str(stated) if is_hash(stated) else None
