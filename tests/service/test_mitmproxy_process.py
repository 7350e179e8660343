"""mitmproxy alone in a process: start, signals, policy and log on disk, and the ways in which it ends."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from whenever import Instant

from labs.builders import present
from labs.hello_builder import openssl_hello
from labs.running_lab import AS_WE_ARE, DEADLINE, POLICY, ROOT, Running, until
from tokgate.gate.handoff import Handover
from tokgate.mitm.gate_mode import GateInstance, GateMode
from tokgate.policy.observation import Endpoint
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service.mitmproxy_process import Drain
from tokgate.traffic.seen import Arrival

REGULAR = ("--mode", "regular@127.0.0.1:0")
GATES = ("--mode", "gate:explicit@127.0.0.1:0", "--workers", "1")


def alone(folder: Path, drain: float = 2) -> Running:
    """One that runs."""
    return Running(folder, mode=REGULAR, drain=drain)


def relayed(running: Running) -> socket.socket:
    """A tunnel that has reached its origin."""
    status, sock = running.connect("127.0.0.1", running.origin.getsockname()[1])
    sock.sendall(b"\x00ping")
    assert (" 200 " in status, sock.recv(5)) == (True, b"\x00ping")
    return sock


def test_run(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """It says what is in force and how to try it; it refuses by the name in a hello, logs, and ends on SIGTERM.

    The folder and the key of its authority are for their owner only, also where they were not before.
    """
    (tmp_path / "keys").mkdir(mode=0o755)
    with closing(alone(tmp_path)) as running:
        assert "mitmproxy runs alone" in present(ask(running.confdir, ControlRequest.RESTART))["problems"]
        for name, answer in (
            ("www.example.org", b"\x16\x03\x01"),
            ("www.clips.example.org", b"\x15\x03\x03\0\2\2\x70"),
        ):
            _, sock = running.connect("127.0.0.1", running.origin.getsockname()[1])
            with sock:
                sock.sendall(openssl_hello(name))
                assert sock.recv(len(answer)) == answer
    assert "block: Clips [ban] for here" in running.narrated()
    assert f"curl -v -x http://127.0.0.1:{running.port} https://clips.example.org/" in running.narrated()
    records = [each for each in check_lines(running.log) if each["event"]["action"] != "log-checkpoint"]
    started, refused, counted, stopped = records
    assert (started["event"]["action"], refused["event"]["action"]) == ("started", "tls-handshake-refused")
    assert (refused["tokgate"]["ban"], stopped["event"]["reason"]) == ("ban", "SIGTERM")
    assert counted["tokgate"]["coverage"]["here"]["sni"] >= 1
    assert stat.S_IMODE(running.confdir.stat().st_mode) == 0o700
    assert stat.S_IMODE((running.confdir / "mitmproxy-ca.pem").stat().st_mode) == 0o600


def test_a_ban_that_begins(tmp_path: Path) -> None:
    """What is open to a destination that comes under a ban is reset at that second, without anybody's doing."""
    with closing(alone(tmp_path)) as running, relayed(running) as sock:
        starts = Instant.now().add(seconds=3)
        services = POLICY["services"] | {"local": {"addresses": ["127.0.0.0/8"]}}
        ban = POLICY["bans"]["ban"] | {"services": ["local"], "starts": str(starts)}
        running.write(POLICY | {"services": services, "bans": POLICY["bans"] | {"later": ban}})
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert Instant.now() >= starts


