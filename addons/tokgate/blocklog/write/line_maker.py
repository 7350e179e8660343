"""Makes the lines of the appender's entries: their content, number, hash, and for checkpoints the signature."""

from collections.abc import Callable, Iterable
from typing import Final

from tokgate.blocklog.integrity.checkpoint import Checkpoint
from tokgate.blocklog.integrity.checkpointer import Checkpointer
from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.chain import Head, link
from tokgate.blocklog.records.record import Record, Stamp, encode, timestamp
from tokgate.blocklog.write.entries import CheckpointDue, Continuation, Deletion, PendingLine, QueueEntry


class LineMaker:
    """Turns entries into lines of one chain, or of none without a checkpointer."""

    def __init__(self, stamp: Callable[[], Stamp]) -> None:
        """`stamp` makes a new stamp, by the wall clock."""
        self.checkpointer: Checkpointer | None = None
        self._stamp: Final = stamp

    def make(self, entry: QueueEntry, head: Head | None, inflight: Iterable[PendingLine]) -> PendingLine | None:
        """The line of an entry after `head`, the last of `inflight`; None if there is nothing to write.

        Raises TypeError, ValueError or RecursionError for what JSON can't represent.
        """
        checkpoint = None
        if isinstance(entry, CheckpointDue):
            stamp = self._stamp()
            checkpoint = self._checkpoint(head, stamp, inflight)
            if checkpoint is None:
                return None
            record = log_state.log_checkpoint(stamp, checkpoint.as_json())
        elif isinstance(entry, Continuation):
            record = _continued(entry)
        elif isinstance(entry, Deletion):
            names = [path.name for path in entry.files]
            record = log_state.log_deleted(entry.stamp, names, entry.days, follows=entry.follows, missed=entry.missed)
        else:
            record = entry
        if head is not None:
            record, head = link(head, record)
        return PendingLine(entry, encode(record), head, checkpoint)

    def _checkpoint(self, head: Head | None, stamp: Stamp, inflight: Iterable[PendingLine]) -> Checkpoint | None:
        if self.checkpointer is None or head is None:
            return None
        coming = [(line.head, line.checkpoint is not None) for line in inflight if line.head is not None]
        return self.checkpointer.checkpoint(head, timestamp(stamp.at), coming)


def _continued(entry: Continuation) -> Record:
    previous = entry.previous
    return log_state.log_continued(
        entry.stamp,
        file=previous.name,
        records=previous.lines,
        size=previous.size,
        why=previous.why,
        last=previous.last,
        torn=previous.torn,
    )
