"""Whether a log is what was written: every record's hash, number and place, and the checkpoints, here or elsewhere.

Reads in one pass and constant memory. It says where something is wrong and what, and goes on from there.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.chain import NO_HASH, Head, is_hash, proper_hash, stated_head
from tokgate.blocklog.checkpoint import checkpoint_of
from tokgate.blocklog.document import EventAction, Record
from tokgate.blocklog.kept import Attestations, Kept, Place
from tokgate.blocklog.ordering import LONGEST_LINE, Opener, decode_strictly, in_order
from tokgate.blocklog.reader import instant_in, open_log, text_at, value_at
from tokgate.blocklog.trust import Signed, Trust

_TICK: Final = 10_000
MOST_UNSIGNED: Final = 1_500
"""Records in a row without a checkpoint from which on something is wrong: the writer makes one after a thousand."""
LONGEST_UNSIGNED: Final = 600.0
"""Seconds that the last ones may tell of: the writer waits for a minute."""


class Code(StrEnum):
    """What can be wrong."""

    CHANGED = "changed"
    """The content does not give the hash that the record states."""
    MISSING = "missing"
    """Records were taken out, or a file is not there."""
    ORDER = "order"
    """The record stands after one with a higher number: moved, or copied."""
    UNCHAINED = "unchained"
    """A record of no chain: put in, or stripped."""
    TORN = "torn"
    """No record, and no recovery record tells of it."""
    RECOVERY = "recovery"
    """A recovery record for what isn't there."""
    SIGNATURE = "signature"
    """A checkpoint that its key did not sign, or that was signed over something else."""
    KEY = "key"
    """A checkpoint by another key than those trusted, and those that they announced. Told once of each key."""
    UNSIGNED = "unsigned"
    """More records without a checkpoint than the writer leaves."""
    CUT = "cut"
    """A checkpoint kept elsewhere attests what the log does not have."""
    CONTRADICTED = "contradicted"
    """A checkpoint kept elsewhere attests another record in this place."""
    NEW_CHAIN = "new-chain"
    """A record of another chain in the middle of a file."""
    COLUMNS = "columns"
    """A compacted file whose columns say something else than its lines, or its lines than the file it was made of."""
    UNREADABLE = "unreadable"
    """The rest of a file can't be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and where; `line` counts from 1."""

    file: str
    line: int
    code: Code
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} [{self.code}]"


@dataclass(slots=True)
class Chain:
    """What was found of one chain.

    `begins` is where its first record here stands, `follows` the file that this continues; `deleted`: a record tells
    that this file's time was over.
    """

    first: int
    head: Head
    place: Place
    begins: Place
    seal: Signed
    follows: str | None = None
    deleted: bool = False
    records: int = 0
    unsigned_since: str | None = None
    latest: str | None = None

    @property
    def signed(self) -> int:
        """The last record that a checkpoint in the log covers; 0: none is."""
        return 0 if self.seal.key is None else self.seal.reach - 1

    @property
    def key(self) -> str | None:
        """What signed last."""
        return self.seal.key


@dataclass(slots=True)
class _Rubble:
    """Lines in a row that are no records."""

    lines: list[Place] = field(default_factory=list)
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    open_end: bool = False

    def add(self, place: Place, raw: bytes) -> None:
        if self.lines:
            self.size += 1
            self.digest.update(b"\n")
        content = raw.removesuffix(b"\n")
        self.size += len(content)
        self.digest.update(content)
        self.lines.append(place)
        self.open_end = content is raw

    def told_by(self, record: Record) -> bool:
        told = value_at(record, "tokgate", "torn")
        return (
            value_at(told, "bytes") == self.size
            and value_at(told, "sha256") == self.digest.hexdigest()
            and (value_at(told, "lines") or 1) == len(self.lines)
        )


