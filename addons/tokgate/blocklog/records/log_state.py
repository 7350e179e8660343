"""Records about the log itself: gaps, files, what was torn, deleted or put in, signatures. No clock, no I/O."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.record import EventAction, Record, Stamp, counted, decode, frame, pruned, timestamp

_MAX_TORN: Final = 16
"""Most torn lines at a file's end: each is from a run that was killed before it wrote a record."""


@dataclass(slots=True)
class StrayLines:
    """Consecutive lines that are none of the writer's records: how many, their octets, a digest of them."""

    lines: int = 0
    size: int = 0
    ended: bool = False
    digest: Any = field(default_factory=hashlib.sha256)
    strange: bool = False
    """Whether any is more than part of a record or zeros, which a kill or a power failure leaves."""

    def add(self, raw: bytes) -> None:
        """Add the next line, or the next part of a long one."""
        if self.ended:
            self.digest.update(b"\n")
        if self.ended or not self.size:
            self.lines += 1
            self.strange |= self.lines > _MAX_TORN or raw[:1] not in (b"{", b"\0") or record_in(raw) is not None
        self.ended = raw.endswith(b"\n")
        self.size += len(raw)
        self.digest.update(raw.removesuffix(b"\n"))

    def said(self) -> Record:
        """What a record says of them: their octets but for a last newline, SHA-256 over those, how many lines."""
        return {"bytes": self.size - self.ended, "sha256": self.digest.hexdigest(), "lines": self.lines}

    def torn(self) -> Record | None:
        """`said` of what a killed run left; None if there are none, or if others wrote any of them."""
        return None if not self.lines or self.strange else self.said()

    def foreign(self, file: str, after: int, *, running: bool) -> Record | None:
        """`said` of what another program wrote after a line; None if nothing shows that.

        `running`: while the writer had the file open.
        """
        if not self.strange and not running:
            return None
        return self.said() | {"line": after + 1, "file": file, "running": running}


def record_in(line: bytes) -> Record | None:
    """The record of a line; None if it holds none, as part of one does."""
    try:
        return decode(line)
    except ValueError:
        return None


def _told(
    stamp: Stamp, action: EventAction, message: str, own: Record, *, succeeded: bool = True, reason: str | None = None
) -> Record:
    kinds = ("change",) if action in (EventAction.CLOCK_SET_BACK, EventAction.CLOCK_SET_FORWARD) else ("info",)
    record = frame(stamp, action, message, category=("process",), kinds=kinds, succeeded=succeeded, reason=reason)
    return record | {"tokgate": pruned(own)}


def log_gap(stamp: Stamp, dropped: int, since: Instant, until: Instant) -> Record:
    """Records were dropped because the log could not be written."""
    were = "was" if dropped == 1 else "were"
    when = f"between {timestamp(since)} and {timestamp(until)}"
    message = f"{counted(dropped, 'record')} {were} dropped {when}; enforcement went on."
    gap = {"dropped": dropped, "since": timestamp(since), "until": timestamp(until)}
    return _told(stamp, EventAction.LOG_GAP, message, {"gap": gap}, succeeded=False)


def log_continued(
    stamp: Stamp,
    *,
    file: str | None,
    records: int,
    size: int,
    why: str,
    last: Head | None = None,
    torn: Record | None = None,
) -> Record:
    """The first record of a new file: the previous file (None if it is gone), its lines and its octets.

    `last` is the previous file's last record; `torn` its incomplete last line, which is written again in this file.
    """
    content = f" ({counted(records, 'record')}, {counted(size, 'byte')})" if size else ""
    message = f"The log continues from {file or 'a file that is gone'}{content}: {why}."
    continues = {"file": file, "records": records, "bytes": size}
    if last is not None and last.sequence:
        continues |= {"sequence": last.sequence, "hash": last.hash}
    own = {"continues": continues, "torn": torn and _torn(torn)}
    return _told(stamp, EventAction.LOG_CONTINUED, message, own, reason=why)


