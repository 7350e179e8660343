"""The end of a gate's process, in order and by a kill, and a gate at its limit."""

import contextlib
import itertools
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.gate_lab import policy
from labs.running_lab import DEADLINE, POLICY, Running, Scraped, children, python_for, runs, until
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.records.record import Observer
from tokgate.blocklog.write import channel
from tokgate.gate.acceptor import AcceptingGates
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service import gate_process
from tokgate.service.children import Channels
from tokgate.service.gate_process import GateProcess, Inheritance
from tokgate.traffic.counters import SharedCounters
from tokgate.traffic.limits import Limits
from tokgate.traffic.warning_state import WarnedClients


class Review:
    """Has something left to tell whenever the gate ends, as after a cut of very many connections."""

    judged = 0

    def __init__(self, enforcer: Any, _: object) -> None:
        self._enforcer = enforcer

    def look(self) -> float:
        """It had no turn."""
        return 1.0

    def close(self) -> None:
        """Tell all that is left."""
        self._enforcer.failed("the last", RuntimeError("told"))


def test_what_a_gate_has_left_to_tell_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that were cut just before the end have their records as well."""
    monkeypatch.setattr(gate_process, "LiveReview", Review)
    channels = Channels.made()
    os.close(channels.lifeline_in)  # so that it ends, having nobody to serve
    child = os.fork()
    if not child:
        given = Inheritance(
            snapshot=policy(),
            listeners=(),
            channels=channels,
            observer=Observer(hostname="gate.example.org", version="test"),
            shared=SharedCounters(),
            limits=Limits(),
            drain=0.0,
            warned=WarnedClients(),
            accepting=AcceptingGates(1),
            slot=0,
        )
        code = 1
        try:
            GateProcess(given).run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    channels.records_in.close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    told = []
    while (record := channel.receive(channels.records_out)) is not None:
        told.append(record["error"]["message"])
    assert any("told" in each for each in told)
    for each in fields(channels):
        end = getattr(channels, each.name)
        if isinstance(end, socket.socket):
            end.close()
    os.close(channels.lifeline_out)


GATES, EACH = 5, 6


FEW = POLICY | {"settings": {"limits": {"connections": EACH}}}


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, check_lines: Callable[..., list[dict[str, Any]]]
) -> Iterator[Scraped]:
    """One for several tests."""
    made = Scraped(tmp_path_factory.mktemp("few"), workers=GATES)
    yield made
    made.close()
    check_lines(made.log)


@pytest.fixture
def running(started: Scraped) -> Scraped:
    """The same with gates that take few connections."""
    started.write(FEW)
    assert (ask(started.confdir, ControlRequest.RELOAD) or {})["ok"]
    until("it is well", lambda: started.problems() == [])
    until("nothing is open", lambda: started.metric("connections", role="gate", state="serving") == 0)
    return started


def _tunnel(running: Scraped) -> socket.socket | None:
    try:
        status, sock = running.connect("127.0.0.1", running.origin.getsockname()[1])
    except ConnectionError:
        return None
    assert " 200 " in status
    return sock


def test_a_full_gate_leaves_clients_to_others(running: Scraped) -> None:
    """As many are served as all gates together may; then they are told, health is red, and room is used again."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(GATES * EACH):
            sock = _tunnel(running)
            assert sock is not None
            held.append(stack.enter_context(sock))
        assert _tunnel(running) is None
        until("health says so", lambda: any("at its limit of 6 connections" in each for each in running.problems()))
        for sock in held[:EACH]:
            sock.close()
        until("there is room again", running.passes)
    until("it is well", lambda: running.problems() == [])


def test_destinations_are_counted(running: Scraped) -> None:
    """Errors by kind, names that don't resolve, and times, each there before the first."""

    def counted(name: str, *kinds: str) -> float:
        found = [running.metric(name, kind=kind) for kind in kinds] or [running.metric(name)]
        assert None not in found
        return sum(each or 0 for each in found)

    for name, kinds, host, port in (
        ("connect_seconds_count", (), "127.0.0.1", running.origin.getsockname()[1]),
        ("connect_errors_total", ("refused",), "localhost", 1),
        ("dns_errors_total", ("not-found", "unanswered", "other"), "no-such-name.invalid", 443),
    ):
        before = counted(name, *kinds)
        running.connect(host, port)[1].close()
        until("it is counted", lambda: counted(name, *kinds) > before)  # noqa: B023
    assert (running.metric("descriptors", worker="gate-0") or 0) > 10
    assert running.metric("descriptors_limit", worker="gate-0") is not None


def test_from_the_addresses_of_the_policy(running: Scraped) -> None:
    """A changed pool is used by the next gates; an address that is not here is red."""
    running.write(POLICY | {"settings": {"egress": {"addresses": ["127.0.0.5"]}}})
    with socket.create_server(("127.0.0.1", 0)) as seen:
        seen.settimeout(60)

        def source() -> str:
            with contextlib.suppress(ConnectionError):
                running.connect("localhost", seen.getsockname()[1])[1].close()
            client, (host, _) = seen.accept()
            client.close()
            return str(host)

        until("it comes from there", lambda: source() == "127.0.0.5")
    running.write(POLICY | {"settings": {"egress": {"addresses": ["192.0.2.1"]}}})

    def red() -> bool:
        running.passes()
        return any("no-port" in problem for problem in running.problems())

    until("health is red", red)
    assert (running.metric("connect_errors_total", kind="no-port") or 0) >= 1


KILLS = int(os.environ.get("TOKGATE_KILLS", "4"))
"""Of each kind of process."""
AT_ONCE = {"gate": 5, "opener": 5, "collector": 5, "supervisor": 1}
"""How many are killed of one tokgate."""
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


def _workers(running: Running, role: str, dead: list[int]) -> list[int] | None:
    """The processes of a role, but for those that were killed; None while there is none."""
    if role == "supervisor":
        return [running.process.pid]
    answer = ask(running.confdir, ControlRequest.STATUS)
    workers = [] if answer is None else answer["workers"]
    return [each["pid"] for each in workers if each["name"].startswith(role) and each["pid"] not in dead] or None


@pytest.mark.parametrize("role", AT_ONCE)
def test_no_refusal_that_a_client_saw_is_lost(
    tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]], role: str
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
                workers = until("one is there", partial(_workers, running, role, dead))
                victim = workers[killed % len(workers)]
                stops = role in ("gate", "opener") and killed % 2
                stopped = until("a collector is there", partial(_workers, running, "collector", dead)) if stops else []
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
                until("all have ended", lambda: not any(map(runs, family)))  # noqa: B023
            else:
                running.close()
        files = [*sorted(folder.glob("block-*.ndjson")), running.log]  # a new one begins at midnight
        records = check_lines(*files, recovered=True)
        logged = [r["destination"]["domain"] for r in records if r["event"]["action"] == "connect-refused"]
        lost = set(clients.refused) - set(logged)
        assert lost == set(), f"{len(lost)} of {len(clients.refused)} after kill {begun}"
        assert len(logged) == len(set(logged))
        assert len(clients.refused) > kills * between
        assert list(Verifier(whole=True).run(files)) == []
