"""Gates, openers and the collector under their supervisor: whatever dies or changes, clients are served."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokgate.cli.main import main

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
POLICY: dict[str, Any] = {
    "version": 1,
    "services": {"clips": {"names": {"suffix": ["clips.example.org"]}}},
    "networks": {"here": {"cidrs": ["127.0.0.0/8"]}},
    "bans": {"ban": {"title": "Clips", "services": ["clips"], "networks": ["here"], "starts": "2023-03-10T00:00"}},
}


def until[T](what: str, probe: Callable[[], T]) -> T:
    """Wait for a condition."""
    give_up = time.monotonic() + DEADLINE
    while not (found := probe()):
        assert time.monotonic() < give_up, what
        time.sleep(0.02)
    return found


def children(pid: int) -> list[int]:
    """A process's children."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Running:
    """`tokgate run --mode gate:explicit` on loopback, and an origin that echoes."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
        self.policies = folder / "policies"
        self.policies.mkdir()
        self.log = folder / "block.ndjson"
        self.write(POLICY)
        self.narration = folder / "narration"
        command = [sys.executable, "-m", "tokgate.cli", "run", "--mode", "gate:explicit@127.0.0.1:0", "--drain", "2"]
        command += ["--workers", str(workers), "--policies", str(self.policies), "--log", str(self.log)]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
        with self.narration.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--confdir", str(folder / "keys")], stderr=output, cwd=folder, env=environment
            )
        announced = until("it announces its port", self._announced)
        self.port = int(announced[1])
        self.origin = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._echo, daemon=True).start()

    def _announced(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.narrated()
        return re.search(r"explicit clients on 127\.0\.0\.1:([0-9]+)", self.narrated())

    def _echo(self) -> None:
        while True:
            try:
                client, _ = self.origin.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    @staticmethod
    def _answer(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                return

    def narrated(self) -> str:
        """What it said."""
        return self.narration.read_text() if self.narration.exists() else ""

    def write(self, policy: dict[str, Any]) -> None:
        """Replace the policy."""
        draft = self.policies / ".draft"
        draft.write_text(yaml.safe_dump(policy))
        draft.rename(self.policies / "policy.yaml")

    def connect(self, host: str, port: int) -> tuple[str, socket.socket]:
        """A CONNECT; the status and the socket."""
        sock = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        sock.settimeout(DEADLINE)
        head = b""
        try:
            sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            while b"\r\n\r\n" not in head and (piece := sock.recv(4096)):
                head += piece
        except OSError:
            sock.close()
            raise
        return head.decode().partition("\r\n")[0], sock

    def passes(self) -> bool:
        """Whether an allowed tunnel carries bytes both ways."""
        try:
            status, sock = self.connect("127.0.0.1", self.origin.getsockname()[1])
            with sock:
                sock.sendall(b"\x00ping")
                return " 200 " in status and sock.recv(5) == b"\x00ping"
        except ConnectionError:
            return False

    def refuses(self) -> bool:
        """Whether the banned name gets no tunnel, with a reason."""
        try:
            status, sock = self.connect("www.clips.example.org", 443)
        except ConnectionError:
            return False
        sock.close()
        return " 403 " in status or " 451 " in status

    def close(self) -> None:
        """End it, and see that nothing is left."""
        family = children(self.process.pid)
        self.process.terminate()
        assert self.process.wait(DEADLINE) == 0, self.narrated()
        until("no process is left", lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
        self.origin.close()


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Running]:
    """A running tokgate, whose log is checked at the end."""
    started = Running(tmp_path)
    yield started
    started.close()
    actions = [record["event"]["action"] for record in check_lines(started.log)]
    assert "stopped" in actions
    assert "Traceback" not in started.narrated()


def test_serves_and_refuses(running: Running) -> None:
    """Allowed tunnels carry bytes, banned names get none."""
    assert running.passes()
    assert until("an opener answers", running.refuses)


def test_whatever_is_killed_comes_back(running: Running) -> None:
    """Gates, opener and collector are killed, each by itself: the others serve on, and it is replaced."""
    until("an opener answers", running.refuses)
    for victim in children(running.process.pid):
        os.kill(victim, signal.SIGKILL)
        until("it is replaced", lambda victim=victim: len(set(children(running.process.pid)) - {victim}) == 4)
        until("allowed tunnels pass", running.passes)
        until("banned names are refused", running.refuses)
    assert running.narrated().count("starting it again") == 4


def test_a_wrong_policy_on_disk_keeps_nobody_from_starting_again(running: Running) -> None:
    """With an invalid policy in the folder everything may die and comes back with the last good one."""
    running.write(POLICY | {"bans": {"ban": {"title": "no services"}}})
    until("the error is told", lambda: "has errors" in running.narrated())
    for victim in children(running.process.pid):
        os.kill(victim, signal.SIGKILL)
    until("banned names are refused", running.refuses)
    until("allowed tunnels pass", running.passes)


def test_a_new_policy_is_a_new_generation(running: Running) -> None:
    """New connections follow the new policy; one that is open keeps its gate until it ends."""
    _, kept = running.connect("127.0.0.1", running.origin.getsockname()[1])
    kept.sendall(b"\x00before")
    assert kept.recv(7) == b"\x00before"
    old = set(children(running.process.pid))
    running.write(POLICY | {"bans": {}})
    until("the new policy is told", lambda: "is in force, it replaces" in running.narrated())
    until("banned names pass", lambda: not running.refuses())
    # Of the old ones stay the opener, the collector, and the gate with a connection.
    until("the idle old gate ends", lambda: len(old & set(children(running.process.pid))) == 3)
    kept.sendall(b"\x00after")
    assert kept.recv(6) == b"\x00after"
    kept.close()
    until("the old gate ends", lambda: len(children(running.process.pid)) == 4)


def test_children_end_with_their_supervisor(tmp_path: Path) -> None:
    """A supervisor that is killed leaves nobody behind."""
    orphaned = Running(tmp_path, workers=1)
    until("an opener answers", orphaned.refuses)
    family = children(orphaned.process.pid)
    orphaned.process.kill()
    orphaned.process.wait(DEADLINE)
    until("no process is left", lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
    orphaned.origin.close()


def test_status(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The supervisor tells how everything is; a policy that could not be loaded needs a person."""
    until("an opener answers", running.refuses)
    ask = ["status", "--confdir", str(tmp_path / "keys")]
    until("the gates have reported", lambda: _state(ask, capsys)["workers"][-1]["report"])
    state = _state(ask, capsys)
    assert state["ok"]
    assert sorted(w["name"] for w in state["workers"]) == ["collector-0", "gate-0", "gate-1", "opener-0"]
    assert [(b["ban"], b["phase"], b["networks"]) for b in state["policy"]["bans"]] == [("ban", "block", ["here"])]
    running.write(POLICY | {"bans": {"ban": {"title": "no services"}}})
    until("the error is told", lambda: "has errors" in running.narrated())
    assert main(ask) == 1
    assert "not in force" in capsys.readouterr().out
    assert (tmp_path / "keys/control.sock").stat().st_mode & 0o077 == 0


def _state(ask: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main([*ask, "--json"])
    state: dict[str, Any] = json.loads(capsys.readouterr().out)
    return state


def test_no_status_without_a_tokgate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody there is exit code 3 and one line."""
    assert main(["status", "--confdir", str(tmp_path)]) == 3
    assert "no tokgate" in capsys.readouterr().err
