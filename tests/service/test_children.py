"""What a supervisor waits for, also where it has many descriptors open."""

import ctypes
import fcntl
import math
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.running_lab import Running, runs, stat, until
from tokgate.service import children
from tokgate.service.children import Child, Role, readable

HIGH = 1500
"""More than FD_SETSIZE, the end of what select(2) takes."""


def test_descriptors_of_high_numbers() -> None:
    """A child of another lives until it has ended; what is not ready does not count."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * HIGH), hard))
    pid = os.fork()
    if not pid:
        os.read(os.pipe()[0], 1)
    process, quiet = os.pidfd_open(pid), os.eventfd(0)
    high = fcntl.fcntl(process, fcntl.F_DUPFD_CLOEXEC, HIGH)
    child = Child(Role.GATE, 0, pid, 0.0, "", process=high)
    assert child.lives
    assert readable([high, quiet], 0.0) == []
    child.signal(9)
    assert readable([high, quiet], math.inf) == [high]
    assert not child.lives
    os.waitpid(pid, 0)
    for each in (process, quiet, high):
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_libc = ctypes.CDLL(None)


@pytest.fixture
def _heir() -> Iterator[None]:
    """Orphans become this process's children, in their own session: else the kernel wakes them by setpgid(2)."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    yield
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)


@pytest.mark.usefixtures("_heir")
def test_stopped_ones_end(tmp_path: Path) -> None:
    """Each process is woken, sees that the supervisor is dead, and ends in order."""
    running = Running(tmp_path, workers=2)
    until("an opener answers", running.refuses)
    pids = [worker["pid"] for worker in running.workers()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        until("they are stopped", lambda: [stat(pid)[0] for pid in pids] == ["T"] * len(pids))
        running.process.kill()
        running.process.wait()
        until("they have ended", lambda: not any(map(runs, pids)))
    except AssertionError:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        raise
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)


@pytest.mark.usefixtures("_heir")
def test_one_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in an endless loop drains nothing: its own alarm ends it."""
    monkeypatch.setattr(children, "MARGIN", 1)
    lifeline, held = os.pipe()
    told, tells = os.pipe()
    supervisor = os.fork()
    if not supervisor:
        child = os.fork()
        if not child:
            os.close(held)
            children.end_with_supervisor(lifeline, 0.0)
            os.write(tells, str(os.getpid()).encode())
            while True:
                pass
        signal.pause()
    try:
        os.close(held)
        pid = int(os.read(told, 64))
    finally:
        os.kill(supervisor, signal.SIGKILL)
        os.waitpid(supervisor, 0)
    until("it has ended", lambda: not runs(pid))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGALRM
    for each in (lifeline, told, tells):
        os.close(each)


@pytest.mark.parametrize("left", [False, True], ids=["killed", "left to the next program"])
def test_who_is_left_to_the_next_program_serves_on(left: bool) -> None:
    """The lifeline tells the two apart: systemd keeps it open over a restart."""
    lifeline, held = os.pipe()
    if not left:
        os.close(held)
    child = os.fork()
    if not child:
        children.end_with_supervisor(lifeline, 30.0)
        os.kill(os.getpid(), signal.SIGCONT)
        os._exit(signal.getitimer(signal.ITIMER_REAL)[0] > 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (not left)
    for each in (lifeline, held) if left else (lifeline,):
        os.close(each)