def log_recovered(stamp: Stamp, torn: Record) -> Record:
    """The lines before this record are torn, as `StrayLines` says. A newline was added, and nothing deleted."""
    what = "The line before this one is" if torn["lines"] == 1 else f"The {torn['lines']} lines before this one are"
    message = f"{what} torn: {counted(torn['bytes'], 'byte')} of records whose writing was interrupted."
    return _told(stamp, EventAction.LOG_RECOVERED, message, {"torn": _torn(torn)})


def log_deleted(
    stamp: Stamp, files: Sequence[str], days: int, *, follows: str | None = None, missed: Sequence[str] = ()
) -> Record:
    """Files of the log were deleted because they were older than `days`.

    `follows` is the file that the first of them continues; `missed` are those that belong between them and were gone.
    """
    were = "was" if len(files) == 1 else "were"
    message = f"{counted(len(files), 'file')} of the log {were} older than {counted(days, 'day')}: deleted."
    deleted = {"files": list(files), "days": days, "follows": follows, "missed": list(missed)}
    return _told(stamp, EventAction.LOG_DELETED, message, {"deleted": deleted})


def access_log_rotated(stamp: Stamp, rotated: Record) -> Record:
    """The file of who looked into the log was rotated, as `access_log.rotate` says."""
    message = f"Looks into this log until now: {counted(rotated['lines'], 'line')} in {rotated['file']}."
    return _told(stamp, EventAction.ACCESS_LOG_ROTATED, message, {"access_log": rotated})


def log_checkpoint(stamp: Stamp, checkpoint: Record) -> Record:
    """A signature over the previous record's hash, and so over all records before it; `checkpoint` is its JSON."""
    message = f"Checkpoint: all up to record {checkpoint['sequence']} of this chain is signed."
    return _told(stamp, EventAction.LOG_CHECKPOINT, message, {"checkpoint": checkpoint})


def log_foreign(stamp: Stamp, foreign: Record) -> Record:
    """Another program wrote to the log, as `StrayLines` says. It stays, and the chain continues the record before."""
    lines, were = counted(foreign["lines"], "line"), "was" if foreign["lines"] == 1 else "were"
    when = "while tokgate was writing it" if foreign["running"] else "since tokgate last wrote it"
    where = f"from line {foreign['line']} of {foreign['file']}"
    message = f"{lines} of this log, {where}, {were} not written by tokgate: {when}."
    return _told(stamp, EventAction.LOG_FOREIGN, message, {"foreign": foreign}, succeeded=False)


def log_cut(stamp: Stamp, last: Head) -> Record:
    """The log ends before the last record that tokgate wrote."""
    message = f"Records up to {last.sequence} of this chain were written, and the last of them are gone from the log."
    cut = {"sequence": last.sequence, "hash": last.hash}
    return _told(stamp, EventAction.LOG_CUT, message, {"cut": cut}, succeeded=False)


def clock_set_back(stamp: Stamp, before: Instant) -> Record:
    """The wall clock is earlier than it was at an earlier record, `before`."""
    seconds = (before - stamp.at).total("seconds")
    message = f"The clock was set back by {seconds:.1f} s, from {timestamp(before)}: times repeat from here on."
    return _clock(stamp, EventAction.CLOCK_SET_BACK, message, before, seconds)


def clock_set_forward(stamp: Stamp, due: Instant) -> Record:
    """The wall clock is later than it has to be by a clock that nobody can set, which says `due`."""
    seconds = (stamp.at - due).total("seconds")
    message = f"The clock was set forward by {seconds:.1f} s, from {timestamp(due)}."
    return _clock(stamp, EventAction.CLOCK_SET_FORWARD, message, due, seconds)


def _clock(stamp: Stamp, action: EventAction, message: str, before: Instant, seconds: float) -> Record:
    rounded = round(seconds, 3)
    number = int(rounded) if rounded.is_integer() else rounded  # one spelling in JSON: 3600, not 3600.0
    return _told(stamp, action, message, {"clock": {"before": timestamp(before), "seconds": number}})


def _torn(torn: Record) -> Record:
    return {key: value for key, value in torn.items() if key != "lines" or value != 1}
