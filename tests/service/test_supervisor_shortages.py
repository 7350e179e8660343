"""A supervisor on a machine that gives nothing more: no thread, no process, no descriptor. What runs runs on."""

import errno
import os
import resource
import signal
from contextlib import closing
from functools import partial
from pathlib import Path

from labs.running_lab import POLICY, Running, Scraped, children, python_for, until
from tokgate.service.last_state import NAME

NEXT = POLICY | {"settings": {"unknown_clients": "block"}}
"""The policy with another setting."""
DRIVER = """
import errno, os, sys, threading
from pathlib import Path
from tokgate.cli.main import main

fork, start = os.fork, threading.Thread.start

def fork_if_allowed():
    if Path("full").exists():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

def start_if_allowed(thread):
    if Path("full").exists():
        raise RuntimeError("can't start new thread")
    start(thread)

os.fork, threading.Thread.start = fork_if_allowed, start_if_allowed
sys.exit(main(sys.argv[1:]))
"""
"""A tokgate that can start neither threads nor processes while there is a file, as at the limit of a control group."""
LOSES_ITS_ERRORS = """
import os, sys
from tokgate.cli.main import main
from tokgate.config.reload.holder import PolicyHolder

read = PolicyHolder.read

def read_with_a_full_disk(holder, seen):
    os.dup2(os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC), 2)
    return read(holder, seen)

PolicyHolder.read = read_with_a_full_disk
sys.exit(main(sys.argv[1:]))
"""
"""A tokgate whose standard error is a file on a disk that is full by the first reload."""
NOT_IN_FORCE = "the newest policy is not in force in gates: none can be started with it"


def _gates(running: Running) -> dict[int, str]:
    """The versions of the policy of gates that serve, by process id."""
    return {each["pid"]: each["version"] for each in running.workers("gate")}


def test_a_policy_for_which_no_gate_can_be_started(tmp_path: Path) -> None:
    """The gates serve on by the one before, status says so, and the new one is in force once processes can start.

    Whoever looks after the machine sees by the metrics how it is just then.
    """
    running = Scraped(tmp_path, workers=2, python=python_for(tmp_path, DRIVER))
    try:
        until("an opener answers", running.refuses)
        until("the process for metrics serves", lambda: any(each["report"] for each in running.workers("metrics")))
        before = _gates(running)
        (tmp_path / "full").touch()
        until("metrics are told", lambda: running.get("/metrics")[0] == 200)
        until("health is told", lambda: running.problems() == [])
        running.write(NEXT)
        until("it is told", lambda: NOT_IN_FORCE in running.problems_told())
        assert running.passes()
        assert running.refuses()
        assert _gates(running) == before
        (tmp_path / "full").unlink()
        until("the new policy is in force", lambda: not before.items() & _gates(running).items() and _gates(running))
        assert NOT_IN_FORCE not in running.problems_told()
        assert running.passes()
        assert running.refuses()
    finally:
        (tmp_path / "full").unlink(missing_ok=True)
        running.close()


def test_no_descriptor_for_a_policy_and_a_process(tmp_path: Path) -> None:
    """The last good policy stays, as with any error, and who died is tried again; all that comes later."""
    with closing(Running(tmp_path)) as running:
        until("an opener answers", running.refuses)
        until("it has written its state", (running.confdir / NAME).exists)
        pid = running.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        held = len([*Path(f"/proc/{pid}/fd").iterdir()])
        # All numbers below are taken for good; and it waits for fewer than so many, or poll(2) would refuse.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (held // 2, limits[1]))
        running.write(NEXT)
        until("it is told", lambda: os.strerror(errno.EMFILE).lower() in running.narrated())
        victim = children(pid)[-1]
        os.kill(victim, signal.SIGKILL)
        until("it is tried again", lambda: "can't be started: Too many open files" in running.narrated())
        until("its state is no longer known", lambda: not (running.confdir / NAME).exists())
        assert running.passes()
        assert running.refuses()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        until("the new policy is in force", lambda: "is in force, it replaces" in running.narrated())
        until("it is replaced", lambda: len(set(children(pid)) - {victim}) == 4)
        assert running.passes()
        assert running.refuses()


def test_nothing_can_be_written_to_standard_error(tmp_path: Path) -> None:
    """Policies are followed, whoever dies is replaced, and the end is a good one."""
    buffered = {"PYTHONUNBUFFERED": ""}
    with closing(Running(tmp_path, 1, python=python_for(tmp_path, LOSES_ITS_ERRORS), environment=buffered)) as running:
        until("an opener answers", running.refuses)
        for policy in (NEXT, POLICY):
            before = _gates(running)
            running.write(policy)
            until("the policy is in force", partial(_replaced, running, before))
            before = _gates(running)
            os.kill(min(before), signal.SIGKILL)
            until("the gate is replaced", partial(_replaced, running, before))
        assert running.refuses()


def _replaced(running: Running, before: dict[int, str]) -> bool:
    now = _gates(running)
    return bool(now) and not now.keys() & before.keys()
