"""Where a run continues the chain: after the last record that is known to be the writer's own."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.paths import parquet_of, with_rotated
from tokgate.blocklog.read.reader import UNREADABLE, open_log, written_last
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.log_state import Foreign, Torn
from tokgate.blocklog.records.record import EventAction, Record, decode, text_at
from tokgate.blocklog.write.checkpointer import Checkpointer
from tokgate.blocklog.write.entries import PreviousFile
from tokgate.blocklog.write.head_journal import KnownRecords
from tokgate.blocklog.write.segment import Segment

_RESTART: Final = "a restart"


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotated file: its last record, what is torn after it or was put there, and its size in octets, decompressed."""

    name: str
    lines: int
    size: int
    last: Record
    torn: Torn | None
    foreign: Foreign | None = None


@dataclass(slots=True)
class _Rest:
    """The lines of a file after its last record, which is line `after`."""

    after: int = 0
    lines: int = 0
    size: int = 0
    ended: bool = False
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, raw: bytes) -> None:
        """Add the next line."""
        if self.ended:
            self.digest.update(b"\n")
        self.ended = raw.endswith(b"\n")
        self.size += len(raw)
        self.lines += 1
        self.digest.update(raw.removesuffix(b"\n"))

    def foreign(self, file: str) -> Foreign:
        """The lines so far as one finding: another program wrote them."""
        size = self.size - self.ended
        return Foreign(file, self.after + 1, self.lines, size, self.digest.hexdigest(), running=False)


@dataclass(frozen=True, slots=True)
class Continuity:
    """What a file's first own record has to tell: lines of others, records that are gone, the file before."""

    foreign: Foreign | None = None
    cut: Head | None = None
    previous: PreviousFile | None = None


def resume(
    segment: Segment, checkpointer: Checkpointer, path: Path, trouble: Callable[[Exception], None]
) -> Continuity:
    """Continue the chain that an earlier run wrote in this file or the previous one, or begin a new chain."""
    known = checkpointer.known_on_disk() if segment.regular else None
    if segment.last is not None:
        if known is not None:
            return _after(segment, segment.last, checkpointer, known)
        signed = segment.own_end(checkpointer.signed)
        if signed is None:
            checkpointer.resume(segment.last)
            return Continuity()
        checkpointer.resume_at(signed[0], KnownRecords(), attested=True)
        return Continuity(_rest(segment, signed[1], running=False))
    if not segment.regular or segment.size:
        return Continuity()
    latest: Path | None = None
    try:
        latest = written_last(path)
        before = None if latest is None else as_rotated(latest, None if known is None else known.owns)
    except UNREADABLE as error:
        trouble(error)
        return Continuity() if known is None else _after_unread(latest, checkpointer, known)
    unread = [*with_rotated(path)[:-1], *parquet_of(path)]
    if before is None and known is not None and unread:
        return _after_unread(latest or unread[-1], checkpointer, known)
    if known is not None:
        return _after_rotated(before, checkpointer, known)
    if before is None or not checkpointer.resume(before.last):
        return Continuity()
    return Continuity(previous=_previous(before, checkpointer.head))


def reopened(segment: Segment, checkpointer: Checkpointer) -> Foreign | None:
    """What others wrote to a file while this run had it closed."""
    known = checkpointer.known()
    if segment.last is None:
        return None
    own = segment.highest_own(known.owns)
    return None if own is None else _rest(segment, own[1], running=True)


def _after(segment: Segment, last: Record, checkpointer: Checkpointer, known: KnownRecords) -> Continuity:
    """Continue after the last line of a file that is known; `last` is its last record, whoever wrote that."""
    head = known.head_of(last)
    if head is not None and segment.holds_once(head.hash.encode()):  # else somebody copied it
        cut = _cut(head, known)
        _resume_at(checkpointer, cut or head, known, last if cut is None else None)
        return Continuity(cut=cut)
    own = segment.highest_own(lambda line: known.owns(line) or _signed_later(line, checkpointer, known))
    if own is None:
        if known.written is not None:
            _resume_at(checkpointer, known.written, known, None)
        return Continuity(cut=known.written)
    head, end = own
    cut = _cut(head, known)
    _resume_at(checkpointer, cut or head, known, None)
    return Continuity(_rest(segment, end, running=False), cut)


def _signed_later(line: bytes, checkpointer: Checkpointer, known: KnownRecords) -> Head | None:
    """A checkpoint that reached the disk before its hash did: it shows whose the records before it are."""
    head, written = checkpointer.signed(line), known.written
    if head is None or written is None or head.chain != written.chain:
        return None
    return head if head.sequence > written.sequence else None


def _after_unread(before: Path | None, checkpointer: Checkpointer, known: KnownRecords) -> Continuity:
    """Continue after a file whose lines can't be read here: a damaged one, or Parquet."""
    if known.written is None:
        return Continuity()
    _resume_at(checkpointer, known.written, known, None)
    name = None if before is None else before.name
    return Continuity(previous=PreviousFile(name, 0, 0, _RESTART, known.written))


def _after_rotated(before: Rotated | None, checkpointer: Checkpointer, known: KnownRecords) -> Continuity:
    head = None if before is None else known.head_of(before.last)
    cut = known.written if head is None else _cut(head, known)
    goes_on = cut or head
    if goes_on is None:
        return Continuity()
    _resume_at(checkpointer, goes_on, known, before.last if before is not None and cut is None else None)
    if before is None:
        return Continuity(None, cut, PreviousFile(None, 0, 0, _RESTART, goes_on))
    return Continuity(before.foreign, cut, _previous(before, goes_on))


def _resume_at(checkpointer: Checkpointer, head: Head, known: KnownRecords, last: Record | None) -> None:
    attested = text_at(last, "event", "action") == EventAction.LOG_CHECKPOINT
    checkpointer.resume_at(head, known, attested=attested)


def _cut(present: Head, known: KnownRecords) -> Head | None:
    """The last record that is in the log for certain, if the last present one is before it."""
    written = known.written
    return written if written is not None and present.sequence < written.sequence else None


def _rest(segment: Segment, end: int, *, running: bool) -> Foreign | None:
    """What stands after an offset; it is more than torn lines."""
    if end >= segment.last_end:
        return None
    segment.torn = None
    return segment.foreign(end, segment.size, segment.line_of(end), running=running)


def _previous(before: Rotated, last: Head) -> PreviousFile:
    return PreviousFile(before.name, before.lines, before.size, _RESTART, last, before.torn)


def as_rotated(path: Path, owns: Callable[[bytes], Head | None] | None = None) -> Rotated | None:
    """Read a rotated file; None if its last complete line is no record. Raises UNREADABLE.

    With `owns`, its last record is the one with the highest number of those that it knows, if there is one.
    """
    lines, size, latest, rest, owned = 0, 0, b"", _Rest(), 0
    with open_log(path) as stream:
        for raw in stream:
            lines, size = lines + 1, size + len(raw)
            head = None if owns is None else owns(raw)
            if (head is not None and head.sequence > owned) or (not owned and raw.endswith(b"\n")):
                latest, rest, owned = raw, _Rest(lines), 0 if head is None else head.sequence
            else:
                rest.add(raw)
    try:
        last = decode(latest)
    except ValueError:
        return None
    if rest.lines > 1 or rest.ended:
        return Rotated(path.name, lines, size, last, None, rest.foreign(path.name))
    torn = Torn(rest.size, rest.digest.hexdigest()) if rest.lines else None
    return Rotated(path.name, lines, size, last, torn)
