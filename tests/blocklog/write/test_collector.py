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


@pytest.fixture(autouse=True)
def _as_before(lifeline: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the collector does with signals, and leaves open, ends with its own process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    pipe = os.pipe()  # after that of `lifeline`
    monkeypatch.setattr("tokgate.blocklog.write.collector.os.pipe", lambda: pipe)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    for descriptor in pipe:
        os.close(descriptor)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """To write, and to read."""
    write, read = channel()
    with write, read:
        yield write, read


@pytest.fixture
def lifeline() -> Iterator[tuple[int, int]]:
    """A pipe whose writing end the starting process holds."""
    read, write = os.pipe()
    yield read, write
    os.close(read)


def numbers(path: Path) -> list[int]:
    """The records that were put."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [record["n"] for record in map(json.loads, lines) if "n" in record]


def _holds(path: Path, number: int) -> bool:
    return number in numbers(path)


def test_all_that_was_sent_is_written(
    ends: tuple[socket.socket, socket.socket], lifeline: tuple[int, int], tmp_path: Path
) -> None:
    """Once every sender has closed, what they sent is in the file, in order; what is no record stops nothing."""
    write, read = ends
    sender = RecordSender(write, OBSERVER)
    sender.put({"n": 1})
    write.send(b"no record")
    sender.put({"n": 2})
    write.close()
    assert collect(read, tmp_path / "block.ndjson", OBSERVER, lifeline[0]) == 0
    os.close(lifeline[1])
    assert numbers(tmp_path / "block.ndjson") == [1, 2]


def test_a_record_that_comes_twice(
    ends: tuple[socket.socket, socket.socket],
    lifeline: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As from the backlog of a process that was killed: it is written once, while its id is among the latest."""
    assert collector.REMEMBERED > KEPT  # a whole backlog may come again
    monkeypatch.setattr(collector, "REMEMBERED", 2)
    write, read = ends
    sender = RecordSender(write, OBSERVER)
    (tmp_path / "block.ndjson").write_bytes(b'{"n":-1,"event":{"id":"' + b"e" * 36 + b'"}}\n')
    for number, name in enumerate(("a", "e" * 36, "a", "b", "a", "c", "b", "a")):
        sender.put({"n": number, "event": {"id": name}})
    sender.put({"n": 8})
    sender.put({"n": 9})
    write.close()
    assert collect(read, tmp_path / "block.ndjson", OBSERVER, lifeline[0]) == 0
    os.close(lifeline[1])
    assert numbers(tmp_path / "block.ndjson") == [-1, 0, 3, 5, 7, 8, 9]


def test_it_ends_with_the_process_that_started_it(
    ends: tuple[socket.socket, socket.socket],
    lifeline: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a supervisor that was killed no collector stays with the log locked; what comes at the last is written."""
    monkeypatch.setattr(collector, "ORPHANED", 0.5)
    write, read = ends
    RecordSender(write, OBSERVER).put({"n": 1})
    os.close(lifeline[1])
    later = threading.Timer(0.1, lambda: RecordSender(write, OBSERVER).put({"n": 2}))
    later.start()
    assert collect(read, tmp_path / "block.ndjson", OBSERVER, lifeline[0]) == 0
    later.join()
    assert numbers(tmp_path / "block.ndjson") == [1, 2]


def test_what_it_took_and_had_not_written(
    ends: tuple[socket.socket, socket.socket], lifeline: tuple[int, int], tmp_path: Path
) -> None:
    """A collector that is killed leaves it in its backlog, and one that ends in order leaves nothing there."""
    write, read = ends
    backlog = new_backlog()
    sender = RecordSender(write, OBSERVER)
    for number in range(200):
        sender.put({"n": number})
    pid = os.fork()
    if not pid:
        LogWriter._pump = LogWriter._turn = lambda self: None  # type: ignore[method-assign]
        collect(read, tmp_path / "killed.ndjson", OBSERVER, lifeline[0], backlog=backlog)
    until("it has taken all", lambda: len(list(left_in(backlog))) == 200)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [json.loads(each)["n"] for each in left_in(backlog)] == list(range(200))
    for message in left_in(backlog):
        sender.put_again(message)
    write.close()
    assert collect(read, tmp_path / "block.ndjson", OBSERVER, lifeline[0], backlog=backlog) == 0
    assert numbers(tmp_path / "block.ndjson") == list(range(200))
    assert list(left_in(backlog)) == []
    for descriptor in (lifeline[1], backlog):
        os.close(descriptor)


def test_the_last_records_before_the_end_are_written(
    ends: tuple[socket.socket, socket.socket],
    lifeline: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A log that lacks its `stopped` record looks like one of a crash, however close to the end that was sent."""
    sender = RecordSender(ends[0], OBSERVER)
    unread = [True]
    monkeypatch.setattr(collector, "ORPHANED", 0.0)

    def receive(sock: socket.socket, kept: Backlog) -> Record | None:
        try:
            return channel_receive(sock, kept)
        except BlockingIOError:
            if unread:  # the collector has found the channel empty: then the supervisor stops
                unread.clear()
                sender.put({"n": 1})
                os.close(lifeline[1])
            raise

    monkeypatch.setattr(collector, "receive", receive)
    assert collect(ends[1], tmp_path / "block.ndjson", OBSERVER, lifeline[0]) == 0
    assert numbers(tmp_path / "block.ndjson") == [1]


def test_lost_records_are_told_by_the_exit_code(
    ends: tuple[socket.socket, socket.socket],
    lifeline: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a full disk the end must not look like a good one: a supervisor could not tell that lines are missing."""

    def no_room(_: Segment, __: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Segment, "write", no_room)
    monkeypatch.setattr(collector, "DEADLINE", 0.1)
    write, read = ends
    RecordSender(write, OBSERVER).put({"n": 1})
    write.close()
    assert collect(read, tmp_path / "block.ndjson", OBSERVER, lifeline[0]) == 3
    os.close(lifeline[1])


def test_signals(ends: tuple[socket.socket, socket.socket], lifeline: tuple[int, int], tmp_path: Path) -> None:
    """Ctrl-C and a hangup reach every process of the terminal: the log goes on until all have ended."""
    write, read = ends
    path = tmp_path / "block.ndjson"

    def report(_: WriterHealth) -> None:
        assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        path.rename(tmp_path / "moved.ndjson")
        signal.raise_signal(signal.SIGHUP)
        try:
            until("the file after SIGHUP", path.exists)
        finally:
            write.close()

    assert collect(read, path, OBSERVER, lifeline[0], report=report) == 0
    os.close(lifeline[1])


def test_reports_come_once_in_a_while(
    ends: tuple[socket.socket, socket.socket],
    lifeline: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under load the health of the log is told every so many seconds, not with each batch of records."""
    monkeypatch.setattr(collector, "REPORT_EVERY", 3600.0)
    write, read = ends
    path, told = tmp_path / "block.ndjson", list[WriterHealth]()

    def send() -> None:
        sender = RecordSender(write, OBSERVER)
        with write:
            for number in range(3):
                sender.put({"n": number})
                until("the record in the file", partial(_holds, path, number))

    thread = threading.Thread(target=send)
    thread.start()
    assert collect(read, path, OBSERVER, lifeline[0], report=told.append) == 0
    thread.join()
    os.close(lifeline[1])
    assert [health.path for health in told] == [path]
