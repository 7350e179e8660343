"""A tokgate in processes of its own, on loopback, with an origin that echoes; in any mode of explicit clients."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from labs.waiting import DEADLINE as DEADLINE
from labs.waiting import until as until
from tokgate.runtime.control_socket import ControlRequest, ask

ROOT = Path(__file__).parents[2]
AS_WE_ARE = ("--user", "root") if os.geteuid() == 0 else ()
"""Keeps a tokgate that root's tests start root's, also on a machine that has the user `tokgate`."""
POLICY: dict[str, Any] = {
    "version": 1,
    "services": {"clips": {"names": {"suffix": ["clips.example.org"]}}},
    "networks": {"here": {"cidrs": ["127.0.0.0/8"]}},
    "bans": {"ban": {"title": "Clips", "services": ["clips"], "networks": ["here"], "starts": "2023-03-10T00:00"}},
}

GATES = ("--mode", "gate:explicit@127.0.0.1:0")
WITHOUT_BAN: dict[str, Any] = POLICY | {"bans": {}, "lifted": {"ban": "ban", "reason": "Repealed"}}
"""The policy without its ban, which has been lifted."""
PATIENT = """
import sys
from dataclasses import replace
from tokgate.cli.main import main
from tokgate.service import gate_process

limits_of = gate_process.limits_of
gate_process.limits_of = lambda *given: replace(limits_of(*given), greeting=3600.0, connecting=3600.0)
sys.exit(main(sys.argv[1:]))
"""
"""A driver for `python_for`: gates wait for clients and destinations longer than a test on a busy machine takes."""


def children(pid: int) -> list[int]:
    """A process's children."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stat(pid: int) -> list[str]:
    """What proc_pid_stat(5) tells of a process, from its state on: `Z` if nobody has waited for it, or it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["Z"]


def runs(pid: int) -> bool:
    """Whether a process does; one that nobody waits for, its parent having gone, has ended."""
    return stat(pid)[0] != "Z"


def python_for(folder: Path, driver: str) -> str:
    """An interpreter that runs this text with tokgate's arguments, instead of `-m tokgate`."""
    program, python = folder / "driver.py", folder / "python"
    program.write_text(driver)
    python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{program}" "$@"\n')
    python.chmod(0o755)
    return str(python)


class Running:
    """`tokgate run` on loopback, and an origin that echoes."""

    def __init__(  # noqa: PLR0913  (each is what some test needs)
        self,
        folder: Path,
        workers: int = 2,
        mode: Sequence[str] = GATES,
        log: Path | None = None,
        policy: dict[str, Any] | None = POLICY,
        addons: Path = ROOT / "addons",
        python: str = sys.executable,
        environment: Mapping[str, str] = MappingProxyType({}),
        drain: float = 2,
    ) -> None:
        """`policy` is written to `folder`/policies; None where they are there already."""
        self.policies = folder / "policies"
        self.log = folder / "block.ndjson" if log is None else log
        self.confdir = folder / "keys"
        self.addons = addons
        if policy is not None:
            self.policies.mkdir()
            self.write(policy)
        self.narration = folder / "narration"
        command = [python, "-m", "tokgate", "run", *AS_WE_ARE, "--openers", "1", *mode, "--drain", str(drain)]
        command += ["--workers", str(workers), "--policies", str(self.policies), "--log", str(self.log)]
        self._command = [*command, "--confdir", str(self.confdir)]
        self._folder = folder
        self.start(environment)
        try:
            announced = until("it announces its port", self._announced)
        except BaseException:  # or it is found in the middle of another test
            self.process.kill()
            self.process.wait()
            raise
        self.port = int(announced[1])
        self.origin = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._echo, daemon=True).start()

    def start(self, environment: Mapping[str, str], pass_fds: Sequence[int] = (), options: Sequence[str] = ()) -> None:
        """Start its process; also again, once the one before has ended, with more options."""
        environ = os.environ | {"PYTHONPATH": str(self.addons)} | dict(environment)
        with self.narration.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._command, *options], stderr=output, cwd=self._folder, env=environ, pass_fds=pass_fds
            )

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

    def problems_told(self) -> list[str]:
        """The problems that its status names; a part that still starts is one."""
        answer = ask(self.confdir, ControlRequest.STATUS)
        found: list[str] = ["nobody answers"] if answer is None else answer["problems"]
        return found

    def workers(self, role: str = "") -> list[dict[str, Any]]:
        """What its status tells of the processes of a role, but of those that end."""
        answer = ask(self.confdir, ControlRequest.STATUS)
        assert answer is not None
        return [each for each in answer["workers"] if each["name"].startswith(role) and not each["retired"]]

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
        until("no process is left", lambda: not any(map(runs, family)))
        self.origin.close()


class Scraped(Running):
    """One with metrics at a free port."""

    def __init__(self, folder: Path, mode: Sequence[str] = GATES, workers: int = 1, **more: Any) -> None:
        """`more` is what `Running` takes besides."""
        super().__init__(folder, workers, (*mode, "--metrics", "0"), **more)
        self.base = until("it says where", self._told)[1]

    def _told(self) -> re.Match[str] | None:
        return re.search(r"metrics: (http://127\.0\.0\.1:[0-9]+)/metrics", self.narrated())

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.base + path, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def metric(self, name: str, **labels: str) -> float | None:
        """One value."""
        status, body = self.get("/metrics")
        if status != 200:
            return None
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                if sample.name == f"tokgate_{name}" and sample.labels == labels:
                    return float(sample.value)
        return None

    def problems(self) -> list[str]:
        """What health says."""
        status, body = self.get("/healthz")
        found: list[str] = json.loads(body)["problems"] if body else ["nobody answers"]
        assert not body or (status == 200) == (not found)
        return found
