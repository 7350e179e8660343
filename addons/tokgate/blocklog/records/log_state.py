"""Records about the log itself: gaps, files, what was torn, deleted or put in, signatures. No clock, no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from whenever import Instant

from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.record import EventAction, Record, Stamp, counted, frame, pruned, timestamp


@dataclass(frozen=True, slots=True)
class Torn:
    """Incomplete lines at a file's end, mostly one: `size` in octets, and SHA-256 over all but the last newline."""

    size: int
    sha256: str
    lines: int = 1


@dataclass(frozen=True, slots=True)
class Foreign:
    """What another program wrote to a log: `size` octets from `line` of `file` on, SHA-256 over all but a last newline.

    `running`: while the writer had the file open.
    """

    file: str
    line: int
    lines: int
    size: int
    sha256: str
    running: bool


def log_gap(stamp: Stamp, dropped: int, since: Instant, until: Instant) -> Record:
    """Records were dropped because the log could not be written."""
    were = "was" if dropped == 1 else "were"
    when = f"between {timestamp(since)} and {timestamp(until)}"
    message = f"{counted(dropped, 'record')} {were} dropped {when}; enforcement went on."
    record = frame(stamp, EventAction.LOG_GAP, message, category=("process",), kinds=("info",), succeeded=False)
    gap = {"dropped": dropped, "since": timestamp(since), "until": timestamp(until)}
    return record | {"tokgate": {"gap": gap}}


def log_continued(
    stamp: Stamp,
    *,
    file: str | None,
    records: int,
    size: int,
    why: str,
    last: Head | None = None,
    torn: Torn | None = None,
) -> Record:
    """The first record of a new file: the previous file (None if it is gone), its lines and its octets.

    `last` is the previous file's last record; `torn` its incomplete last line, which is written again in this file.
    """
    content = f" ({counted(records, 'record')}, {counted(size, 'byte')})" if size else ""
    message = f"The log continues from {file or 'a file that is gone'}{content}: {why}."
    record = frame(stamp, EventAction.LOG_CONTINUED, message, category=("process",), kinds=("info",), reason=why)
    continues = {"file": file, "records": records, "bytes": size}
    if last is not None and last.sequence:
        continues |= {"sequence": last.sequence, "hash": last.hash}
    return record | pruned({"tokgate": {"continues": continues, "torn": torn and _torn(torn)}})


def log_recovered(stamp: Stamp, torn: Torn) -> Record:
    """The lines before this record are torn: their size and digest. A newline was added, and nothing deleted."""
    what = "The line before this one is" if torn.lines == 1 else f"The {torn.lines} lines before this one are"
    message = f"{what} torn: {counted(torn.size, 'byte')} of records whose writing was interrupted."
    record = frame(stamp, EventAction.LOG_RECOVERED, message, category=("process",), kinds=("info",))
    return record | {"tokgate": {"torn": _torn(torn)}}


def log_deleted(
    stamp: Stamp, files: Sequence[str], days: int, *, follows: str | None = None, missed: Sequence[str] = ()
) -> Record:
    """Files of the log were deleted because they were older than `days`.

    `follows` is the file that the first of them continues; `missed` are those that belong between them and were gone.
    """
    were = "was" if len(files) == 1 else "were"
    message = f"{counted(len(files), 'file')} of the log {were} older than {counted(days, 'day')}: deleted."
    record = frame(stamp, EventAction.LOG_DELETED, message, category=("process",), kinds=("info",))
    deleted = {"files": list(files), "days": days, "follows": follows, "missed": list(missed)}
    return record | {"tokgate": {"deleted": pruned(deleted)}}


def access_log_rotated(stamp: Stamp, file: str, lines: int, sha256: str) -> Record:
    """The file of who looked into the log was rotated: `sha256` is over what is in it, uncompressed."""
    message = f"Looks into this log until now: {counted(lines, 'line')} in {file}."
    record = frame(stamp, EventAction.ACCESS_LOG_ROTATED, message, category=("process",), kinds=("info",))
    return record | {"tokgate": {"access_log": {"file": file, "lines": lines, "sha256": sha256}}}


def log_checkpoint(stamp: Stamp, checkpoint: Record) -> Record:
    """A signature over the previous record's hash, and so over all records before it; `checkpoint` is its JSON."""
    message = f"Checkpoint: all up to record {checkpoint['sequence']} of this chain is signed."
    record = frame(stamp, EventAction.LOG_CHECKPOINT, message, category=("process",), kinds=("info",))
    return record | {"tokgate": {"checkpoint": checkpoint}}


def log_foreign(stamp: Stamp, foreign: Foreign) -> Record:
    """Another program wrote to the log: which lines. They stay, and the chain continues the record before them."""
    lines = counted(foreign.lines, "line")
    when = "while tokgate was writing it" if foreign.running else "since tokgate last wrote it"
    where = f"from line {foreign.line} of {foreign.file}"
    message = f"{lines} of this log, {where}, {'was' if foreign.lines == 1 else 'were'} not written by tokgate: {when}."
    kinds = ("info",)
    record = frame(stamp, EventAction.LOG_FOREIGN, message, category=("process",), kinds=kinds, succeeded=False)
    said = {"bytes": foreign.size, "sha256": foreign.sha256, "lines": foreign.lines, "line": foreign.line}
    return record | {"tokgate": {"foreign": said | {"file": foreign.file, "running": foreign.running}}}


def log_cut(stamp: Stamp, last: Head) -> Record:
    """The log ends before the last record that tokgate wrote."""
    message = f"Records up to {last.sequence} of this chain were written, and the last of them are gone from the log."
    record = frame(stamp, EventAction.LOG_CUT, message, category=("process",), kinds=("info",), succeeded=False)
    return record | {"tokgate": {"cut": {"sequence": last.sequence, "hash": last.hash}}}


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
    record = frame(stamp, action, message, category=("process",), kinds=("change",))
    rounded = round(seconds, 3)
    number = int(rounded) if rounded.is_integer() else rounded  # one spelling in JSON: 3600, not 3600.0
    return record | {"tokgate": {"clock": {"before": timestamp(before), "seconds": number}}}


def _torn(torn: Torn) -> Record:
    said = {"bytes": torn.size, "sha256": torn.sha256}
    return said if torn.lines == 1 else said | {"lines": torn.lines}
