"""The lock of a network namespace's gateway: one process has it, who comes next learns who that is."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.netns import Namespace
from tokgate.gateway import GatewayError, kernel
from tokgate.gateway.kernel import GatewayLock, holder

HOLDS = (
    "from tokgate.gateway.kernel import GatewayLock\nlock = GatewayLock()\nlock.take()\nprint(flush=True)\ninput()\n"
)


@pytest.fixture
def another(namespace: Namespace) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts a process that takes the lock of the namespace and keeps it until it is killed."""
    started = []

    def start() -> "subprocess.Popen[bytes]":
        words = ("ip", "netns", "exec", namespace.name, sys.executable, "-c", HOLDS)
        started.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == b"\n"
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def test_a_process_that_has_it(namespace: Namespace, another: Callable[[], "subprocess.Popen[bytes]"]) -> None:
    """The second is told which one; however the first ends, it has it then."""
    first, lock = another(), GatewayLock()
    named = re.escape(f"process {first.pid}") + r"( \(.*\))? keeps the gateway here: stop that first"
    with pytest.raises(GatewayError, match=named):
        namespace.inside(lock.take)
    assert str(namespace.inside(holder)).startswith(f"process {first.pid}")
    first.kill()
    first.wait()
    assert namespace.inside(holder) is None
    namespace.inside(lock.take)
    namespace.inside(lock.take)
    assert str(namespace.inside(holder)).startswith(f"process {os.getpid()}")
    lock.close()
    lock.close()
    assert namespace.inside(holder) is None


def test_other_network_namespaces(another: Callable[[], "subprocess.Popen[bytes]"], namespace: Namespace) -> None:
    """Each has a gateway of its own."""
    another()
    beside = Namespace(f"{namespace.name}b").add()
    try:
        assert beside.inside(holder) is None
    finally:
        beside.remove()


def test_many_who_ask(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told that it is held, and beyond a number not by whom."""
    monkeypatch.setattr(kernel, "_ASKING", 0)
    lock = GatewayLock()
    namespace.inside(lock.take)
    told = {str(namespace.inside(holder)).partition(" (")[0] for _ in range(3)}
    assert told == {f"process {os.getpid()}", "another process"}
    lock.close()


CGROUPS = {
    "0::/system.slice/tokgate.service\n": " (tokgate.service)",
    "9:name=systemd:/\n0::/\n": "",
    "1:cpu:/user.slice\n0::/user.slice/user-0.slice/session-1.scope\n": " (session-1.scope)",
}


@pytest.mark.parametrize("groups", CGROUPS)
def test_its_unit(groups: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the control groups of a process only what systemd names tells an admin what to stop."""
    (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(kernel, "Path", lambda _: tmp_path / "cgroup")
    assert kernel._unit(7) == CGROUPS[groups]
    (tmp_path / "cgroup").unlink()
    assert kernel._unit(7) == ""
