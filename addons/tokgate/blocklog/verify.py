"""Whether a log is what was written: every record's hash, number and place, and the checkpoints, here or elsewhere.

Reads in one pass and constant memory. It says where something is wrong and what, and goes on from there.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.chain import NO_HASH, Head, is_hash, proper_hash, stated_head
from tokgate.blocklog.checkpoint import Checkpoint, checkpoint_of
from tokgate.blocklog.document import EventAction, Record
from tokgate.blocklog.ordering import LONGEST_LINE, Opener, decode_strictly, in_order
from tokgate.blocklog.reader import open_log, text_at, value_at

_TICK: Final = 10_000


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
    """A checkpoint by another key than the one trusted, and those that it announced."""
    CUT = "cut"
    """A checkpoint kept elsewhere attests what the log does not have."""
    CONTRADICTED = "contradicted"
    """A checkpoint kept elsewhere attests another record in this place."""
    NEW_CHAIN = "new-chain"
    """A chain begins in the middle of a file that had one."""
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
    """What was found of one chain. `signed` is the last record that a checkpoint in the log covers."""

    first: int
    head: Head
    place: tuple[str, int]
    records: int = 0
    signed: int = 0
    epoch: int = 0
    key: str | None = None
    next_key: str | None = None


@dataclass(slots=True)
class _Rubble:
    """Lines in a row that are no records."""

    lines: list[tuple[str, int]] = field(default_factory=list)
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    open_end: bool = False

    def add(self, place: tuple[str, int], raw: bytes) -> None:
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
    """Verifies files. `trusted` is a public key as in checkpoints; None accepts the first one of each chain."""

    def __init__(
        self, trusted: str | None = None, elsewhere: Iterable[Checkpoint] = (), opener: Opener = open_log
    ) -> None:
        """`elsewhere` are checkpoints that were kept off the machine; those that aren't genuine are passed over."""
        self._opener: Final = opener
        self.chains: Final[dict[str, Chain]] = {}
        self.lines = 0
        self.unfinished: tuple[str, int] | None = None
        """A last line without its end, in the last file: a crash whose writer has not come back, or one at work."""
        self._trusted: Final[set[str] | None] = None if trusted is None else {trusted}
        self._elsewhere: Final[dict[str, dict[int, Checkpoint]]] = {}
        for checkpoint in sorted(elsewhere, key=lambda one: (one.head.chain, one.head.sequence)):
            if checkpoint.genuine and self._trusts(checkpoint):
                self._elsewhere.setdefault(checkpoint.head.chain, {})[checkpoint.head.sequence] = checkpoint
        self._rubble = _Rubble()
        self._first_of_file = True

    def run(self, files: Iterable[Path], tick: Callable[[int], None] = lambda _: None) -> Iterator[Finding]:
        """All findings, in the order of the log. `tick` hears now and then how many lines were read. Raises OSError."""
        for path in in_order(files, self._opener):
            self._first_of_file = True
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
        yield from self._cut()

    def _line(self, place: tuple[str, int], raw: bytes) -> Iterator[Finding]:
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
        self._first_of_file = False

    def _recovery(self, place: tuple[str, int], record: Record) -> Iterator[Finding]:
        action = text_at(record, "event", "action")
        tells = action == EventAction.LOG_RECOVERED or (
            action == EventAction.LOG_CONTINUED and value_at(record, "tokgate", "torn") is not None
        )
        if not tells:
            yield from self._untold()
        elif self._rubble.told_by(record):
            self._rubble = _Rubble()
        elif self._rubble.lines or not (self._first_of_file and action == EventAction.LOG_CONTINUED):
            yield from self._untold()
            yield Finding(*place, Code.RECOVERY, "what this record says is torn before it is not there")

    def _untold(self) -> Iterator[Finding]:
        """What was met is no record, and nothing tells of it."""
        for place in self._rubble.lines:
            yield Finding(*place, Code.TORN, "this is no record, and no recovery record tells of it")
        self._rubble = _Rubble()

    def _record(self, place: tuple[str, int], record: Record, head: Head) -> Iterator[Finding]:
        chain = self.chains.get(head.chain)
        if chain is None:
            before, finding = self._begin(place, record, head)
            chain = self.chains[head.chain] = Chain(head.sequence, head, place)
        else:
            before, finding = _follow(chain, place, record, head)
        if finding is not None:
            yield finding
            if finding.code is Code.ORDER and before is None:
                return
        if before is not None and proper_hash(before, record) != head.hash:
            yield Finding(*place, Code.CHANGED, f"the content of record {head.sequence} does not give its hash")
        chain.head, chain.place, chain.records = head, place, chain.records + 1
        kept = self._elsewhere.get(head.chain, {}).get(head.sequence)
        if kept is not None and kept.head.hash != head.hash:
            what = f"the checkpoint of {kept.at} attests another record {head.sequence} than this one"
            yield Finding(*place, Code.CONTRADICTED, what)
        if text_at(record, "event", "action") == EventAction.LOG_CHECKPOINT:
            yield from self._checkpoint(place, chain, record, before)

    def _begin(self, place: tuple[str, int], record: Record, head: Head) -> tuple[str | None, Finding | None]:
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

    def _checkpoint(
        self, place: tuple[str, int], chain: Chain, record: Record, before: str | None
    ) -> Iterator[Finding]:
        checkpoint = checkpoint_of(chain.head.chain, value_at(record, "tokgate", "checkpoint"))
        if checkpoint is None or not checkpoint.genuine:
            yield Finding(*place, Code.SIGNATURE, "this checkpoint's signature is not genuine")
            return
        if checkpoint.head.sequence != chain.head.sequence - 1 or (before and checkpoint.head.hash != before):
            yield Finding(*place, Code.SIGNATURE, "this checkpoint signs something else than the record before it")
            return
        expected = chain.key is None or checkpoint.key in (chain.key, chain.next_key)
        if not self._trusts(checkpoint) or not expected or checkpoint.epoch < chain.epoch:
            yield Finding(*place, Code.KEY, f"this checkpoint is signed by a key that is not trusted: {checkpoint.key}")
            return
        chain.key, chain.next_key, chain.epoch = checkpoint.key, checkpoint.next_key, checkpoint.epoch
        chain.signed = chain.head.sequence - 1

    def _trusts(self, checkpoint: Checkpoint) -> bool:
        """Whether the key trusted signed this, or one that it led to. What it announces is trusted from then on."""
        if self._trusted is None:
            return True
        if checkpoint.key not in self._trusted:
            return False
        if checkpoint.next_key is not None:
            self._trusted.add(checkpoint.next_key)
        return True

    def _cut(self) -> Iterator[Finding]:
        """What is attested, here or elsewhere, and isn't there; what should be attested and isn't."""
        for name, kept in self._elsewhere.items():
            chain, last = self.chains.get(name), kept[max(kept)]
            if chain is None and self._trusted is not None:
                what = (
                    f"chain {name}, attested up to record {last.head.sequence} by the checkpoint of {last.at}, is gone"
                )
                yield Finding("checkpoints", 1, Code.CUT, what)
            elif chain is not None and last.head.sequence > chain.head.sequence:
                what = f"the checkpoint of {last.at} attests record {last.head.sequence}; the log ends here, at record "
                yield Finding(*chain.place, Code.CUT, f"{what}{chain.head.sequence}: its tail was cut")
        for name, chain in self.chains.items():
            if self._trusted is not None and not chain.signed:
                what = f"no checkpoint of chain {name} is signed by the key that is trusted"
                yield Finding(*chain.place, Code.KEY, what)


def _follow(chain: Chain, place: tuple[str, int], record: Record, head: Head) -> tuple[str | None, Finding | None]:
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
