"""Processes of each kind that are killed under load: no refusal that a client saw is missing from the log."""

import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import DEADLINE, Running, children, python_for, until
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.cli.main import main

KILLS = int(os.environ.get("TOKGATE_KILLS", "4"))
"""Of each kind of process."""
AT_ONCE = {"gate": 5, "opener": 5, "collector": 5, "supervisor": 1}
"""How many are killed of one tokgate."""
GATES = 5
CLIENTS = 3
BETWEEN = 150
"""Refusals that clients see between two kills."""
LENIENT = """
import sys
from tokgate.cli.main import main
from tokgate.service import process_health

process_health.HANGS = process_health.STILL = 3600.0
sys.exit(main(sys.argv[1:]))
"""
"""A supervisor that leaves a stopped collector alone, however long the clients of a busy machine take."""


class Clients:
    """Threads that ask for one banned name after the other, each from an address of its own.

    Over SOCKS 5, which a gate refuses, or by CONNECT, which an opener does.
    """

    def __init__(self, port: int, *, connect: bool) -> None:
        self.refused: list[str] = []
        self._connect = connect
        self._port, self._over = port, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, thread: int) -> None:
        for number in itertools.count():
            if self._over.is_set():
                return
            name = f"n{thread}-{number}.clips.example.org"
            try:
                if self._refusal(f"127.{thread + 1}.{number >> 8 & 255}.{number & 255}", name):
                    self.refused.append(name)
            except OSError:  # who served it was killed: it saw no refusal
                self._over.wait(0.01)

    def _refusal(self, client: str, name: str) -> bool:
        with socket.create_connection(("127.0.0.1", self._port), DEADLINE, (client, 0)) as sock:
            if self._connect:
                sock.sendall(f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode())
                return sock.recv(1024).startswith((b"HTTP/1.1 403", b"HTTP/1.1 451"))
            sock.sendall(b"\x05\x01\x00")
            if sock.recv(2) != b"\x05\x00":
                return False
            host = name.encode()
            sock.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + b"\x01\xbb")
            return sock.recv(16)[1:2] == b"\x02"

    def more(self, than: int) -> bool:
        """Whether they saw so many refusals more."""
        return len(self.refused) > than

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def _workers(
    running: Running, capsys: pytest.CaptureFixture[str], role: str, dead: list[int]
) -> dict[str, list[int]] | None:
    """The processes of each role, but for those that were killed; None while there is none of `role`."""
    assert main(["status", "--json", "--confdir", str(running.confdir)]) in (0, 1)
    found: dict[str, list[int]] = {"supervisor": [running.process.pid]}
    for worker in json.loads(capsys.readouterr().out)["workers"]:
        if worker["pid"] not in dead:
            found.setdefault(worker["name"].partition("-")[0], []).append(worker["pid"])
    return found if role in found else None


def _have_ended(family: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in family)


@pytest.mark.parametrize("role", AT_ONCE)
def test_no_refusal_that_a_client_saw_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], check_lines: Callable[..., list[dict[str, Any]]], role: str
) -> None:
    """Killed under load; of gates and openers every other one while the collector takes nothing for a while."""
    for begun in range(0, KILLS, AT_ONCE[role]):
        kills = min(AT_ONCE[role], KILLS - begun)
        folder = tmp_path / str(begun)
        folder.mkdir()
        running = Running(folder, workers=GATES, python=python_for(folder, LENIENT))
        family = children(running.process.pid)
        clients = Clients(running.port, connect=role == "opener")
        dead: list[int] = []
        between = BETWEEN if role == "gate" else BETWEEN // 5
        try:
            for killed in range(kills):
                until("clients are refused", partial(clients.more, len(clients.refused) + between))
                workers = until("one is there", partial(_workers, running, capsys, role, dead))
                victim = workers[role][killed % len(workers[role])]
                stopped = workers["collector"] if role in ("gate", "opener") and killed % 2 else []
                for collector in stopped:
                    os.kill(collector, signal.SIGSTOP)
                    until("clients are refused", partial(clients.more, len(clients.refused) + 3 * between))
                os.kill(victim, signal.SIGKILL)
                dead.append(victim)
                for collector in stopped:
                    os.kill(collector, signal.SIGCONT)
        finally:
            clients.end()
            if role == "supervisor":
                running.process.wait(DEADLINE)
                running.origin.close()
                until("all have ended", partial(_have_ended, family))
            else:
                running.close()
        records = check_lines(running.log)
        logged = [r["destination"]["domain"] for r in records if r["event"]["action"] == "connect-refused"]
        lost = set(clients.refused) - set(logged)
        assert lost == set(), f"{len(lost)} of {len(clients.refused)} after kill {begun}"
        assert len(logged) == len(set(logged))
        assert len(clients.refused) > kills * between
        assert list(Verifier(whole=True).run([running.log])) == []
