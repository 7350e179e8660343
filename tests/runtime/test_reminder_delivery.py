"""Delivering reminders: real processes, a real web server on loopback, and everything that can go wrong with them."""

import contextlib
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs.waiting import DEADLINE, readable
from labs.waiting import until as wait_for
from tokgate.policy.settings import Notify
from tokgate.runtime import reminder_delivery, reminder_dispatch
from tokgate.runtime.reminder_dispatch import ReminderSender

LETTER = {"event": "ban-near-expiry", "ban": "clips", "text": "Ban “Clips” ends."}


@dataclass
class Hook:
    """A webhook that answers as it is told and keeps what came."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    came: list[tuple[str, str, Any]] = field(default_factory=list)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A web server in a thread."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    kept = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.came.append((self.path, self.headers["Content-Type"], body))
            self.send_response(kept.answers.pop(0) if kept.answers else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/hook/secret"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], list[str]]:
    """Makes a program from a shell script."""

    def make(script: str) -> list[str]:
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return [str(path), "desk@example.org"]

    return make


def deliver(monkeypatch: pytest.MonkeyPatch, **order: Any) -> int:
    """Deliver in this process, without pauses between attempts."""
    given = {"webhook": None, "command": [], "letter": LETTER} | order
    stdin = SimpleNamespace(buffer=io.BytesIO(json.dumps(given).encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    return reminder_delivery.main(retry_after=(0.0, 0.0))


def test_webhook(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter is posted as JSON."""
    assert deliver(monkeypatch, webhook=hook.url) == 0
    assert hook.came == [("/hook/secret", "application/json", LETTER)]