class Verifier:
    """Verifies files. `trusted` are public keys as in checkpoints, in the order in which they took over.

    Without any, the first key of each chain is accepted. `whole`: the files are all there is of the log, so that what
    came before them must be told to have been deleted.
    """

    def __init__(
        self,
        trusted: Sequence[str] = (),
        elsewhere: Iterable[Kept] = (),
        opener: Opener = open_log,
        *,
        whole: bool = False,
    ) -> None:
        """`elsewhere` are checkpoints that were kept off the machine."""
        self._opener: Final = opener
        self._whole: Final = whole
        self.chains: Final[dict[str, Chain]] = {}
        self.lines = 0
        self.unfinished: Place | None = None
        """A last line without its end, in the last file: a crash whose writer has not come back, or one at work."""
        self._trust: Final = Trust(trusted)
        self.elsewhere: Final = Attestations(elsewhere, self._trust.accepts)
        self._deleted: Final[set[str]] = set()
        self._rubble = _Rubble()
        self._in_this_file: set[str] = set()

    def run(self, files: Iterable[Path], tick: Callable[[int], None] = lambda _: None) -> Iterator[Finding]:
        """All findings, in the order of the log. `tick` hears now and then how many lines were read. Raises OSError."""
        for path in in_order(files, self._opener):
            self._in_this_file = set()
            with self._opener(path) as stream:
                number = 0
                try:
                    while raw := stream.readline(LONGEST_LINE):
                        number += 1
                        self.lines += 1
                        if self.lines % _TICK == 0:
                            tick(self.lines)
                        yield from self._line((str(path), number), raw)
                except (OSError, EOFError, ValueError) as error:
                    yield Finding(str(path), number + 1, Code.UNREADABLE, f"the rest can't be read: {error}")
        if self._rubble.open_end and len(self._rubble.lines) == 1:
            self.unfinished = self._rubble.lines[0]
            self._rubble = _Rubble()
        yield from self._untold()
        for chain in self.chains.values():
            chain.deleted = chain.follows is not None and _bare(chain.follows) in self._deleted
            yield from self._before(chain)
            yield from self._unsigned(chain, chain.place, ended=True)
        yield from self._cut()

    @property
    def _first_of_file(self) -> bool:
        return not self._in_this_file

    def _line(self, place: Place, raw: bytes) -> Iterator[Finding]:
        record, repeated = decode_strictly(raw)
        if record is None:
            self._rubble.add(place, raw)
            return
        if repeated is not None:
            yield Finding(*place, Code.CHANGED, f"the key {repeated!r} stands in it twice")
        head = stated_head(record)
        if head is None:
            yield from self._untold()
            yield Finding(*place, Code.UNCHAINED, "this record belongs to no chain: it was put in, or stripped")
            return
        yield from self._recovery(place, record)
        yield from self._record(place, record, head)
        self._in_this_file.add(head.chain)

    def _recovery(self, place: Place, record: Record) -> Iterator[Finding]:
        action = text_at(record, "event", "action")
        tells = action == EventAction.LOG_RECOVERED or (
            action == EventAction.LOG_CONTINUED and value_at(record, "tokgate", "torn") is not None
        )
        if not tells:
            yield from self._untold()
        elif self._rubble.told_by(record):
            self._rubble = _Rubble()
        elif self._rubble.lines or not (self._first_of_file and self._file_before_is_not_here(record)):
            yield from self._untold()
            yield Finding(*place, Code.RECOVERY, "what this record says is torn before it is not there")

    def _file_before_is_not_here(self, record: Record) -> bool:
        head = stated_head(record)
        known = None if head is None else self.chains.get(head.chain)
        return known is None or head is None or known.head.sequence != head.sequence - 1

    def _untold(self) -> Iterator[Finding]:
        """What was met is no record, and nothing tells of it."""
        for place in self._rubble.lines:
            yield Finding(*place, Code.TORN, "this is no record, and no recovery record tells of it")
        self._rubble = _Rubble()

    def _record(self, place: Place, record: Record, head: Head) -> Iterator[Finding]:
        chain = self.chains.get(head.chain)
        if chain is None:
            before, finding = self._begin(place, record, head)
            follows = text_at(record, "tokgate", "continues", "file")
            seal = Signed(head.sequence - 1)
            chain = self.chains[head.chain] = Chain(head.sequence, head, place, place, seal, follows)
        else:
            before, finding = _follow(chain, place, record, head)
        if (
            self._in_this_file
            and head.chain not in self._in_this_file
            and (finding is None or finding.code is not Code.NEW_CHAIN)
        ):
            yield Finding(*place, Code.NEW_CHAIN, f"from here on there are records of another chain, {head.chain}")
        if finding is not None:
            yield finding
            if finding.code is Code.ORDER and before is None:
                return
        if before is not None and proper_hash(before, record) != head.hash:
            yield Finding(*place, Code.CHANGED, f"the content of record {head.sequence} does not give its hash")
        chain.head, chain.place, chain.records = head, place, chain.records + 1
        chain.latest = text_at(record, "@timestamp")
        chain.unsigned_since = chain.unsigned_since or chain.latest
        kept = self.elsewhere.against(head)
        if kept is not None:
            file, line = kept.place
            what = f"the checkpoint of {kept.checkpoint.at} ({file}:{line}) attests another record {head.sequence}"
            yield Finding(*place, Code.CONTRADICTED, f"{what} than this one")
        match text_at(record, "event", "action"):
            case EventAction.LOG_CHECKPOINT:
                yield from self._checkpoint(place, chain, record, before)
            case EventAction.LOG_DELETED:
                files = value_at(record, "tokgate", "deleted", "files")
                self._deleted.update(_bare(str(name)) for name in (files if isinstance(files, list) else ()))

    def _begin(self, place: Place, record: Record, head: Head) -> tuple[str | None, Finding | None]:
        """The hash before a chain's first record here, and what is wrong with it."""
        if head.sequence == 1:
            if self._first_of_file:
                return NO_HASH, None
            return NO_HASH, Finding(*place, Code.NEW_CHAIN, "another chain begins here, in the middle of a file")
        continued = _continues(record, head)
        if continued is not None and self._first_of_file:
            return continued, None
        what = f"record {head.sequence} stands first: what came before it in its file is missing"
        return continued, Finding(*place, Code.MISSING, what)

    def _checkpoint(self, place: Place, chain: Chain, record: Record, before: str | None) -> Iterator[Finding]:
        checkpoint = checkpoint_of(chain.head.chain, value_at(record, "tokgate", "checkpoint"))
        if checkpoint is None or not checkpoint.genuine:
            yield Finding(*place, Code.SIGNATURE, "this checkpoint's signature is not genuine")
            return
        if checkpoint.head.sequence != chain.head.sequence - 1 or (before and checkpoint.head.hash != before):
            among = f"some of the records {chain.seal.reach + 1} to {chain.head.sequence - 1} were written anew"
            what = f"this checkpoint signs another record than the one before it: {among}"
            yield Finding(*place, Code.SIGNATURE, what)
            return
        if not self._trust.accepts(checkpoint) or not self._trust.in_turn(chain.seal, checkpoint):
            if checkpoint.key not in chain.seal.strange:
                chain.seal.strange.add(checkpoint.key)
                what = f"this checkpoint is signed by a key that is not trusted here: {checkpoint.key}"
                yield Finding(*place, Code.KEY, what)
            return
        yield from self._unsigned(chain, place, ended=False)
        chain.seal.by(checkpoint)
        chain.unsigned_since = None

    def _before(self, chain: Chain) -> Iterator[Finding]:
        """What came before the first file, where all files should be here."""
        if self._whole and chain.follows is not None and not chain.deleted:
            gone = f"records 1 to {chain.first - 1} are not here (the last were in {chain.follows})"
            what = f"{gone}, and no record tells that tokgate deleted them"
            yield Finding(*chain.begins, Code.MISSING, what)

    def _unsigned(self, chain: Chain, place: Place, *, ended: bool) -> Iterator[Finding]:
        """Records that stayed without a checkpoint for longer than the writer lets them.

        A time is looked at only at the chain's end: a run that was killed may be followed by another days later.
        """
        if chain.key is None:  # never signed at all, which is told as a whole
            return
        first, last = chain.seal.reach + 1, chain.head.sequence
        since, latest = instant_in(chain.unsigned_since), instant_in(chain.latest)
        seconds = (latest - since).total("seconds") if ended and since is not None and latest is not None else 0.0
        if last - first >= MOST_UNSIGNED or seconds > LONGEST_UNSIGNED:
            what = f"records {first} to {last} stand without a checkpoint, which is due after 1,000 records or a minute"
            why = "they were written anew, or tokgate could not use its key"
            yield Finding(*place, Code.UNSIGNED, f"{what}: {why}")

    def _cut(self) -> Iterator[Finding]:
        """What is attested, here or elsewhere, and isn't there; what should be attested and isn't."""
        for kept in self.elsewhere.last():
            last, head = kept.checkpoint, kept.checkpoint.head
            chain = self.chains.get(head.chain)
            if chain is None and self._trust:
                what = f"chain {head.chain}, attested up to record {head.sequence} by this checkpoint, is gone"
                yield Finding(*kept.place, Code.CUT, what)
            elif chain is not None and head.sequence > chain.head.sequence:
                file, line = kept.place
                what = f"the checkpoint of {last.at} ({file}:{line}) attests record {head.sequence}; the log ends here,"
                yield Finding(*chain.place, Code.CUT, f"{what} at record {chain.head.sequence}: its tail was cut")
        for first, other in self.elsewhere.conflicts():
            file, line = first.place
            what = f"this checkpoint and that of {file}:{line} attest different records"
            number = f"{other.checkpoint.head.sequence} of chain {other.checkpoint.head.chain}"
            yield Finding(*other.place, Code.CONTRADICTED, f"{what} {number}: the key signed two logs")
        for name, chain in self.chains.items():
            if self._trust and chain.key is None:
                what = f"no checkpoint of chain {name} is signed by the key that is trusted"
                yield Finding(*chain.place, Code.KEY, what)