def test_what_keeps_it_from_starting(tmp_path: Path) -> None:
    """Neither opens anything: exit code 1 for a policy, with all its errors; 3 for a log or port that another has."""

    def refused(log: str, *mode: str) -> tuple[int, str]:
        files = ("--policies", "policies", "--log", log, "--confdir", f"{log}.keys")
        done = subprocess.run(
            [sys.executable, "-m", "tokgate", "run", *AS_WE_ARE, *files, *mode],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT / "addons")},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert "clients on" not in done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    with closing(alone(tmp_path)) as running:
        for mode in (REGULAR, GATES):
            code, said = refused("block.ndjson", *mode)
            assert (code, "another process writes this log" in said) == (3, True), said
            code, said = refused("metrics.ndjson", *mode, "--metrics", str(running.port))
            assert (code, "in use" in said) == (3, True), said
        code, said = refused("other.ndjson", "--mode", f"regular@127.0.0.1:{running.port}")
        assert (code, f"failed to listen on 127.0.0.1:{running.port}" in said) == (3, True), said
    running.write(POLICY | {"bans": {"ban": POLICY["bans"]["ban"] | {"services": ["clipz"], "networks": ["there"]}}})
    for mode in (REGULAR, GATES):
        code, said = refused("third.ndjson", *mode)
        assert (code, said.count("policy.yaml:"), "clipz" in said, "there" in said) == (1, 2, True, True), said


def test_drain(tmp_path: Path) -> None:
    """SIGTERM takes no new connections and lets open ones finish; a second one ends those that are left."""
    running = alone(tmp_path, drain=3600)
    with relayed(running) as first, relayed(running):
        running.process.send_signal(signal.SIGTERM)

        def refuses() -> bool:
            with suppress(ConnectionResetError), socket.socket() as late:  # taken into the queue of one that closed
                return late.connect_ex(("127.0.0.1", running.port)) != 0
            return False

        until("it takes nobody", refuses)
        first.sendall(b"\x00more")
        first.shutdown(socket.SHUT_WR)
        assert first.makefile("rb").read() == b"\x00more"
        assert running.process.poll() is None
        running.close()
    assert running.records()[-2]["event"]["action"] == "stopped"


@pytest.mark.parametrize("drain", [0.1, 3600])
def test_drain_ends(tmp_path: Path, drain: float) -> None:
    """The deadline, or the end of the last open connection, is the end."""
    running = alone(tmp_path, drain)
    with relayed(running) as last:
        running.process.send_signal(signal.SIGTERM)
        if drain == 3600:
            last.close()
        assert running.process.wait(DEADLINE) == 0
    running.origin.close()
    assert running.records()[-2]["event"]["action"] == "stopped"


class Served(dict[str, Any]):
    """The connections that mitmproxy serves: none, and whether somebody has looked."""

    looked = False

    def values(self) -> Any:
        """Take note of it."""
        self.looked = True
        return super().values()


async def test_one_that_was_handed_over_and_has_not_had_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An opener that retires serves it as well: no other has it."""
    instance, served = GateInstance(GateMode.parse("gate"), SimpleNamespace(connections={})), Served()
    turn = asyncio.Event()
    happened: dict[str, None] = {}

    class Client(socket.socket):
        """A client's connection, whose settings are made as serving begins."""

        def setblocking(self, flag: bool) -> None:
            happened.setdefault("served")
            super().setblocking(flag)

    class Servers(list[GateInstance]):
        """What mitmproxy listens with."""

        async def update(self, modes: list[object]) -> None:
            self.clear()

    monkeypatch.setattr(instance, "turns", SimpleNamespace(turn=lambda who: turn.wait()))
    servers: Any = SimpleNamespace(connections=served, servers=Servers([instance]))
    master: Any = SimpleNamespace(shutdown=lambda: happened.setdefault("ended"))
    drain = Drain(master, servers, SimpleNamespace(), 3600.0)  # type: ignore[arg-type]
    with Client() as client:
        arrival = Arrival(client=Endpoint("192.0.2.1", 50_000))
        instance.adopt(Handover(arrival, tls=False, explicit=True, received=b""), client)
        drain.retire()
        while not served.looked:
            await asyncio.sleep(0)
        assert not happened
        turn.set()
        while "ended" not in happened:
            await asyncio.sleep(0)
    assert [*happened] == ["served", "ended"]
