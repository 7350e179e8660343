"""When the writer syncs its file: what a flush or an interval promises is on the disk, and the disk isn't kept busy."""

import errno
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from labs.samples import OBSERVER
from tokgate.blocklog.write.writer import LogWriter, WriterLimits

NOW, INTERVAL = 1000.0, 60.0


@dataclass
class Appender:
    """An appender that counts syncs, and fails as often as a test wants."""

    pending: int = 0
    syncs: int = 0
    fails: bool = False

    def advance(self) -> None:
        """Write all."""
        self.pending = 0

    def sync(self) -> None:
        """Sync, or fail to."""
        self.syncs += 1
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def appender() -> Appender:
    """What the writer appends with."""
    return Appender()


@pytest.fixture
def writer(tmp_path: Path, appender: Appender, monkeypatch: pytest.MonkeyPatch) -> LogWriter:
    """A writer that is not started, at a moment that stands still."""
    monkeypatch.setattr(time, "monotonic", lambda: NOW)
    made = LogWriter(tmp_path / "block.ndjson", OBSERVER, limits=WriterLimits(sync_every=INTERVAL))
    monkeypatch.setattr(made, "_appender", appender)
    return made


@pytest.mark.parametrize(
    ("since", "syncs"),
    [(None, 0), (NOW - INTERVAL + 1, 0), (NOW - INTERVAL, 1), (NOW - 2 * INTERVAL, 1)],
    ids=["nothing_written", "written_just_now", "due", "overdue"],
)
def test_by_the_interval(writer: LogWriter, appender: Appender, since: float | None, syncs: int) -> None:
    """At most that many seconds of records are lost with the machine; one sync does for all that was written."""
    writer._unsynced_since = since
    writer._sync_if_due()
    writer._sync_if_due()
    assert appender.syncs == syncs


def test_the_interval_begins_with_what_is_written(
    writer: LogWriter, appender: Appender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first record since the last sync; later ones don't put it off."""
    for seconds, pending, syncs in ((0, 1, 0), (INTERVAL - 1, 1, 0), (INTERVAL, 0, 1), (2 * INTERVAL, 0, 1)):
        monkeypatch.setattr(time, "monotonic", lambda at=NOW + seconds: at)
        appender.pending = pending
        writer._pump()
        writer._sync_if_due()
        assert (appender.pending, appender.syncs) == (0, syncs)


@pytest.mark.parametrize("since", [None, NOW])
def test_a_flush_is_told_once_all_is_on_the_disk(writer: LogWriter, appender: Appender, since: float | None) -> None:
    """Whoever waits for a flush goes on at once, and not before records that are still to be written."""
    flush = threading.Event()
    writer._flushes.append(flush)
    writer._unsynced_since, appender.pending = since, 1
    writer._sync_if_due()
    assert (appender.syncs, flush.is_set()) == (0, False)
    appender.pending = 0
    writer._sync_if_due()
    assert (appender.syncs, flush.is_set(), writer._flushes) == (1, True, [])


def test_the_interval_does_not_answer_a_flush(writer: LogWriter, appender: Appender) -> None:
    """A sync that is due while records wait says nothing about those."""
    flush = threading.Event()
    writer._flushes.append(flush)
    writer._unsynced_since, appender.pending = NOW - INTERVAL, 1
    writer._sync_if_due()
    assert (appender.syncs, flush.is_set(), writer._flushes) == (1, False, [flush])


def test_a_sync_that_fails_is_tried_again(writer: LogWriter, appender: Appender) -> None:
    """A failing disk shows in `tokgate status`, and nobody is told that records are safe."""
    flush = threading.Event()
    writer._flushes.append(flush)
    writer._unsynced_since, appender.fails = NOW - INTERVAL, True
    writer._sync_if_due()
    assert (writer._errors, flush.is_set()) == (1, False)
    appender.fails = False
    writer._sync_if_due()
    assert (appender.syncs, flush.is_set()) == (2, True)