def _bare(name: str) -> str:
    """A file's name without what says how it is packed."""
    return Path(name.removesuffix(".gz").removesuffix(".zst")).stem


def _follow(chain: Chain, place: Place, record: Record, head: Head) -> tuple[str | None, Finding | None]:
    """The hash that has to stand before a record, if that is known, and what is wrong with its place."""
    last, number = chain.head, head.sequence
    if number == last.sequence + 1:
        return last.hash, None
    if number > last.sequence:
        gap = (
            f"record {number - 1} is"
            if number == last.sequence + 2
            else f"records {last.sequence + 1} to {number - 1} are"
        )
        return _continues(record, head), Finding(*place, Code.MISSING, f"{gap} missing before record {number}")
    consecutive = proper_hash(last.hash, record) == head.hash  # then the number of the one before it was changed
    what = f"record {number} stands after record {last.sequence}: moved, copied or renumbered"
    return last.hash if consecutive else None, Finding(*place, Code.ORDER, what)


def _continues(record: Record, head: Head) -> str | None:
    """The last hash of the file before this one, as its first record states it."""
    continues = value_at(record, "tokgate", "continues")
    if value_at(continues, "sequence") != head.sequence - 1:
        return None
    stated = value_at(continues, "hash")
    return str(stated) if is_hash(stated) else None
