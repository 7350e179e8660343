"""The log's writer: a bounded queue, and a thread that appends whole lines, rotates, and retries after errors.

Enforcement never waits for the log and never fails with it: records beyond the bound are dropped, counted and reported.
"""

import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.records import log_state
from tokgate.blocklog.records.record import Observer, Record, Stamp, new_stamp
from tokgate.blocklog.write.appender import Appender, ForeignLines
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.pseudonyms import client_alias
from tokgate.blocklog.write.retention import since_start
from tokgate.blocklog.write.segment import LogRefused, Rotation


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLimits:
    """Bounds and intervals, in records and seconds.

    A queued record takes some 8 KiB, so the default bound is about 80 MiB, reached only while the disk fails. Threads
    that put at the same moment can exceed the bound by one record each.
    """

    queued: int = 10_000
    batch: int = 256
    linger: float = 0.01
    """How long the first record of a batch waits for others, to save wake-ups beside a busy event loop."""
    sync_every: float = 1.0
    look_every: float = 1.0
    """How often a log without new records is looked at for what others wrote."""
    retry_first: float = 0.1
    retry_longest: float = 5.0
    rotation: Rotation = field(default_factory=Rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterHealth:
    """The writer's counters since its start, in records; `failing_since` is None while writing works."""

    path: Path
    written: int
    dropped: int
    gap: int = 0
    """Dropped records that no `log-gap` record counts yet."""
    errors: int = 0
    queued: int = 0
    rotations: int = 0
    last_error: str | None = None
    failing_since: Instant | None = None
    foreign: int = 0
    """Lines that other programs wrote to the log."""
    tampered: str | None = None
    """What others did to the log in the last hour."""

    @property
    def ok(self) -> bool:
        """Whether writing works at present, and nobody else wrote: health is green."""
        return self.failing_since is None and self.tampered is None


_logger: Final = logging.getLogger(__name__)
_SAME_FILE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR})
"""Errors after which the open file can be written later; after any other it is reopened."""
_TAMPERED: Final = 3600.0
"""Seconds for which health tells that others wrote to the log."""


