"""Records that wait for the collector outlive the process that made them."""

import os
import signal
from collections.abc import Iterator

import pytest

from tokgate.blocklog.write.channel import Backlog, left_in, new_backlog


@pytest.fixture
def descriptor() -> Iterator[int]:
    """An empty backlog."""
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


def test_without_a_descriptor(descriptor: int) -> None:
    """A tokgate in one process keeps its records in its own memory, and works alike."""
    backlog = Backlog()
    backlog.put(b"one")
    assert backlog.first == b"one"
    backlog.sent()
    assert len(backlog) == 0
    assert list(left_in(descriptor)) == []
