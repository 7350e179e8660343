"""A tokgate in processes of its own, on loopback, with an origin that echoes; in any mode of explicit clients."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0
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
    """`tokgate run` on loopback, and an origin that echoes."""

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        mode: Sequence[str] = ("--mode", "gate:explicit@127.0.0.1:0"),
        log: Path | None = None,
    ) -> None:
        self.policies = folder / "policies"
        self.policies.mkdir()
        self.log = folder / "block.ndjson" if log is None else log
        self.confdir = folder / "keys"
        self.write(POLICY)
        self.narration = folder / "narration"
        command = [sys.executable, "-m", "tokgate", "run", *mode, "--drain", "2"]
        command += ["--workers", str(workers), "--policies", str(self.policies), "--log", str(self.log)]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
        with self.narration.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--confdir", str(self.confdir)], stderr=output, cwd=folder, env=environment
            )
        announced = until("it announces its port", self._announced)
        self.port = int(announced[1])
        self.origin = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._echo, daemon=True).start()

    def _announced(self) -> re.Match[str] | None:
        assert self.process.poll() is None, self.narrated()
        return re.search(r"(?:explicit clients|listening) on 127\.0\.0\.1:([0-9]+)", self.narrated())

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

    def records(self) -> list[dict[str, Any]]:
        """The whole lines of the log so far."""
        return [json.loads(line) for line in self.log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]

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
