"""Where a run continues the chain: after the last record that is known to be the writer's own."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.read.reader import UNREADABLE, open_log, written_last
from tokgate.blocklog.records.chain import Head, stated_head
from tokgate.blocklog.records.log_state import log_continued
from tokgate.blocklog.records.record import EventAction, Record, Stamp, text_at
from tokgate.blocklog.write.checkpointer import Checkpointer
from tokgate.blocklog.write.head_journal import KnownRecords
from tokgate.blocklog.write.segment import Segment, Survey, survey

_RESTART: Final = "a restart"


@dataclass(frozen=True, slots=True)
class Continuity:
    """What a file's first own records tell: what is torn, lines of others, records that are gone, the file before.

    `previous` makes the record that this file continues another one. `last` is the last record of this file.
    """

    torn: Record | None = None
    foreign: Record | None = None
    cut: Head | None = None
    previous: Callable[[Stamp], Record] | None = None
    last: Record | None = None


def resume(
    segment: Segment, checkpointer: Checkpointer, path: Path, trouble: Callable[[Exception], None]
) -> Continuity:
    """Continue the chain that an earlier run wrote in this file or the previous one, or begin a new chain."""
    known = checkpointer.known_on_disk()
    owns = checkpointer.signed if known is None else partial(_owned, checkpointer, known)
    if segment.size:
        found = segment.survey(owns)
        goes_on = Continuity() if found.last is None else _after(found, checkpointer, known)[1]
        foreign = found.rest.foreign(path.name, found.line, running=False)
        return replace(goes_on, torn=found.rest.torn(), foreign=foreign, last=found.last)
    latest, before = None, None
    try:
        if (latest := written_last(path)) is not None:
            with open_log(latest) as stream:
                before = survey(stream, owns)
    except UNREADABLE as error:
        trouble(error)
        return _after_unread(latest, checkpointer, known)
    if before is None or before.last is None:
        unread = with_rotated(path)[:-1]
        if unread or known is None:
            return _after_unread(latest or next(reversed(unread), None), checkpointer, known)
        gone = _after_unread(None, checkpointer, known)
        return replace(gone, cut=known.written)
    head, goes_on = _after(before, checkpointer, known)
    if head is None:
        return goes_on
    previous = partial(
        log_continued, file=latest.name if latest else None, records=before.lines, size=before.size, why=_RESTART,
        last=head, torn=before.rest.torn(),
    )  # fmt: skip
    foreign = before.rest.foreign(latest.name if latest else "", before.line, running=False)
    return replace(goes_on, foreign=foreign, previous=previous)


def _owned(checkpointer: Checkpointer, known: KnownRecords, line: bytes) -> Head | None:
    """The head that a line is, if the writer is known to have made it.

    Also a checkpoint that reached the disk before its hash did: it shows whose the records before it are.
    """
    return known.owns(line) or (None if known.written is None else checkpointer.signed(line, after=known.written))


def _after(found: Survey, checkpointer: Checkpointer, known: KnownRecords | None) -> tuple[Head | None, Continuity]:
    """Continue after the last record of a file, or after a later one that is known to have been in the log.

    Returns the head that is continued; None for a new chain.
    """
    head, cut = found.head, None
    written = None if known is None else known.written
    if written is not None and (head is None or head.sequence < written.sequence):
        head = cut = written
    if head is None and known is None and found.last is not None:
        head = stated_head(found.last)
    if head is None:
        return None, Continuity()
    attested = text_at(found.last, "event", "action") == EventAction.LOG_CHECKPOINT
    attested = attested and cut is None and not found.rest.strange
    checkpointer.resume_at(head, known or KnownRecords(), attested=attested)
    return head, Continuity(cut=cut)


def _after_unread(before: Path | None, checkpointer: Checkpointer, known: KnownRecords | None) -> Continuity:
    """Continue after a file whose lines can't be read here: a damaged one, or one that is gone."""
    if known is None or known.written is None:
        return Continuity()
    checkpointer.resume_at(known.written, known, attested=False)
    name = None if before is None else before.name
    return Continuity(previous=partial(log_continued, file=name, records=0, size=0, why=_RESTART, last=known.written))