def test_webhook_that_recovers(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is busy or being restarted is asked again."""
    hook.answers = [503, 429]
    assert deliver(monkeypatch, webhook=hook.url) == 0
    assert len(hook.came) == 3


@pytest.mark.parametrize(("answers", "attempts"), [([404], 1), ([302], 1), ([500, 502, 503], 3)])
def test_webhook_that_refuses(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answers: list[int], attempts: int
) -> None:
    """What won't help is not tried again; the failure is told, without what may be secret in the address."""
    told, hook.answers = str(answers[-1]), answers
    assert deliver(monkeypatch, webhook=hook.url) == 1
    assert len(hook.came) == attempts
    said = capfd.readouterr().err
    assert "the end of ban clips was not sent: webhook at 127.0.0.1 answered" in said
    assert told in said
    assert "secret" not in said


def test_webhook_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody listens: that is told."""
    assert deliver(monkeypatch, webhook="http://127.0.0.1:1/hook/secret") == 1
    said = capfd.readouterr().err
    assert "webhook at 127.0.0.1: " in said
    assert "secret" not in said


@pytest.mark.parametrize("url", ["http://[secret", "http://127.0.0.1:secret/", "http://127.0.0.1/s\u00e9cret secret"])
def test_webhook_with_an_odd_address(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    """Told in a line like everything else, without the address."""
    assert deliver(monkeypatch, webhook=url) == 1
    said = capfd.readouterr().err
    assert said.startswith("tokgate: the reminder of the end of ban clips was not sent: ")
    assert said.count("\n") == 1
    assert "cret" not in said


def test_webhook_that_speaks_something_else(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that is none for the web is a failure as any other."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            for _ in range(3):
                peer, _ = server.accept()
                with peer:
                    peer.recv(65536)
                    peer.sendall(b"220 mail.example.org ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        assert deliver(monkeypatch, webhook=f"http://127.0.0.1:{server.getsockname()[1]}/secret") == 1
        thread.join()
    assert "webhook at 127.0.0.1: " in capfd.readouterr().err


def test_webhook_that_drips(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A server that sends an octet now and then has as long to answer as one that says nothing."""
    monkeypatch.setattr(reminder_delivery, "WEBHOOK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            for _ in range(3):
                peer, _ = server.accept()
                with peer, contextlib.suppress(OSError):
                    while not readable(peer, 0.02) or peer.recv(65536):
                        peer.send(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        assert deliver(monkeypatch, webhook=f"http://127.0.0.1:{server.getsockname()[1]}/secret") == 1
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert "webhook at 127.0.0.1: timed out" in capfd.readouterr().err


def test_command(program: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program gets its arguments, and the letter on standard input."""
    command = program(f'echo "$1" > {tmp_path}/to; cat > {tmp_path}/letter')
    assert deliver(monkeypatch, command=command) == 0
    assert json.loads((tmp_path / "letter").read_text()) == LETTER
    assert (tmp_path / "to").read_text() == "desk@example.org\n"


def test_command_that_fails(
    program: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its exit code is told, also when it doesn't read its input."""
    assert deliver(monkeypatch, command=program("exit 7")) == 1
    assert "program ended with 7" in capfd.readouterr().err
    assert deliver(monkeypatch, command=["/nowhere/program"]) == 1
    assert "/nowhere/program: No such file" in capfd.readouterr().err


def test_command_that_hangs(
    program: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """It is ended after a while, with what it waits for."""
    monkeypatch.setattr(reminder_delivery, "COMMAND_SECONDS", 0.5)
    os.mkfifo(tmp_path / "alive")  # whoever has it open for writing is alive
    listener, kill = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK), os.killpg

    def kill_what_runs(group: int, how: int) -> None:
        wait_for("the program runs", lambda: alive.read(6) == b"begun\n")
        kill(group, how)

    monkeypatch.setattr(os, "killpg", kill_what_runs)
    with os.fdopen(listener, "rb", buffering=0) as alive:
        assert deliver(monkeypatch, command=program(f"exec 3> {tmp_path}/alive; echo begun >&3; sleep 60; exit 0")) == 1
        assert "did not end within 0.5 s" in capfd.readouterr().err
        os.set_blocking(listener, True)
        assert alive.read() == b""


def test_one_failing_does_not_keep_the_other(
    hook: Hook, program: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways are tried."""
    assert deliver(monkeypatch, webhook=hook.url, command=program("exit 1")) == 1
    assert len(hook.came) == 1


def test_sender(hook: Hook, program: Callable[[str], list[str]], tmp_path: Path) -> None:
    """A process of its own delivers, the sender goes on at once, and no zombie is left."""
    sender = ReminderSender(reaps=True)
    command = program(f"cat > {tmp_path}/letter.new; mv {tmp_path}/letter.new {tmp_path}/letter")
    long = LETTER | {"networks": [f"network-{number}" for number in range(20_000)]}  # more than a pipe holds

    sender.send(Notify(webhook=hook.url, command=tuple(command)), long)

    wait_for("the webhook", lambda: hook.came)
    wait_for("the program", (tmp_path / "letter").exists)
    assert json.loads((tmp_path / "letter").read_text()) == hook.came[0][2] == long
    (child,) = sender._children

    def ended() -> bool:
        sender.reap()
        return not sender._children

    wait_for("the end of the process", ended)
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_courier_without_anybody_to_tell() -> None:
    """Nothing is started."""
    sender = ReminderSender(reaps=True)
    sender.send(Notify(), LETTER)
    assert not sender._children


def test_courier_where_another_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor waits for all its children: the sender doesn't, and doesn't mind."""
    started: list[int] = []
    start = reminder_dispatch._start

    def remember(order: bytes) -> int:
        started.append(start(order))
        return started[-1]

    monkeypatch.setattr(reminder_dispatch, "_start", remember)
    for reaps in (False, True):
        sender = ReminderSender(reaps=reaps)
        sender.send(Notify(command=("/bin/true",)), LETTER)
        assert bool(sender._children) is reaps
        assert os.waitpid(started[-1], 0)[0] == started[-1]
        sender.reap()
        assert not sender._children


def test_courier_that_cannot_start(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """That is told, and nobody fails."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    ReminderSender(reaps=True).send(Notify(command=("/bin/true",)), LETTER)
    assert "the end of ban clips can't be sent" in caplog.text
