"""What is so for `tokgate restart`: the program on disk is tried first, and takes over in the same process."""

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from labs.command_line import Command
from labs.program_change import How, Restarting, bequest_of
from labs.running_lab import POLICY, ROOT, Running, children, until
from tokgate.runtime.control_socket import Caller, ControlRequest, ask
from tokgate.service.program_change import ProgramChange

MODE = ("--mode", "gate:explicit@127.0.0.1:0")


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Restarting]:
    """One whose program can be changed."""
    started = Restarting(tmp_path, How.EXEC)
    yield started
    started.close_all()
    check_lines(started.log)


BROKEN = {
    "policy/decide.py": ("", "SyntaxError"),
    "gate/relay.py": ("", "SyntaxError"),
    "service/opener_process.py": ("", "SyntaxError"),
    "mitm/layers/relay.py": ("", "SyntaxError"),
    "blocklog/write/collector.py": ("", "SyntaxError"),
    "service/metrics/http_server.py": ("", "SyntaxError"),
    "runtime/instance.py": ("def __init__(", "TypeError"),
    "service/program_change.py": ("    program: str\n", "another"),
}
"""Modules, with what is changed there, everything if nothing is named; and what is then said."""
BREAKS = {
    "": "is not Python\n",
    "def __init__(": "def __init__(here, ",
    "    program: str\n": "    program: str\n    another: str\n",
}


def test_what_is_broken_takes_nothing_over(running: Restarting, tokgate: Command) -> None:
    """A version that can't run, or an edit with an error, is told; all goes on as it was."""
    until("an opener has begun", running.refuses)
    until("it is well", lambda: running.problems() == [])
    before = set(children(running.process.pid))

    def refused(said: str) -> None:
        outcome = tokgate("restart", "--confdir", str(running.confdir))
        assert outcome.code == 1
        assert "all stays as it is" in outcome.err
        assert said in outcome.err
        assert running.passes()
        assert set(children(running.process.pid)) == before

    for module, (where, said) in BROKEN.items():
        changed = running.addons / "tokgate" / module
        source = changed.read_text()
        changed.write_text(source.replace(where, BREAKS[where], 1) if where else BREAKS[where])
        refused(said)
        changed.write_text(source)
    running.write(POLICY | {"bans": {"ban": {"title": "no services"}}})
    refused("services")


def test_stopped_while_the_program_changes(tmp_path: Path) -> None:
    """A stop that comes too late for the program before is the next one's, which ends in order."""
    shutil.copytree(ROOT / "addons" / "tokgate", tmp_path / "program" / "tokgate")
    changed = tmp_path / "program" / "tokgate" / "service" / "supervisor.py"
    late = "        carrier.go()"
    stops = "        os.kill(os.getpid(), signal.SIGTERM)\n"
    changed.write_text(changed.read_text().replace(late, stops + late, 1))
    running = Running(tmp_path, 1, MODE, addons=tmp_path / "program")
    answer = ask(running.confdir, ControlRequest.RESTART)
    assert answer is not None
    assert answer["ok"]
    assert running.process.wait(60) == 0, running.narrated()
    running.origin.close()
    actions = [record["event"]["action"] for record in running.records()]
    assert (actions.count("started"), actions.count("stopped"), actions[-1]) == (2, 2, "log-checkpoint")


NONE_LEFT = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class _Caller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []

    def tell(self, text: str) -> None:
        """Progress is of no interest here."""

    def answer(self, answer: dict[str, Any]) -> None:
        self.answers.append(answer)


@pytest.mark.parametrize("which", [1, 2, "spawn"], ids=["for what is said", "for the bequest", "a process"])
def test_what_the_system_denies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: int | str) -> None:
    """Short of descriptors, memory or processes, the running program stays, and says why."""
    made: list[int] = []
    real = os.memfd_create

    def memory(name: str) -> int:
        if len(made) + 1 == which:
            raise NONE_LEFT
        made.append(real(name))
        return made[-1]

    def spawn(*_: object, **__: object) -> int:
        raise NONE_LEFT

    monkeypatch.setattr(os, "memfd_create", memory)
    monkeypatch.setattr(os, "posix_spawn", spawn)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "tokgate", *sys.argv[1:]])
    others: dict[int, Any] = {}
    program, caller = ProgramChange(tmp_path, others, lambda _: bequest_of(range(15))), _Caller()
    program.ask(cast(Caller, caller))
    assert caller.answers == [{"ok": False, "problems": "the program can't be started: Too many open files"}]
    assert (program.tried, others) == (None, {})
    for descriptor in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
