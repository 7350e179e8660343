"""Retention of the log: which rotated files are old enough, whether any is gone already, and when they are deleted.

Files are deleted by a time that checkpoints state, not by a clock that may have jumped: see `LogClock`. Those of who
looked into the log are deleted with it.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Instant, TimeDelta

from tokgate.blocklog.integrity.chain_state import CLOCK_TOLERANCE
from tokgate.blocklog.paths import access_path_for, archived, bare_name
from tokgate.blocklog.read.reader import UNREADABLE, first_record, open_log
from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.record import Record, Stamp, instant_of, text_at

SETTLED: Final = 3600.0
"""Seconds for which a checkpoint's time has to stand before files are deleted by it: whoever watches sees a jump."""
_APART: Final = 30.0
"""Seconds between checkpoints that are remembered: however many are written, these are few."""


def since_start() -> float:
    """Seconds since the machine's start, sleep included (CLOCK_BOOTTIME, clock_gettime(2)): no one can set them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LogClock:
    """Compares the wall clock with records, with checkpoints, and with a clock that nobody can set."""

    def __init__(self, stamp: Callable[[], Stamp], uptime: Callable[[], float]) -> None:
        """`stamp` is by the wall clock; `uptime` counts seconds, whatever the wall clock shows."""
        self._stamp: Final = stamp
        self._uptime: Final = uptime
        self._latest: Instant | None = None
        self._seen: tuple[Instant, float] | None = None
        self._signed: Final[deque[tuple[float, Instant]]] = deque()

    def look(self) -> Record | None:
        """The record that the clock jumped since the last look; None if it didn't."""
        stamp, before, seen, up = self._stamp(), self._latest, self._seen, self._uptime()
        due = None if seen is None else seen[0] + TimeDelta(seconds=up - seen[1])
        self._latest, self._seen = stamp.at, (stamp.at, up)
        if before is not None and stamp.at < before.subtract(seconds=CLOCK_TOLERANCE):
            kept = [each for each in self._signed if each[1] <= stamp.at]  # checkpoints that are later were wrong
            self._signed.clear()
            self._signed.extend(kept)
            return log_state.clock_set_back(stamp, before)
        self._latest = max(stamp.at, before or stamp.at)
        if due is not None and stamp.at > due.add(seconds=CLOCK_TOLERANCE):
            return log_state.clock_set_forward(stamp, due)
        return None

    def was_written(self, at: Instant | None, *, signed: bool) -> None:
        """Note the instant of the last record of an earlier run, and whether that is a checkpoint."""
        self._latest = at
        if at is not None and signed:
            self._signed.append((time.monotonic() - SETTLED, at))

    def signed(self, at: Instant) -> None:
        """Note the instant of a checkpoint, now."""
        now = time.monotonic()
        if not self._signed or now - self._signed[-1][0] >= _APART:
            self._signed.append((now, at))
        self.settled()

    def settled(self) -> Instant | None:
        """The time that the newest checkpoint states which has stood for SETTLED seconds; None if none has."""
        since = time.monotonic() - SETTLED
        # What is older than another that counts is not needed any more.
        while len(self._signed) > 1 and self._signed[1][0] <= since:
            self._signed.popleft()
        first = next(iter(self._signed), None)
        return None if first is None or first[0] > since else first[1]


STEP_EVERY: Final = 3600.0
"""Seconds between two deletions of a day's files: what has piled up for a year is gone after two weeks."""

LOOK_EVERY: Final = 60.0
"""Seconds between two looks for expired files while no checkpoint states a time that can be relied on."""


class Retention:
    """Deletes a log's expired files: first a record names them, then a checkpoint signs that record, then they go."""

    def __init__(self, path: Path, days: int | None, trouble: Callable[[Exception], None]) -> None:
        """`days`: how many days files are kept; None: for good. `trouble` gets errors of the file system."""
        self._path: Final = path
        self._days: Final = days
        self._trouble: Final = trouble
        self.planned: tuple[Record, tuple[Path, ...]] | None = None
        """The record that isn't written yet, and the files that it names."""
        self._named: Final[deque[tuple[int, Path]]] = deque()
        self._look_again = math.inf

    @property
    def due(self) -> bool:
        """Whether it is time to look for expired files again."""
        return time.monotonic() >= self._look_again

    @property
    def about_to_delete(self) -> bool:
        """Whether files are named by a record that is to be written, or waits for its checkpoint."""
        return self.planned is not None or bool(self._named)

    def look(self, stamp: Stamp, settled: Instant | None) -> Record | None:
        """The record that names what has expired; None if nothing has, or if the folder can't be listed.

        `settled` is how late it is at least, by the log's checkpoints; None: none of them tells yet.
        """
        if self._days is None:
            return None
        self._look_again = time.monotonic() + (LOOK_EVERY if settled is None else STEP_EVERY)
        if settled is None:
            return None
        before = min(stamp.at, settled).subtract(hours=24 * self._days)
        looks = access_path_for(self._path)
        try:
            found = expired(self._path, before)
            with_them = expired(looks, before).files if found.files else ()
        except OSError as error:
            self._trouble(error)
            return None
        if not found.files:
            return None
        files = (*found.files, *with_them)
        names = [path.name for path in files]
        record = log_state.log_deleted(stamp, names, self._days, follows=found.follows, missed=found.missed)
        self.planned = record, files
        return record

    def wrote(self, record: Record | None, sequence: int) -> None:
        """Note that a record was written, and its number in the chain."""
        if self.planned is not None and record is self.planned[0]:
            self._named.extend((sequence, path) for path in self.planned[1])
            self.planned = None

    def delete(self, signed: int) -> None:
        """Delete the files that records up to the number `signed` name. To be called when these are on the disk."""
        while self._named and self._named[0][0] <= signed:
            try:
                self._named.popleft()[1].unlink(missing_ok=True)
            except OSError as error:
                self._trouble(error)


@dataclass(frozen=True, slots=True)
class Expired:
    """Files to be deleted, oldest first; the file that the first one continues; files between them that are gone."""

    files: tuple[Path, ...] = ()
    follows: str | None = None
    missed: tuple[str, ...] = ()


def expired(path: Path, before: Instant) -> Expired:
    """Files that tokgate rotated at or before an instant, and at most a day after the oldest. Raises OSError.

    A clock that is far ahead for a while makes everything look old: so no more than a day's files are deleted at once,
    and the next only STEP_EVERY seconds later. Files that logrotate made are left to it, since their names don't state
    when they end. A file whose first record is later than its name states stays: somebody renamed it, or the clock was
    set back.
    """
    rotated = list(archived(path))
    links = {file: _link(file) for file, _ in rotated}
    ends = {file: max(ended, links[file][0] or ended) for file, ended in rotated}
    if ends:
        before = min(before, min(ends.values()).add(hours=24))
    files = [file for file, ended in ends.items() if ended <= before]
    if not files:
        return Expired()
    # Also of the first file that stays: what it continues may be gone.
    chained = [*files, *(file for file in ends if file not in files)][: len(files) + 1]
    there = {bare_name(file.name) for file in chained}
    stated = [follows for _, follows in (links[file] for file in chained[1:]) if follows is not None]
    return Expired(tuple(files), links[files[0]][1], tuple(name for name in stated if bare_name(name) not in there))


def _link(file: Path) -> tuple[Instant | None, str | None]:
    """The instant of a file's first record, and the file before as it states; None for what it doesn't state."""
    try:
        found = first_record(file, open_log)
    except UNREADABLE:
        found = None
    record = {} if found is None else found[0]
    return instant_of(record), text_at(record, "tokgate", "continues", "file")
