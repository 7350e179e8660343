"""A new program takes over from the running one: no client is refused, no connection ends, nothing is miscounted.

What is claimed here holds for both ways by which all gets to the next program.
"""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.builders import present
from labs.program_change import How, Restarting, Systemd, bequest_of
from labs.running_lab import ROOT, Scraped, children, until
from tokgate.service.program_change import ENDS, VARIABLE, Bequest, Exec, Store, inherited, read, taken, written

RESTARTS = int(os.environ.get("TOKGATE_TEST_RESTARTS", "1"))


class Load:
    """Clients that come and go, tunnels that stay and echo, and a plain HTTP download through an opener."""

    def __init__(self, running: Scraped) -> None:
        self.served = 0
        self.failures: list[str] = []
        self._running = running
        self._ended = threading.Event()
        self._web = socket.create_server(("127.0.0.1", 0))
        threads = [self._come_and_go, self._come_and_go, self._stay, self._stay, self._serve_web, self._download]
        self._threads = [threading.Thread(target=each) for each in threads]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._web.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._web.close()

    def goes_on(self) -> None:
        """Wait until some more new clients were served."""
        before = self.served
        until("clients are served", lambda: self.served > before + 20)

    def _tunnel(self) -> socket.socket:
        status, sock = self._running.connect("127.0.0.1", self._running.origin.getsockname()[1])
        if " 200 " not in status:
            self.failures.append(f"refused: {status!r}")
        return sock

    def _echoes(self, sock: socket.socket) -> None:
        sock.sendall(b"\x00ping")
        if sock.recv(5) != b"\x00ping":
            self.failures.append("ended")

    def _come_and_go(self) -> None:
        while not self._ended.wait(0.005):  # some hundred a second, so that others have the processor as well
            try:
                with self._tunnel() as sock:
                    self._echoes(sock)
                    self.served += 1
            except OSError as error:
                self.failures.append(f"a new client: {error!r}")

    def _stay(self) -> None:
        try:
            with self._tunnel() as sock:
                while not self._ended.wait(0.01):
                    self._echoes(sock)
        except OSError as error:
            self.failures.append(f"an open tunnel: {error!r}")

    def _serve_web(self) -> None:
        """A body without an end, at 100 pieces a second."""
        client, _ = self._web.accept()
        with client:
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self._ended.wait(0.01):
                client.sendall(b"4\r\nbody\r\n")
            client.sendall(b"0\r\n\r\n")

    def _download(self) -> None:
        host = f"127.0.0.1:{self._web.getsockname()[1]}"
        received = b""
        try:
            with socket.create_connection(("127.0.0.1", self._running.port), 60) as sock:
                sock.sendall(f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                while piece := sock.recv(65536):
                    received = (received + piece)[-64:]
        except OSError as error:
            self.failures.append(f"a download: {error!r}")
        if not received.endswith(b"0\r\n\r\n"):
            self.failures.append(f"a download was cut: {received!r}")


def tallied(running: Scraped) -> int:
    """Tunnels in the coverage records."""
    told = [r["tokgate"]["coverage"] for r in running.records() if r["event"]["action"] == "coverage-counted"]
    return sum(number for each in told for number in each.get("here", {}).values())


def upgrade(running: Scraped, number: int) -> None:
    """Change the program on disk, so that connections of the one before mean nothing to it.

    Its size is another for each number: bytecode is known by its source's size, and by the second of the last change.
    """
    changed = running.addons / "tokgate" / "gate" / "connection.py"
    source = (ROOT / "addons" / "tokgate" / "gate" / "connection.py").read_text()
    changed.write_text(
        source.replace("    id: str | None = None\n", f"    id: str | None = None\n    v{'0' * number}: int = 0\n")
    )


@pytest.fixture(params=How)
def running(
    request: pytest.FixtureRequest, tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]
) -> Iterator[Restarting]:
    """One that can be restarted in this way."""
    started = Restarting(tmp_path, request.param)
    yield started
    started.close_all()
    check_lines(started.log)


@contextlib.contextmanager
def _checking(running: Scraped) -> Iterator[list[int]]:
    """Health is asked for again and again; the statuses."""
    over, statuses = threading.Event(), list[int]()

    def check() -> None:
        while not over.wait(0.02):
            statuses.append(running.get("/healthz")[0])

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()


