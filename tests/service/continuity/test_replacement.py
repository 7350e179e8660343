"""A new program takes over from the running one: no client is refused, no connection ends, nothing is miscounted."""

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Command
from labs.load import Load, tallied, upgrade
from labs.running_lab import POLICY, ROOT, Running, Scraped, children, until
from tokgate.runtime.control_socket import ControlRequest, ask

MODE = ("--mode", "gate:explicit@127.0.0.1:0")
RESTARTS = 10


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Scraped]:
    """One whose program can be changed: its package is a copy."""
    shutil.copytree(ROOT / "addons" / "tokgate", tmp_path / "program" / "tokgate")
    started = Scraped(tmp_path, MODE, workers=2, addons=tmp_path / "program")
    until("it is well", lambda: started.problems() == [])
    yield started
    if started.process.poll() is None:
        started.close()
    check_lines(started.log)


def _restarted(running: Running) -> dict[str, Any]:
    answer = ask(running.confdir, ControlRequest.RESTART)
    assert answer is not None
    return answer


@contextlib.contextmanager
def _checking(running: Scraped) -> Iterator[list[int]]:
    """Health is asked for again and again; the statuses."""
    over, statuses = threading.Event(), list[int]()

    def check() -> None:
        while not over.is_set():
            statuses.append(running.get("/healthz")[0])

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def test_ten_restarts_under_load(running: Scraped) -> None:
    """None of those who come, stay or download notices any; each restart is told, and each connection counted once."""
    until("an opener answers", running.refuses)
    pid = running.process.pid
    with Load(running) as load, _checking(running) as checks:
        for _ in range(RESTARTS):
            answer = _restarted(running)
            assert (answer["ok"], answer["moves"]) == (True, True), answer
            load.goes_on()
    assert load.failures == []
    assert 200 in checks
    assert 0 not in checks, "a health check was refused, or had no answer"
    until("it is well", lambda: running.problems() == [])
    assert running.process.pid == pid
    assert running.passes()
    # The old gates end when they have passed all on, the old opener with the download, the old collectors at once.
    until("nobody else is there", lambda: len(children(pid)) == 5)
    running.close()
    actions = [record["event"]["action"] for record in running.records()]
    assert (actions.count("started"), actions.count("stopped")) == (RESTARTS + 1, RESTARTS + 1)
    # Tunnels of those who came, of those who stayed, the one after, the download, and refusals at the start.
    assert tallied(running) == load.served + 2 + 1 + 1 + 1


def _ending(running: Scraped) -> float | None:
    return running.metric("connections", role="gate", state="ending")


def test_upgrades_under_load(running: Scraped) -> None:
    """What the new version can't take over the old gates serve to its end; new clients are the new version's."""
    until("an opener answers", running.refuses)
    with Load(running) as load:
        for number in range(RESTARTS):
            upgrade(running, number)
            answer = _restarted(running)
            assert (answer["ok"], answer["moves"]) == (True, False), answer
            load.goes_on()
        until("only what stays is with old gates", lambda: _ending(running) == 2)
    assert load.failures == []
    until("it is well", lambda: running.problems() == [])
    until("nobody else is there", lambda: len(children(running.process.pid)) == 5)


BROKEN = {
    "policy/decide.py": ("", "SyntaxError"),
    "gate/splice.py": ("", "SyntaxError"),
    "service/opener_process.py": ("", "SyntaxError"),
    "mitm/layers/next_layer.py": ("", "SyntaxError"),
    "blocklog/write/collector.py": ("", "SyntaxError"),
    "service/metrics/http_server.py": ("", "SyntaxError"),
    "runtime/instance.py": ("def __init__(", "TypeError"),
    "service/continuity/replacement.py": ("    program: str\n", "another"),
}
"""Modules, with what is changed there, everything if nothing is named; and what is then said."""
BREAKS = {
    "": "is not Python\n",
    "def __init__(": "def __init__(here, ",
    "    program: str\n": "    program: str\n    another: str\n",
}


def test_what_is_broken_takes_nothing_over(running: Scraped, tokgate: Command) -> None:
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
    late = "        execute(bequest, memory"
    stops = "        os.kill(os.getpid(), signal.SIGTERM)\n"
    changed.write_text(changed.read_text().replace(late, stops + late, 1))
    running = Running(tmp_path, 1, MODE, addons=tmp_path / "program")
    assert _restarted(running)["ok"]
    assert running.process.wait(60) == 0, running.narrated()
    running.origin.close()
    actions = [record["event"]["action"] for record in running.records()]
    assert (actions.count("started"), actions.count("stopped"), actions[-1]) == (2, 2, "log-checkpoint")


def test_who_dies_meanwhile_and_after(running: Scraped) -> None:
    """Processes of the program before are watched on: their deaths, and that of the supervisor, leave nobody behind."""
    status, kept = running.connect("127.0.0.1", running.origin.getsockname()[1])
    assert " 200 " in status
    assert _restarted(running)["ok"]
    for victim in children(running.process.pid):
        with contextlib.suppress(ProcessLookupError):  # an old gate, which has passed on what it had
            os.kill(victim, signal.SIGKILL)
        until("it is gone or replaced", partial(_gone, victim))
        until("allowed tunnels pass", running.passes)
    until("it is well but for who died", lambda: len(children(running.process.pid)) == 5)
    kept.close()


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_without_gates(tmp_path: Path, tokgate: Command) -> None:
    """mitmproxy alone can't be replaced, and says so."""
    alone = Scraped(tmp_path, ("--mode", "regular@127.0.0.1:0"))
    try:
        until("it is well", lambda: alone.problems() == [])
        outcome = tokgate("restart", "--confdir", str(alone.confdir))
        assert (outcome.code, "mitmproxy runs alone" in outcome.err) == (1, True)
        assert alone.passes()
    finally:
        alone.close()
