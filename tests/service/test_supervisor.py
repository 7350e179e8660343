"""Gates, openers and the collector under their supervisor: whatever dies or changes, clients are served."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import POLICY, WITHOUT_BAN, Running, Scraped, children, python_for, until
from tokgate.cli.main import main
from tokgate.service.child_programs import BEHIND_TRAFFIC


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Running]:
    """A running tokgate, whose log is checked at the end."""
    started = Running(tmp_path)
    yield started
    started.close()
    actions = [record["event"]["action"] for record in check_lines(started.log)]
    assert "stopped" in actions
    assert "Traceback" not in started.narrated(), started.narrated()


def _replaced(running: Running, victim: int) -> bool:
    return len(set(children(running.process.pid)) - {victim}) == 5


def _told(running: Running, times: int) -> bool:
    return running.narrated().count("is in force") == times


def test_whatever_is_killed_comes_back(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """All processes are killed, each by itself: the others serve on, it is replaced, and its death is counted.

    Each connection is counted once, whether its gate or opener was killed, replaced by a new policy, or lives.
    """
    running = Scraped(tmp_path, workers=2)
    until("it is well", lambda: running.problems() == [])
    until("an opener answers", running.refuses)
    refused = 1

    def some_pass() -> int:
        return [running.passes() for _ in range(10)].count(True)

    assert some_pass() == 10
    for victim in children(running.process.pid):
        os.kill(victim, signal.SIGKILL)
        until("it is replaced", partial(_replaced, running, victim))
        assert some_pass() == 10
        assert running.refuses()
        refused += 1
        (opener,) = filter(_stands_back, children(running.process.pid))  # where processors are short, gates come first
        assert b"tokgate.service.opener_process" in Path(f"/proc/{opener}/cmdline").read_bytes()
    assert running.narrated().count("starting it again") == 5
    until("metrics are served", lambda: running.metric("restarts_total", role="metrics"))
    assert [running.metric("restarts_total", role=role) for role in ("gate", "opener", "collector")] == [2, 1, 1]
    running.write(POLICY | {"settings": {"unknown_clients": "block"}})
    until("the new policy is told", lambda: "is in force, it replaces" in running.narrated())
    assert some_pass() == 10
    for _ in range(5):
        refused += running.refuses()
    running.close()
    counted = [r["tokgate"] for r in check_lines(running.log) if r["event"]["action"] == "coverage-counted"]
    sums: dict[str, int] = {}
    for visibility, number in (item for each in counted for item in each["coverage"]["here"].items()):
        sums[visibility] = sums.get(visibility, 0) + number
    assert sums == {"address": 70, "decrypted": refused}


def _stands_back(pid: int) -> bool:
    return os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + BEHIND_TRAFFIC


def test_a_wrong_policy_on_disk_keeps_nobody_from_starting_again(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong policy needs a person: with it in the folder everything may die and comes back with the last good one."""
    until("an opener answers", running.refuses)
    until("all of it runs", lambda: not running.problems_told())
    ask = ["status", "--confdir", str(tmp_path / "keys")]
    state = _state(ask, capsys)
    assert sorted(w["name"] for w in state["workers"]) == ["collector-0", "gate-0", "gate-1", "opener-0"]
    assert [(b["ban"], b["phase"], b["networks"]) for b in state["policy"]["bans"]] == [("ban", "block", ["here"])]
    running.write(POLICY | {"bans": {"ban": {"title": "no services"}}})
    until("the error is told", lambda: "has errors" in running.narrated())
    until("status says it", lambda: main(ask) == 1 and "not in force" in capsys.readouterr().out)
    for victim in children(running.process.pid):
        os.kill(victim, signal.SIGKILL)
    until("banned names are refused", running.refuses)
    until("allowed tunnels pass", running.passes)


SLOW = """
import sys, time
from pathlib import Path
from tokgate.cli.main import main
from tokgate.config.reload import holder

real = holder.load

def load(*given):
    while Path("hold").exists():  # as long as very many names take
        Path("reading").touch()
        time.sleep(0.01)
    return real(*given)

holder.load = load
sys.exit(main(sys.argv[1:]))
"""


def test_a_policy_that_takes_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Reading many names, or files that never rest: whoever asks is answered, whoever dies is replaced, it ends."""
    hold, ask = tmp_path / "hold", ["status", "--confdir", str(tmp_path / "keys")]
    running, stop = Running(tmp_path, python=python_for(tmp_path, SLOW)), threading.Event()

    def write_on() -> None:
        while not stop.wait(0.03):
            (running.policies / "growing.yaml").write_text(f"# {time.monotonic()}")

    writer = threading.Thread(target=write_on)
    try:
        before = _state(ask, capsys)["policy"]["version"]
        hold.touch()
        running.write(WITHOUT_BAN)
        until("it is read", (tmp_path / "reading").exists)
        assert _state(ask, capsys)["policy"]["version"] == before
        hold.unlink()
        until("the new policy is in force", lambda: _state(ask, capsys)["policy"]["version"] != before)
        writer.start()
        until("it grows", (running.policies / "growing.yaml").exists)
        workers = _state(ask, capsys)["workers"]
        gate = next(each["pid"] for each in workers if each["name"].startswith("gate-") and not each["retired"])
        os.kill(gate, signal.SIGKILL)
        until("it is replaced", lambda: len(set(children(running.process.pid)) - {gate}) == 4)
        running.close()
    finally:
        stop.set()
        hold.unlink(missing_ok=True)
        if writer.is_alive():
            writer.join()


def test_a_new_policy_is_a_new_generation(running: Running) -> None:
    """Connections follow the new policy, also those that are open: they go to the new gates, and the old ones end.

    Over three reloads: what no ban concerns goes on, what the last one bans is cut, with a record that says so.
    """
    _, kept = running.connect("127.0.0.1", running.origin.getsockname()[1])
    _, doomed = running.connect("localhost", running.origin.getsockname()[1])
    old = set(children(running.process.pid))
    running.write(WITHOUT_BAN)
    until("the new policy is told", lambda: "is in force, it replaces" in running.narrated())
    until("banned names pass", lambda: not running.refuses())
    # Of the old ones stay the opener and the collector.
    until("the old gates end", lambda: len(old & set(children(running.process.pid))) == 2)
    until("nobody else is there", lambda: len(children(running.process.pid)) == 4)
    for number in range(1, 4):
        for sock in (kept, doomed):
            sock.sendall(b"\x00goes on")
            assert sock.recv(8) == b"\x00goes on"
        running.write(WITHOUT_BAN | {"networks": {f"here-{number}": {"cidrs": ["127.0.0.0/8"]}}})
        until("the policy is told", partial(_told, running, number + 1))
    running.write(POLICY | {"services": {"clips": {"names": {"exact": ["localhost"]}}}})
    with pytest.raises(ConnectionResetError):
        doomed.recv(1)
    kept.sendall(b"\x00still")
    assert kept.recv(6) == b"\x00still"
    kept.close()
    doomed.close()
    record = until("it is told", lambda: next((r for r in running.records() if "cut" in r["event"]["action"]), None))
    assert record["destination"]["domain"] == "localhost"
    loaded = [r for r in running.records() if r["event"]["action"] == "policy-loaded"]
    assert record["tokgate"]["policy"]["version"] == loaded[-1]["tokgate"]["policy"]["version"]


def _state(ask: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the supervisor answers; on a busy machine that may take longer than status waits."""
    while True:
        capsys.readouterr()
        main([*ask, "--json"])
        state: dict[str, Any] = json.loads(capsys.readouterr().out)
        if state["known"] == "now":
            return state