def test_restarts_under_load(running: Restarting) -> None:
    """None of those who come, stay or download notices any; each restart is told, and each connection counted once."""
    until("an opener answers", running.refuses)
    pid = running.process.pid
    with Load(running) as load, _checking(running) as checks:
        for _ in range(RESTARTS):
            running.restart(load.goes_on)
            load.goes_on()
            running.wait_for_end_of([*running.before], but=1)  # the first opener serves the download
    assert load.failures == []
    assert 200 in checks
    assert 0 not in checks, "a health check was refused, or had no answer"
    until("it is well", lambda: running.problems() == [])
    assert (running.process.pid == pid) is (running.how is How.EXEC)
    assert running.passes()
    running.wait_for_end_of([*running.before])
    until("nobody else is there", lambda: len(children(running.process.pid)) == 5)
    running.end()
    actions = [record["event"]["action"] for record in running.records()]
    assert (actions.count("started"), actions.count("stopped")) == (RESTARTS + 1, RESTARTS + 1)
    # Tunnels of those who came, of those who stayed, the one after, the download, and refusals at the start.
    assert tallied(running) == load.served + 2 + 1 + 1 + 1


def test_upgrades_under_load(running: Restarting) -> None:
    """What the new version can't take over the old gates serve to its end; new clients are the new version's."""
    until("an opener answers", running.refuses)
    with Load(running) as load:
        for number in range(RESTARTS):
            upgrade(running, number)
            running.restart(moves=False)
            load.goes_on()
        until("only what stays is with old gates", lambda: running.ending() == 2)
    assert load.failures == []
    until("it is well", lambda: running.problems() == [])
    running.wait_for_end_of([*running.before])


def test_who_dies_meanwhile_and_after(running: Restarting) -> None:
    """Processes of the program before are watched on: their deaths, and that of the supervisor, leave nobody behind."""
    status, kept = running.connect("127.0.0.1", running.origin.getsockname()[1])
    assert " 200 " in status
    (gate,) = running.workers("gate-0")
    running.restart(partial(os.kill, gate["pid"], signal.SIGKILL))
    until("it is well", lambda: running.problems() == [])
    assert running.passes()
    for victim in (*running.before, *children(running.process.pid)):
        with contextlib.suppress(ProcessLookupError):  # an old gate, which has passed on what it had
            os.kill(victim, signal.SIGKILL)
        running.wait_for_end_of([victim])
        until("allowed tunnels pass", running.passes)
    until("it is well but for who died", lambda: len(children(running.process.pid)) == 5)
    kept.close()
    family = children(running.process.pid)
    running.process.kill()
    running.process.wait()
    running.wait_for_end_of(family)


# -- what is left, without a program


class _Executed(Exception):
    """In place of the next program."""


def carried_by_exec(bequest: Bequest, monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """What the next program in this process finds."""
    environments: list[dict[str, str]] = []

    def execve(program: str, command: list[str], environment: dict[str, str]) -> None:
        environments.append(environment)
        raise _Executed

    monkeypatch.setattr(os, "execve", execve)
    carrier, hangup = Exec(), signal.getsignal(signal.SIGHUP)
    carrier.leave(bequest)
    try:
        with pytest.raises(_Executed):
            carrier.go()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        signal.signal(signal.SIGHUP, hangup)
    numbers = [int(each) for each in environments[0][VARIABLE].split(",")]
    assert all(map(os.get_inheritable, numbers))
    for queue in carrier._queues:
        queue.detach()  # as exec does
    found = inherited(environments[0])
    assert inherited(environments[0]) == []  # the variable is for one program
    assert not any(map(os.get_inheritable, numbers))
    return found


def carried_by_store(bequest: Bequest, _: object) -> list[socket.socket]:
    """What the program finds that systemd starts next."""
    systemd = Systemd()
    Store(systemd, 2).leave(bequest)
    return systemd.kept


@pytest.mark.parametrize("carried", [carried_by_exec, carried_by_store])
def test_all_arrives(
    carried: Callable[[Bequest, pytest.MonkeyPatch], list[socket.socket]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every descriptor in its place, more than a message takes, and none for the programs that the next one starts."""
    events = [os.eventfd(number) for number in range(1, 301)]
    left = bequest_of(events)
    named = left.descriptors()
    assert sorted(named) == events
    queues = carried(left, monkeypatch)
    for each in events:
        os.close(each)
    found = present(taken(queues))
    now = dict(zip(named, found.descriptors(), strict=True))
    assert found == read(written(left), now.__getitem__)
    assert [os.eventfd_read(now[each]) for each in events] == [*range(1, 301)]
    assert not any(map(os.get_inheritable, found.descriptors()))
    for each in found.descriptors():
        os.close(each)
