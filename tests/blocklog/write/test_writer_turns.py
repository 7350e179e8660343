"""How the writer's thread goes on: how much it takes at once, how long it waits, and when it gives up."""

import errno
import threading
import time
from pathlib import Path

import pytest
from whenever import Instant

from labs.samples import OBSERVER
from tokgate.blocklog.records.record import Record
from tokgate.blocklog.write.writer import LogWriter, WriterLimits

NOW = 1000.0
LIMITS = WriterLimits(queued=4, batch=3, linger=0.0, retry_first=0.1, retry_longest=0.5)


class Appender:
    """An appender whose next calls fail, and that notes what it is asked for."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.left, self.added = list(errors), list[str](), list[Record]()
        self.pending, self.syncs = 1 if errors else 0, 0
        self.written = self.rotations = self.foreign = 0
        self.unattested, self.never_attested, self.attested = 0, False, list[float]()

    def look(self) -> None:
        """Fail, if there is an error left."""
        if self.errors:
            raise OSError(self.errors.pop(0), "no reason")

    def add(self, record: Record) -> None:
        self.added.append(record)
        self.pending += 1

    def advance(self) -> None:
        """Fail, or write all."""
        self.look()
        self.pending = 0

    def sync(self) -> None:
        """Count, and fail."""
        self.syncs += 1
        self.look()

    def leave(self, why: str) -> None:
        self.left.append(why)

    def close(self) -> None:
        self.leave("closed")

    def require_room(self) -> None:
        """There is some."""

    def attest(self) -> None:
        self.attested.append(time.monotonic())

    def abandon(self) -> int:
        """Nothing is left."""
        return 0


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *errors: int) -> tuple[LogWriter, Appender]:
    """A writer that is not started, and what it appends with."""
    writer, appender = LogWriter(tmp_path / "block.ndjson", OBSERVER, limits=LIMITS), Appender(*errors)
    monkeypatch.setattr(writer, "_appender", appender)
    return writer, appender


@pytest.mark.parametrize(
    ("code", "left"),
    [
        *((code, []) for code in (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR)),
        *((code, ["an error (no reason)"]) for code in (errno.EIO, errno.EROFS, errno.ESTALE)),
    ],
)
def test_after_which_errors_the_file_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, left: list[str]
) -> None:
    """A full disk leaves the file as it is; after what may have broken it, it is closed, and the next one says why."""
    writer, appender = made(tmp_path, monkeypatch, code)
    writer._pump()
    assert (appender.left, appender.pending) == (left, 0)
    assert writer.health().ok


def test_a_disk_that_fails_is_tried_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon at first, then twice as late each time, up to a bound."""
    writer, _ = made(tmp_path, monkeypatch, *[errno.ENOSPC] * 5)
    pauses: list[float] = []
    monkeypatch.setattr(writer, "_pause", pauses.append)
    writer._pump()
    assert pauses == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_closing_ends_all_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the deadline has passed nothing is tried again; until then no pause lasts longer than it."""
    writer, appender = made(tmp_path, monkeypatch, *[errno.ENOSPC] * 5)
    monkeypatch.setattr(time, "monotonic", lambda: NOW)
    waited: list[float] = []

    monkeypatch.setattr(time, "sleep", waited.append)
    writer._closing.set()
    for left in (60.0, 2.0, 0.0, -1.0):
        monkeypatch.setattr(writer, "_give_up_at", NOW + left)
        writer._pause(5.0)
    assert waited == [5.0, 2.0, 0.0, 0.0]
    assert writer._done()
    writer._pump()
    assert (len(appender.errors), len(waited)) == (4, 4)


def test_a_batch_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With so many records, or with a flush, whose caller waits for no more than was put before it."""
    writer, appender = made(tmp_path, monkeypatch)
    pauses: list[float] = []
    monkeypatch.setattr(writer._closing, "wait", pauses.append)
    for number in range(4):
        writer.put({"n": number})
    writer._collect()
    assert [record["n"] for record in appender.added] == [0, 1, 2]
    assert writer.health().queued == 4
    assert pauses == []
    appender.advance()
    writer._queue.put(threading.Event())
    writer.put({"n": 4})
    writer._collect()
    assert [record["n"] for record in appender.added] == [0, 1, 2, 3]
    assert len(writer._flushes) == 1
    writer._flushes.clear()
    appender.advance()
    writer._collect()
    assert [record["n"] for record in appender.added] == [0, 1, 2, 3, 4]
    assert pauses == [LIMITS.linger]  # one that comes alone waits for others


