"""The writer: a bounded queue into one thread that appends whole lines, rotates, and goes on whatever the disk does.

Enforcement never waits for the log and never fails with it: what can't be kept is counted, and the count is logged.
"""

import errno
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog import lifecycle
from tokgate.blocklog.aliases import WITHHELD
from tokgate.blocklog.appender import Appender
from tokgate.blocklog.custody import Sealing
from tokgate.blocklog.document import Record
from tokgate.blocklog.health import Health, Limits
from tokgate.blocklog.privacy import Pseudonyms, disguised, prefix, secret_path_for
from tokgate.blocklog.segment import LogLocked
from tokgate.blocklog.stamp import Observer, Stamp, new_stamp
from tokgate.policy.bans import ClientsShown

_SAME_FILE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR})
"""After these the file that is open may take the rest later; after any other error it is opened anew."""


@dataclass(frozen=True, slots=True)
class _Drops:
    """Dropped records that no gap record tells of yet."""

    count: int
    since: Instant
    until: Instant


class _Flush:
    """Stands in the queue: what was put before it is written and on the disk when `done` is set."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = threading.Event()


class _Wake:
    """Stands in the queue to end a wait."""

    __slots__ = ()


class LogWriter:
    """Writes records to one file, from a thread of its own. Start it after any fork: its lock is one process's.

    `put`, `reopen` and `health` may be called from threads, event loops and signal handlers: they never wait or raise.
    """

    def __init__(
        self,
        path: Path,
        observer: Observer,
        sealing: Sealing | None = None,
        *,
        limits: Limits | None = None,
        clock: Callable[[], Instant] = Instant.now,
    ) -> None:
        """Nothing is opened before `start()`. `sealing` is how the chain is signed, by default with a key beside it."""
        self.path: Final = path
        self._observer: Final = observer
        self._limits: Final = limits or Limits()
        self._sealing: Final = sealing or Sealing()
        self._clock: Final = clock
        self._thread: Final = threading.Thread(target=self._run, name="tokgate-log", daemon=True)

        # SimpleQueue and RLock: a signal handler may enter them again from the thread that is inside.
        self._queue: Final[queue.SimpleQueue[Record | _Flush | _Wake]] = queue.SimpleQueue()
        self._nudges: Final[queue.SimpleQueue[None]] = queue.SimpleQueue()
        self._drop_lock: Final = threading.RLock()
        self._drops: _Drops | None = None
        self._dropped = 0
        self._reopen = False
        self._closing = False
        self._ended = False
        self._give_up_at = float("inf")

        self._appender: Final = Appender(
            path,
            self._limits.rotation,
            self._stamp,
            trouble=self._note,
            reject=self._rejected,
            sealing=self._sealing,
        )
        self._alias: Final = self._alias_of_clients()
        self._flushes: Final[list[_Flush]] = []
        self._unsynced_since: float | None = None
        self._attest_at: float | None = None
        self._errors = 0
        self._last_error: str | None = None
        self._failing_since: Instant | None = None

    def start(self) -> None:
        """Open the file and begin. Raises LogLocked if another process writes it; `health` tells other trouble."""
        try:
            self._appender.ready()
        except LogLocked:
            raise
        except OSError as error:
            self._failed(error)
            self.reopen()
        self._thread.start()

    def put(self, record: Record) -> bool:
        """Queue a record, which nobody may change from now on; False if it had to be dropped (and was counted)."""
        if self._closing or self._queue.qsize() >= self._limits.queued:
            self._drop(1)
            return False
        self._queue.put(record)
        if self._ended and (lost := self._drain()):  # closed between the check and the put
            self._drop(lost)
            return False
        return True

    def reopen(self) -> None:
        """Look soon whether the path leads to another file, as after SIGHUP, and write that one."""
        self._reopen = True
        self._wake()

    def health(self) -> Health:
        """The counters, now."""
        return Health(
            path=self.path,
            written=self._appender.written,
            dropped=self._dropped,
            gap=0 if (drops := self._drops) is None else drops.count,
            errors=self._errors,
            queued=self._queue.qsize() + self._appender.pending,
            rotations=self._appender.rotations,
            last_error=self._last_error,
            failing_since=self._failing_since,
        )

    def flush(self, deadline: float) -> bool:
        """Wait up to `deadline` seconds until all that was put before is written and on the disk; False if it isn't."""
        flush = _Flush()
        self._queue.put(flush)
        self._nudges.put(None)
        return flush.done.wait(deadline)

    def close(self, deadline: float) -> bool:
        """Write what is queued, sync, let go of the file, within `deadline` seconds; False if records were lost."""
        lost_before = self._dropped
        self._give_up_at = time.monotonic() + deadline
        self._closing = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(deadline + 0.5)
        else:
            self._finish()
        return not self._thread.is_alive() and self._dropped == lost_before

    def _stamp(self) -> Stamp:
        return new_stamp(self._clock(), self._observer)

    def _alias_of_clients(self) -> Callable[[Record], Record]:
        """What becomes of each record before it is written, so that it names clients as it should."""
        if self._sealing.clients is ClientsShown.PLAIN:
            return lambda record: record
        if self._sealing.clients is ClientsShown.PREFIX:
            return lambda record: disguised(record, prefix)
        device = self.path.is_symlink() or (self.path.exists() and not self.path.is_file())
        if device and self._sealing.key is None:  # there is no place beside it for a secret
            return lambda record: disguised(record, lambda _: WITHHELD)
        secret = secret_path_for(self._sealing.key or self.path)
        pseudonyms = Pseudonyms(secret, self._sealing.pseudonym_days, self._clock, self._note)
        return lambda record: disguised(record, pseudonyms)

    def _wake(self) -> None:
        self._nudges.put(None)
        self._queue.put(_Wake())

    def _drop(self, count: int) -> None:
        with self._drop_lock:
            now = self._clock()
            before = self._drops
            self._drops = _Drops(count + before.count, before.since, now) if before else _Drops(count, now, now)
            self._dropped += count

    # From here on: the writer's own thread.

    def _run(self) -> None:
        while not self._done():
            try:
                self._turn()
            except Exception as error:  # a bug may cost records, never the thread
                self._failed(error)
                if lost := self._appender.abandon():
                    self._drop(lost)
        self._finish()

    def _done(self) -> bool:
        return self._expired() or (self._closing and self._queue.empty() and not self._appender.pending)

    def _expired(self) -> bool:
        return time.monotonic() >= self._give_up_at

    def _turn(self) -> None:
        self._collect()
        self._pump()
        if not self._appender.pending:
            self._tell_drops()
            self._attest_if_due()
            self._pump()
        self._sync_if_due()

    def _collect(self) -> None:
        """Wait until there is something to do, then take a batch of it; a flush ends the batch."""
        try:
            item = self._queue.get(timeout=self._idle_time())
            if isinstance(item, dict) and self._queue.empty():
                self._pause(self._limits.linger)
            while True:
                if isinstance(item, dict):
                    self._appender.add(self._alias(item))
                elif isinstance(item, _Flush):
                    self._flushes.append(item)
                if self._flushes or self._appender.pending >= self._limits.batch:
                    return
                item = self._queue.get_nowait()
        except queue.Empty:
            return

    def _idle_time(self) -> float | None:
        """How long the thread may sleep when nothing is put."""
        if self._unsynced_since is not None or self._flushes:
            return self._limits.sync_every
        return None if self._attest_at is None else max(0.0, self._attest_at - time.monotonic())

    def _pump(self) -> None:
        """Write what is pending; stay with it through errors, until it is written or closing takes too long."""
        delay = self._limits.retry_first
        while self._appender.pending or self._reopen:
            try:
                wanted, self._reopen = self._reopen, False
                self._appender.advance()
            except OSError as error:
                self._reopen |= wanted
                self._failed(error)
                if error.errno not in _SAME_FILE:
                    self._appender.leave(f"an error ({error.strerror})")
                if self._expired():
                    return
                self._pause(delay)
                delay = min(delay * 2, self._limits.retry_longest)
            else:
                self._failing_since = None
                if self._unsynced_since is None:
                    self._unsynced_since = time.monotonic()

    def _tell_drops(self) -> None:
        """Once the queue has room again: how many records were dropped, and when."""
        if self._drops is None or self._queue.qsize() > self._limits.queued // 2:
            return
        with self._drop_lock:
            drops, self._drops = self._drops, None
        self._appender.add(lifecycle.log_gap(self._stamp(), drops.count, drops.since, drops.until))

    def _attest_if_due(self) -> None:
        """Sign what was written, when the oldest record that no checkpoint covers has waited long enough."""
        if not self._appender.unattested:
            self._attest_at = None
        elif self._appender.never_attested:  # what a run begins with is signed at once
            self._appender.attest()
        elif self._attest_at is None:
            self._attest_at = time.monotonic() + self._sealing.seconds
        elif time.monotonic() >= self._attest_at:
            self._attest_at = None
            self._appender.attest()

    def _sync_if_due(self) -> None:
        since = self._unsynced_since
        flushing = self._flushes and not self._appender.pending
        if not flushing and (since is None or time.monotonic() - since < self._limits.sync_every):
            return
        try:
            self._appender.sync()
        except OSError as error:
            self._failed(error)
            return
        self._unsynced_since = None
        if flushing:
            for flush in self._flushes:
                flush.done.set()
            self._flushes.clear()

    def _finish(self) -> None:
        """Count what the deadline left unwritten; sync and close the rest."""
        if not self._expired():
            self._tell_drops()
            self._pump()
            self._appender.attest()
            self._pump()
        self._ended = True
        lost = self._appender.abandon() + self._drain()
        if lost:
            self._drop(lost)
            self._flushes.clear()
        self._sync_if_due()
        self._appender.leave("closed")

    def _drain(self) -> int:
        """Take all that is left in the queue; how many records that were."""
        count = 0
        while True:
            try:
                count += isinstance(self._queue.get_nowait(), dict)
            except queue.Empty:
                return count

    def _pause(self, seconds: float) -> None:
        """Wait, unless someone asks to reopen, flush or close."""
        try:
            self._nudges.get(timeout=max(0.0, min(seconds, self._give_up_at - time.monotonic())))
        except queue.Empty:
            return

    def _note(self, error: Exception) -> None:
        self._errors += 1
        self._last_error = f"{type(error).__name__}: {error}"

    def _rejected(self, error: Exception) -> None:
        """A record that can't be written as JSON: a bug of whoever made it."""
        self._note(error)
        self._drop(1)

    def _failed(self, error: Exception) -> None:
        self._note(error)
        if self._failing_since is None:
            self._failing_since = self._clock()
