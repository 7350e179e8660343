"""Records on their way between processes: none lost, none waited for, a gap told; kept where a kill takes none."""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from whenever import Instant

from tokgate.blocklog.records.record import Observer, encode, timestamp
from tokgate.blocklog.write.channel import (
    KEPT,
    MAX_RECORD,
    Backlog,
    RecordSender,
    channel,
    left_in,
    new_backlog,
    receive,
)

NOW = Instant.from_utc(2023, 5, 1)
type Ends = tuple[RecordSender, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    write, read = channel()
    read.setblocking(False)
    with write, read:
        yield RecordSender(write, Observer(hostname="gate.example.org", version="test"), lambda: NOW), read


def drain(read: socket.socket, *, ended: bool = False) -> list[dict[str, Any]]:
    """All that has come; `ended`: up to the end, when all senders have gone."""
    records: list[dict[str, Any]] = []
    while True:
        try:
            record = receive(read)
        except BlockingIOError:
            return records
        if record is None:
            assert ended
            return records
        records.append(record)


def test_what_is_not_taken_is_kept(ends: Ends) -> None:
    """All arrives in order, as it was put, whatever letters it holds."""
    sender, read = ends
    assert sender.put({"name": "bücher.example"})
    assert drain(read) == [{"name": "bücher.example"}]
    for n in range(3000):
        assert sender.put({"n": n, "pad": "x" * 500})
    seen = [record["n"] for record in drain(read)]
    assert sender.put({"n": 3000})  # there is room again, but others come first
    while not sender.flush() or len(seen) < 3001:
        seen += [record["n"] for record in drain(read)]
    assert seen == list(range(3001))


def test_a_gap_is_told(ends: Ends, valid_record: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Beyond the bound records are dropped and counted, and the count arrives as a valid record of its own."""
    sender, read = ends
    put = [sender.put({"n": n, "pad": "x" * 2000}) for n in range(KEPT + 500)]
    lost = put.count(False)
    assert lost == sender.dropped > 0
    assert put.count(True) == sender.sent + KEPT
    received: list[dict[str, Any]] = []
    while not sender.flush() or len(received) <= len(put) - lost:
        received += drain(read)
    gap = valid_record(received[-1])
    assert (gap["event"]["action"], gap["tokgate"]["gap"]["dropped"]) == ("log-gap", lost)


def test_a_gap_begins_with_the_first_record_that_was_lost() -> None:
    """However many follow: who reads the log knows from when on records are missing."""
    moments = iter([NOW, NOW.add(seconds=7), NOW.add(seconds=9)])
    write, read = channel()
    with write, read:
        sender = RecordSender(write, Observer(hostname="gate.example.org", version="test"), lambda: next(moments))
        lost = [sender.put({"pad": "x" * MAX_RECORD}) for _ in range(2)]
        assert (lost, sender.flush()) == ([False, False], True)
        gap = (receive(read) or {})["tokgate"]["gap"]
    assert gap == {"dropped": 2, "since": timestamp(NOW), "until": timestamp(NOW.add(seconds=7))}


def test_a_record_for_which_there_is_no_memory_is_a_gap(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like any other that is lost: it is counted, and told of once there is memory again."""
    sender, read = ends

    def full(_: object, __: bytes) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as broken:
        broken.setattr(Backlog, "put", full)
        put = [sender.put({"n": n, "pad": "x" * 2000}) for n in range(1000)]
    assert put.count(False) == sender.dropped > 0
    received = drain(read)
    assert sender.flush()
    gap = (received + drain(read))[-1]
    assert gap["tokgate"]["gap"]["dropped"] == put.count(False)


def test_the_kernel_holds_a_pause(ends: Ends) -> None:
    """A reader that pauses for a moment costs a gate no memory of its own: the queue is longer than the default."""
    _, read = ends
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as plain:
        assert read.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > plain.getsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF
        )


def test_a_record_too_long_is_a_gap(ends: Ends) -> None:
    sender, read = ends
    longest = {"pad": "x" * (MAX_RECORD - len(encode({"pad": ""})))}
    assert not sender.put({"pad": longest["pad"] + "x"})
    assert sender.put({"n": 1})
    assert [record.get("n") for record in drain(read)] == [1, None]
    assert sender.put(longest)
    assert drain(read) == [longest]


def test_the_end_and_junk(ends: Ends) -> None:
    """What is no record is an error; when all senders have gone, that is told."""
    write, read = channel()
    write.send(b"[]")
    with pytest.raises(ValueError, match="not a JSON object"):
        receive(read)
    write.close()
    assert receive(read) is None
    read.close()


@pytest.mark.parametrize("seconds", [0.9, 60])
def test_what_is_kept_is_sent_at_the_end(ends: Ends, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """As long as there is time, a reader that comes late gets everything; it is looked for often."""
    sender, read = ends
    records = [{"n": n, "pad": "x" * 500} for n in range(3000)]
    assert all(sender.put(record) for record in records)
    sender.send(b'{"n":3000}')
    records.append({"n": 3000})
    monkeypatch.setattr("tokgate.blocklog.write.channel.time.monotonic", lambda: 1000.0)
    assert not sender.finish(0)
    seen: list[dict[str, Any]] = []
    pauses: list[float] = []

    def select(_read: object, _write: object, _error: object, seconds: float) -> None:
        pauses.append(seconds)
        seen.extend(drain(read))

    monkeypatch.setattr("tokgate.blocklog.write.channel.select.select", select)
    assert sender.finish(seconds)
    assert seen + drain(read) == records
    assert set(pauses) == {0.05}


def test_a_closed_sender_is_gone(ends: Ends) -> None:
    """The reader learns that nobody sends any more; a gate that ends keeps no descriptor."""
    sender, read = ends
    for n in range(3000):
        sender.put({"n": n, "pad": "x" * 500})
    seen = len(drain(read))
    sender.close()
    assert len(drain(read, ended=True)) > 0 < seen < 3000  # as much of what was kept as the kernel takes


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = new_backlog()
    yield made
    os.close(made)


def test_what_a_killed_process_left(descriptor: int) -> None:
    """All that it put and had not sent is there after SIGKILL, in order."""
    pid = os.fork()
    if not pid:
        backlog = Backlog(descriptor)
        for number in range(100):
            backlog.put(b"%d" % number)
        backlog.put(b"")
        for _ in range(40):
            backlog.sent()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert list(left_in(descriptor)) == [*(b"%d" % number for number in range(40, 100)), b""]


def test_what_was_sent_is_gone(descriptor: int) -> None:
    """A backlog that was sent takes no memory, and the next record is the first again."""
    backlog = Backlog(descriptor)
    for _ in range(3):
        backlog.put(b"x" * 1000)
        backlog.put(b"y" * 1000)
        assert (backlog.first[:1], len(backlog)) == (b"x", 2)
        backlog.sent()
        assert list(left_in(descriptor)) == [b"y" * 1000]
        backlog.sent()
        assert list(left_in(descriptor)) == []
        assert os.fstat(descriptor).st_size < 100


def test_a_record_that_was_being_put(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of it, nobody was answered yet: what is there of it is no record."""
    backlog = Backlog(descriptor)
    backlog.put(b"whole")
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data, at) if at else 0)
    backlog.put(b"half")
    assert list(left_in(descriptor)) == [b"whole"]


def test_memory_does_not_grow(descriptor: int) -> None:
    """Of a backlog that is never empty, as the collector's under load: what is forgotten makes room."""
    backlog = Backlog(descriptor)
    for number in range(500):
        backlog.put(b"%08d" % number * 100)
        if number >= 10:
            backlog.sent()
        assert os.fstat(descriptor).st_size < 30 * 1000
    assert [each[:8] for each in left_in(descriptor)] == [b"%08d" % number for number in range(490, 500)]