class LogWriter:
    """Writes records to one file from its own thread. Start it after forking: a lock belongs to one process.

    `put` and `health` never wait or raise: threads, event loops and signal handlers may call them. A file that was
    renamed, as by logrotate, is followed within `look_every`.
    """

    def __init__(
        self,
        path: Path,
        observer: Observer,
        options: LogOptions | None = None,
        *,
        limits: WriterLimits | None = None,
        clock: Callable[[], Instant] = Instant.now,
        uptime: Callable[[], float] = since_start,
    ) -> None:
        """Nothing is opened before `start()`. `options` is how the chain is signed, by default with a key beside it.

        `uptime`: seconds by which it is seen that `clock` was set forward.
        """
        self.path: Final = path
        self._observer: Final = observer
        self._limits: Final = limits or WriterLimits()
        self._options: Final = options or LogOptions()
        self._clock: Final = clock
        self._thread: Final = threading.Thread(target=self._run, name="tokgate-log", daemon=True)

        # SimpleQueue is reentrant: a signal handler may interrupt a thread that is inside.
        self._queue: Final[queue.SimpleQueue[Record | threading.Event | None]] = queue.SimpleQueue()
        """Events are set when all that was put before them is on the disk; None ends a wait."""
        self._drop_lock: Final = threading.RLock()  # reentrant, for a signal handler
        self._dropped = 0
        self._gap: tuple[int, Instant, Instant] | None = None
        """Dropped records that no `log-gap` record counts yet: how many, when the first and the last were."""
        self._closing: Final = threading.Event()
        self._ended = False
        self._give_up_at = float("inf")

        self._appender: Final = Appender(
            path,
            self._limits.rotation,
            self._stamp,
            trouble=self._note,
            reject=self._rejected,
            options=self._options,
            uptime=uptime,
        )
        self._alias: Final = client_alias(path, self._options, clock, self._note)
        self._flushes: Final[list[threading.Event]] = []
        self._unsynced_since: float | None = None
        self._attest_at: float | None = None
        self._errors = 0
        self._last_error: str | None = None
        self._failing_since: Instant | None = None
        self._tampered: tuple[float, str | None] = (0.0, None)

    def start(self) -> None:
        """Open the file and start the thread. Raises LogRefused; other errors are in `health`, and are retried."""
        try:
            self._appender.ready()
        except LogRefused:
            raise
        except OSError as error:
            self._failed(error)
        self._thread.start()

    def put(self, record: Record) -> bool:
        """Queue a record, which must not be changed afterwards; False if it was dropped and counted."""
        if self._closing.is_set() or self._queue.qsize() >= self._limits.queued:
            self._drop(1)
            return False
        self._queue.put(record)
        if self._ended and (lost := self._drain()):  # closed between the check and the put
            self._drop(lost)
            return False
        return True

    def health(self) -> WriterHealth:
        return WriterHealth(
            path=self.path,
            written=self._appender.written,
            dropped=self._dropped,
            gap=0 if (gap := self._gap) is None else gap[0],
            errors=self._errors,
            queued=self._queue.qsize() + self._appender.pending,
            rotations=self._appender.rotations,
            last_error=self._last_error,
            failing_since=self._failing_since,
            foreign=self._appender.foreign,
            tampered=self._tampered[1] if time.monotonic() - self._tampered[0] < _TAMPERED else None,
        )

    def mark(self) -> threading.Event:
        """An event that is set once all that was put before is on the disk, or was dropped and counted."""
        on_disk = threading.Event()
        self._queue.put(on_disk)
        return on_disk

    def close(self, deadline: float) -> bool:
        """Write what is queued, sync and close the file within `deadline` seconds; False if records were lost."""
        lost_before = self._dropped
        self._give_up_at = time.monotonic() + deadline
        self._closing.set()
        self._queue.put(None)
        if self._thread.ident is not None:
            self._thread.join(deadline + 0.5)
        else:
            self._finish()
        return not self._thread.is_alive() and self._dropped == lost_before

    def _stamp(self) -> Stamp:
        return new_stamp(self._clock(), self._observer)

    def _drop(self, count: int) -> None:
        now = self._clock()
        with self._drop_lock:
            before, since, _ = self._gap or (0, now, now)
            self._gap = before + count, since, now
            self._dropped += count

    # From here on in the writer's thread.

    def _run(self) -> None:
        while not self._done():
            try:
                self._turn()
            except Exception as error:  # a defect may lose records, but must not end the thread
                self._failed(error)
                if lost := self._appender.abandon():
                    self._drop(lost)
        self._finish()

    def _done(self) -> bool:
        return self._expired() or (self._closing.is_set() and self._queue.empty() and not self._appender.pending)

    def _expired(self) -> bool:
        return time.monotonic() >= self._give_up_at

    def _turn(self) -> None:
        self._collect()
        self._look()
        self._pump()
        if not self._appender.pending:
            self._tell_drops()
            self._attest_if_due()
            self._pump()
        self._sync_if_due()

    def _collect(self) -> None:
        """Wait for an entry, then take a batch; a flush ends the batch."""
        with suppress(queue.Empty):
            item = self._queue.get(timeout=self._idle_time())
            if isinstance(item, dict) and self._queue.empty():
                self._closing.wait(self._limits.linger)
            while True:
                if isinstance(item, dict):
                    self._appender.add(self._alias(item))
                elif item is not None:
                    self._flushes.append(item)
                if self._flushes or self._appender.pending >= self._limits.batch:
                    return
                item = self._queue.get_nowait()

    def _idle_time(self) -> float:
        """Seconds that the thread may wait for an entry."""
        if self._unsynced_since is not None or self._flushes:
            return self._limits.sync_every
        look = self._limits.look_every
        return look if self._attest_at is None else max(0.0, min(look, self._attest_at - time.monotonic()))

    def _look(self) -> None:
        """Look whether others wrote to the file, and whether it can be written, also where nothing is to be."""
        try:
            self._appender.look()
            self._appender.require_room()
        except OSError as error:
            self._failed(error)
        else:
            if not self._appender.pending:
                self._works()

    def _pump(self) -> None:
        """Write what is pending; retry after errors until it is written or the deadline of `close` has passed."""
        delay = self._limits.retry_first
        while self._appender.pending:
            try:
                self._appender.advance()
            except OSError as error:
                self._failed(error)
                if error.errno not in _SAME_FILE:
                    self._appender.leave(f"an error ({error.strerror})")
                if self._expired():
                    return
                self._pause(delay)
                delay = min(delay * 2, self._limits.retry_longest)
            else:
                self._works()
                if self._unsynced_since is None:
                    self._unsynced_since = time.monotonic()

    def _tell_drops(self) -> None:
        """Queue a `log-gap` record once the queue has room again."""
        if self._queue.qsize() > self._limits.queued // 2:
            return
        with self._drop_lock:
            gap, self._gap = self._gap, None
        if gap is not None:
            self._appender.add(log_state.log_gap(self._stamp(), *gap))

    def _attest_if_due(self) -> None:
        """Queue a checkpoint when the oldest unsigned record is old enough."""
        if not self._appender.unattested:
            self._attest_at = None
        elif self._appender.never_attested:  # the first records of a run are signed at once
            self._appender.attest()
        elif self._attest_at is None:
            self._attest_at = time.monotonic() + self._options.seconds
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
                flush.set()
            self._flushes.clear()

    def _finish(self) -> None:
        """Write what the deadline allows, count the rest as dropped, sync and close."""
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
        self._appender.close()

    def _drain(self) -> int:
        """Empty the queue; returns how many records were in it."""
        count = 0
        while True:
            try:
                count += isinstance(self._queue.get_nowait(), dict)
            except queue.Empty:
                return count

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; once it is closed, no longer than that allows."""
        if self._closing.wait(seconds):
            time.sleep(max(0.0, min(seconds, self._give_up_at - time.monotonic())))

    def _note(self, error: Exception) -> None:
        self._errors += 1
        self._last_error = f"{type(error).__name__}: {error}"
        if isinstance(error, ForeignLines):
            self._tampered = time.monotonic(), str(error)

    def _rejected(self, error: Exception) -> None:
        """Count a record that JSON can't represent, which is a defect of its builder."""
        self._note(error)
        self._drop(1)

    def _works(self) -> None:
        if self._failing_since is not None:
            self._failing_since = None
            _warn("the log %s is written again", self.path)

    def _failed(self, error: Exception) -> None:
        self._note(error)
        if self._failing_since is None:
            self._failing_since = self._clock()
            # No error: mitmproxy ends at one that is logged while it starts.
            _warn("the log %s can't be written: %s%s", self.path, error, _remedy(error, self.path))


def _warn(message: str, *arguments: object) -> None:
    """Log a warning. Where mitmproxy's handler raises, since its event loop is closed, the thread goes on."""
    with suppress(RuntimeError):
        _logger.warning(message, *arguments)


def _remedy(error: Exception, path: Path) -> str:
    """What helps where this user may not write."""
    if not isinstance(error, OSError) or error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    return f"; this is user {os.geteuid()}: chown -R {os.geteuid()} {path.absolute().parent}"
