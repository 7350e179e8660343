"""Gates that are killed under load: no refusal that a client saw is missing from the log."""

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

from labs.running_lab import DEADLINE, Running, python_for, until
from tokgate.cli.main import main

KILLS = int(os.environ.get("TOKGATE_KILLS", "12"))
GATES = 6
CLIENTS = 3
BETWEEN = 150
"""Refusals that clients see between two kills."""
LENIENT = """
import sys
from tokgate.cli.main import main
from tokgate.service import process_health

process_health.HANGS = 3600.0
sys.exit(main(sys.argv[1:]))
"""
"""A supervisor that leaves a stopped collector alone, however long the clients of a busy machine take."""


class Clients:
    """Threads that ask for one banned name after the other over SOCKS 5, each from an address of its own."""

    def __init__(self, port: int) -> None:
        self.refused: list[str] = []
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
            except OSError:  # its gate was killed: it saw no refusal
                continue

    def _refusal(self, client: str, name: str) -> bool:
        with socket.create_connection(("127.0.0.1", self._port), DEADLINE, (client, 0)) as sock:
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


def _workers(running: Running, capsys: pytest.CaptureFixture[str], role: str) -> list[int]:
    assert main(["status", "--json", "--confdir", str(running.confdir)]) in (0, 1)
    workers = json.loads(capsys.readouterr().out)["workers"]
    return [worker["pid"] for worker in workers if worker["name"].startswith(role)]


def test_no_refusal_that_a_client_saw_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], check_lines: Callable[..., list[dict[str, Any]]]
) -> None:
    """Each gate is killed under load, every other time while the collector takes nothing for a while."""
    killed = 0
    while killed < KILLS:
        folder = tmp_path / str(killed)
        folder.mkdir()
        running = Running(folder, workers=GATES, python=python_for(folder, LENIENT))
        (collector,) = _workers(running, capsys, "collector")
        gates = _workers(running, capsys, "gate")
        clients = Clients(running.port)
        try:
            for gate in gates:
                until("clients are refused", partial(clients.more, len(clients.refused) + BETWEEN))
                if killed % 2:
                    os.kill(collector, signal.SIGSTOP)
                    until("clients are refused", partial(clients.more, len(clients.refused) + 3 * BETWEEN))
                os.kill(gate, signal.SIGKILL)
                os.kill(collector, signal.SIGCONT)
                killed += 1
        finally:
            clients.end()
            running.close()
        records = check_lines(running.log)
        logged = [r["destination"]["domain"] for r in records if r["event"]["action"] == "connect-refused"]
        assert set(clients.refused) - set(logged) == set()
        assert len(logged) == len(set(logged))
        assert len(clients.refused) > GATES * BETWEEN