def test_when_checkpoints_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a run's first record, then a minute after the oldest that is unsigned, and with no record none."""
    writer, appender = made(tmp_path, monkeypatch)
    now = [NOW]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    steps = [
        (0, 0, True), (1, 1, True), (1, 1, False), (60, 1, False), (61, 1, False), (61, 1, False), (61, 0, False),
        (100, 0, False),
        (200, 1, False), (230, 0, False), (240, 1, False), (299, 2, False), (301, 2, False),
    ]  # fmt: skip
    for seconds, appender.unattested, appender.never_attested in steps:
        now[0] = NOW + seconds
        writer._attest_if_due()
    assert [at - NOW for at in appender.attested] == [1, 61, 301]


def test_how_long_the_writer_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is to look at the file, to sign, or to sync what was written."""
    limits = WriterLimits(sync_every=10.0, look_every=20.0)
    writer = LogWriter(tmp_path / "block.ndjson", OBSERVER, limits=limits)
    monkeypatch.setattr(time, "monotonic", lambda: NOW)
    for attest, seconds in ((None, 20.0), (5.0, 5.0), (30.0, 20.0), (-5.0, 0.0)):
        writer._attest_at = None if attest is None else NOW + attest
        assert writer._idle_time() == seconds
    writer._unsynced_since = NOW
    assert writer._idle_time() == 10.0
    writer._unsynced_since = None
    writer._flushes.append(threading.Event())
    assert writer._idle_time() == 10.0


def test_a_file_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health says so as long as it lasts, and nothing ends for it."""
    writer, appender = made(tmp_path, monkeypatch, errno.EIO)
    appender.pending = 0
    for ok in (False, True):
        writer._look()
        health = writer.health()
        assert (health.ok, health.errors, health.last_error) == (ok, 1, "OSError: [Errno 5] no reason")


def test_a_gap_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was dropped just before the writer ends is counted in the log as well, and signed."""
    writer, appender = made(tmp_path, monkeypatch)
    writer._drop(3)
    writer._finish()
    assert [record["tokgate"]["gap"]["dropped"] for record in appender.added] == [3]
    assert (len(appender.attested), appender.left) == (1, ["closed"])


def test_a_gap_is_told_once_half_the_queue_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while records are dropped all the time: each of them would make a record of its own."""
    writer, appender = made(tmp_path, monkeypatch)
    moments = [Instant.from_utc(2023, 3, 10, second=second) for second in range(3)]
    monkeypatch.setattr(writer, "_clock", lambda: moments.pop(0))
    assert writer.health().gap == 0
    assert [writer.put({"n": number}) for number in range(6)] == [True] * 4 + [False] * 2
    assert writer.health().gap == 2
    for told in ([], [2]):
        writer._queue.get()
        writer._tell_drops()
        assert [record["tokgate"]["gap"]["dropped"] for record in appender.added] == told
    writer._tell_drops()
    gap = appender.added[0]["tokgate"]["gap"]
    assert (gap["since"], gap["until"]) == ("2023-03-10T00:00:00.000000Z", "2023-03-10T00:00:01.000000Z")
    assert (len(appender.added), writer.health().gap, writer.health().dropped) == (1, 0, 2)


@pytest.mark.parametrize(
    ("since", "pending", "flush", "syncs"),
    [
        *((None, 0, False, 0), (0.5, 0, False, 0), (1.0, 0, False, 1), (2.0, 0, False, 1), (None, 1, True, 0)),
        *((0.0, 1, True, 0), (None, 0, True, 1), (0.0, 0, True, 1), (1.0, 1, True, 1)),
    ],
)
def test_when_the_disk_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: float | None, pending: int, flush: bool, syncs: int
) -> None:
    """A second after the first record that isn't synced; at once for a flush, which waits for what is to be written."""
    monkeypatch.setattr(time, "monotonic", lambda: NOW)
    writer, appender = made(tmp_path, monkeypatch)
    done = threading.Event()
    writer._flushes.extend([done] if flush else [])
    writer._unsynced_since, appender.pending = None if since is None else NOW - since, pending
    for _ in range(2):
        writer._sync_if_due()
        assert (appender.syncs, done.is_set()) == (syncs, flush and not pending)


def test_the_interval_begins_with_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the first record since the last sync; later ones don't put it off."""
    writer, appender = made(tmp_path, monkeypatch)
    for seconds, pending, syncs in ((0, 1, 0), (0.9, 1, 0), (1.0, 0, 1), (2.0, 0, 1)):
        monkeypatch.setattr(time, "monotonic", lambda at=NOW + seconds: at)
        appender.pending = pending
        writer._pump()
        writer._sync_if_due()
        assert (appender.pending, appender.syncs) == (0, syncs)


def test_a_sync_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing disk shows in `tokgate status`, and nobody is told that records are safe."""
    writer, appender = made(tmp_path, monkeypatch, errno.EIO)
    flush, appender.pending = threading.Event(), 0
    writer._flushes.append(flush)
    for syncs, told in ((1, False), (2, True)):
        writer._sync_if_due()
        assert (appender.syncs, flush.is_set(), writer._errors) == (syncs, told, 1)
