"""The process that writes the log for all others: it ends after them, loses nothing, and says so if it does."""

import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.samples import OBSERVER
from labs.waiting import until
from tokgate.blocklog.records.record import Record
from tokgate.blocklog.write import collector
from tokgate.blocklog.write.channel import KEPT, Backlog, RecordSender, channel, left_in, new_backlog
from tokgate.blocklog.write.channel import receive as channel_receive
from tokgate.blocklog.write.collector import collect
from tokgate.blocklog.write.segment import Segment
from tokgate.blocklog.write.writer import LogWriter, WriterHealth


class Lab:
    """A collector's channel and lifeline, and its log."""

    def __init__(self, folder: Path) -> None:
        self.write, self.read = channel()
        self.lifeline, self._held = os.pipe()
        self.path, self.sender = folder / "block.ndjson", RecordSender(self.write, OBSERVER)

    def collect(self, **more: Any) -> int:
        """What the collector's process does; its exit code."""
        return collect(self.read, self.path, OBSERVER, self.lifeline, **more)

    def orphan(self) -> None:
        """End the process that started it."""
        os.close(self._held)
        self._held = -1

    def close(self) -> None:
        self.write.close()
        self.read.close()
        os.close(self.lifeline)
        if self._held >= 0:
            self.orphan()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """What the collector does with signals, and leaves open, ends with its own process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before, made, pipe = [signal.getsignal(number) for number in numbers], Lab(tmp_path), os.pipe()
    monkeypatch.setattr("tokgate.blocklog.write.collector.os.pipe", lambda: pipe)
    yield made
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    for descriptor in pipe:
        os.close(descriptor)
    made.close()


def numbers(path: Path) -> list[int]:
    """The records that were put."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [record["n"] for record in map(json.loads, lines) if "n" in record]


def _holds(path: Path, number: int) -> bool:
    return number in numbers(path)


def test_all_that_was_sent_is_written(lab: Lab) -> None:
    """Once every sender has closed, what they sent is in the file, in order; what is no record stops nothing."""
    lab.sender.put({"n": 1})
    lab.write.send(b"no record")
    lab.sender.put({"n": 2})
    lab.write.close()
    assert lab.collect() == 0
    assert numbers(lab.path) == [1, 2]


def test_a_record_that_comes_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from the backlog of a process that was killed: it is written once, while its id is among the latest."""
    assert collector.REMEMBERED > KEPT  # a whole backlog may come again
    monkeypatch.setattr(collector, "REMEMBERED", 2)
    lab.path.write_bytes(b'{"n":-1,"event":{"id":"' + b"e" * 36 + b'"}}\n')
    for number, name in enumerate(("a", "e" * 36, "a", "b", "a", "c", "b", "a")):
        lab.sender.put({"n": number, "event": {"id": name}})
    lab.sender.put({"n": 8})
    lab.sender.put({"n": 9})
    lab.write.close()
    assert lab.collect() == 0
    assert numbers(lab.path) == [-1, 0, 3, 5, 7, 8, 9]


def test_it_ends_with_the_process_that_started_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a supervisor that was killed no collector stays with the log locked; what comes at the last is written."""
    monkeypatch.setattr(collector, "ORPHANED", 0.5)
    lab.sender.put({"n": 1})
    lab.orphan()
    later = threading.Timer(0.1, lambda: lab.sender.put({"n": 2}))
    later.start()
    assert lab.collect() == 0
    later.join()
    assert numbers(lab.path) == [1, 2]


def test_what_it_took_and_had_not_written(lab: Lab) -> None:
    """A collector that is killed leaves it in its backlog, and one that ends in order leaves nothing there."""
    backlog = new_backlog()
    for number in range(200):
        lab.sender.put({"n": number})
    pid = os.fork()
    if not pid:
        LogWriter._pump = LogWriter._turn = lambda self: None  # type: ignore[method-assign]
        lab.path = lab.path.with_name("killed.ndjson")
        lab.collect(backlog=backlog)
    until("it has taken all", lambda: len(list(left_in(backlog))) == 200)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [json.loads(each)["n"] for each in left_in(backlog)] == list(range(200))
    for message in left_in(backlog):
        lab.sender.send(message)
    lab.write.close()
    assert lab.collect(backlog=backlog) == 0
    assert numbers(lab.path) == list(range(200))
    assert list(left_in(backlog)) == []
    os.close(backlog)


def test_the_last_records_before_the_end_are_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that lacks its `stopped` record looks like one of a crash, however close to the end that was sent."""
    unread = [True]
    monkeypatch.setattr(collector, "ORPHANED", 0.0)

    def receive(sock: socket.socket, kept: Backlog) -> Record | None:
        try:
            return channel_receive(sock, kept)
        except BlockingIOError:
            if unread:  # the collector has found the channel empty: then the supervisor stops
                unread.clear()
                lab.sender.put({"n": 1})
                lab.orphan()
            raise

    monkeypatch.setattr(collector, "receive", receive)
    assert lab.collect() == 0
    assert numbers(lab.path) == [1]


def test_lost_records_are_told_by_the_exit_code(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the end must not look like a good one: a supervisor could not tell that lines are missing."""

    def no_room(_: Segment, __: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Segment, "write", no_room)
    monkeypatch.setattr(collector, "DEADLINE", 0.1)
    lab.sender.put({"n": 1})
    lab.write.close()
    assert lab.collect() == 3


def test_signals(lab: Lab) -> None:
    """Ctrl-C and a hangup reach every process of the terminal: the log goes on until all have ended."""

    def report(_: WriterHealth) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        assert {signal.getsignal(number) for number in numbers} == {signal.SIG_IGN}
        lab.write.close()

    assert lab.collect(report=report) == 0


def test_reports_come_once_in_a_while(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load the health of the log is told every so many seconds, not with each batch of records."""
    monkeypatch.setattr(collector, "REPORT_EVERY", 3600.0)
    told = list[WriterHealth]()

    def send() -> None:
        with lab.write:
            for number in range(3):
                lab.sender.put({"n": number})
                until("the record in the file", partial(_holds, lab.path, number))

    thread = threading.Thread(target=send)
    thread.start()
    assert lab.collect(report=told.append) == 0
    thread.join()
    assert [health.path for health in told] == [lab.path]
