"""What SIGHUP brings about in a running tokgate, and a reading of the policy that came to nothing."""

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.builders import present
from labs.running_lab import DEADLINE, PATIENT, POLICY, WITHOUT_BAN, Running, python_for, until
from tokgate.runtime.control_socket import ControlRequest, ask


@pytest.mark.parametrize("mode", ["gate:explicit", "regular"])
def test_sighup(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]], mode: str) -> None:
    """The policy is read, and drops no connection; the log, which logrotate has moved, is there anew at once."""

    def policy() -> dict[str, Any]:
        found: dict[str, Any] = present(ask(running.confdir, ControlRequest.STATUS))["policy"]
        return found

    with closing(Running(tmp_path, workers=1, mode=("--mode", f"{mode}@127.0.0.1:0"))) as running:
        until("the start is told", lambda: running.log.exists() and running.records())
        until("an opener answers", running.refuses)
        before = policy()
        _, held = running.connect("127.0.0.1", running.origin.getsockname()[1])
        rotated = running.log.rename(running.log.with_name("block.ndjson.1"))
        os.kill(running.process.pid, signal.SIGHUP)
        until("the log is opened again", running.log.exists)
        until("the policy is read", lambda: policy()["loaded_at"] != before["loaded_at"])
        running.write(WITHOUT_BAN)
        until("another one is in force", lambda: policy()["version"] != before["version"] and not running.refuses())
        with held:
            held.sendall(b"\x00goes on")
            assert held.recv(8) == b"\x00goes on"
    assert "stopped" in [record["event"]["action"] for record in check_lines(rotated, running.log)]


def test_a_stop_while_nothing_writes_the_log(tmp_path: Path) -> None:
    """The collector keeps dying, which is red, and is not started again yet: the stop is logged nevertheless."""
    with closing(Running(tmp_path, workers=1)) as running:
        for _ in range(4):  # each start is delayed for twice as long as the one before
            (victim,) = until("the collector is there", partial(_collectors, running))
            os.kill(victim, signal.SIGKILL)
            until("its death is noticed", lambda: victim not in _collectors(running))  # noqa: B023
        assert any("collector-0 keeps dying, 4 times" in each for each in running.problems_told())
    assert running.records()[-2]["event"]["action"] == "stopped"


def _collectors(running: Running) -> list[int]:
    return [each["pid"] for each in running.workers("collector")]


DRIVER = """
import sys
from tokgate.cli.main import main
from tokgate.config.reload.holder import PolicyHolder

real, readings = PolicyHolder.read, []

def read(holder, seen):
    readings.append(seen)
    if len(readings) == 1:  # a file came while the others were read, and is gone again
        holder._seen = seen
        print("a reading came to nothing", file=sys.stderr)
        return None
    return real(holder, seen)

PolicyHolder.read = read
sys.exit(main(sys.argv[1:]))
"""


def test_a_reading_that_came_to_nothing_is_done_again(tmp_path: Path) -> None:
    """A policy that was saved while somebody else was at the folder comes into force, without another change."""
    with closing(Running(tmp_path, workers=1, python=python_for(tmp_path, DRIVER))) as running:
        running.write(WITHOUT_BAN)
        until("it came to nothing", lambda: "a reading came to nothing" in running.narrated())
        until("the new policy is in force", lambda: "is in force, it replaces" in running.narrated())


def test_a_stop_after_a_reload_waits_for_a_tunnel_that_was_not_ready_to_move(tmp_path: Path) -> None:
    """Its gate keeps it: the one that would take it over has ended, since it had nothing to wait for."""
    parent = socket.create_server(("127.0.0.1", 0))
    policy = POLICY | {"settings": {"upstream": [{"proxy": f"http://127.0.0.1:{parent.getsockname()[1]}"}]}}
    running = Running(tmp_path, workers=1, policy=policy, drain=DEADLINE, python=python_for(tmp_path, PATIENT))
    try:
        with parent, socket.create_connection(("127.0.0.1", running.port), DEADLINE) as client:
            client.sendall(b"CONNECT www.example.net:443 HTTP/1.1\r\nHost: www.example.net\r\n\r\n")
            asked, _ = parent.accept()
            with asked:
                assert asked.recv(4096).startswith(b"CONNECT ")
                running.write(policy | {"bans": {}, "lifted": WITHOUT_BAN["lifted"]})
                answer = present(ask(running.confdir, ControlRequest.RELOAD))
                assert answer["ok"], answer
                (new,) = running.workers("gate")
                running.process.terminate()
                until("the new gate has ended", lambda: not Path(f"/proc/{new['pid']}").exists())
                asked.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
                for _ in range(1000):  # a gate looks for what it may pass on each five milliseconds
                    client.sendall(b"\0")
                    assert asked.recv(1) == b"\0"
                    asked.sendall(b"\1")
                    assert client.recv(1) == b"\1"
    finally:
        running.close()


def test_a_stop_leaves_openers_to_clients_that_gates_still_have(tmp_path: Path) -> None:
    """Connected before, who asks for what is banned is answered without waiting for the end; who comes is refused."""
    running = Running(tmp_path, workers=1, drain=DEADLINE)
    with contextlib.ExitStack() as stack:
        stack.callback(running.close)
        place = running.origin.getsockname()
        tunnels = [stack.enter_context(running.connect(*place)[1]) for _ in range(50)]
        running.process.terminate()
        until("it drains", lambda: "draining" in running.narrated())
        until("nobody listens", partial(_refuses_to_connect, running.port))
        for tunnel in tunnels:
            tunnel.sendall(b"GET / HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n")
            assert tunnel.recv(4096).startswith(b"HTTP/1.1 403 ")
            tunnel.close()


def _refuses_to_connect(port: int) -> bool:
    with contextlib.suppress(ConnectionResetError), socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    return False


HURRIED = """
import sys
from tokgate.cli.main import main
from tokgate.service import processes

processes.READY = processes.STOPPED = 0.0  # as on a machine on which a gate takes longer than that to start
sys.exit(main(sys.argv[1:]))
"""


def test_orders_to_a_gate_that_has_hardly_begun(tmp_path: Path) -> None:
    """It carries them out once it can: a signal for which it has no handler yet would end it."""
    with closing(Running(tmp_path, python=python_for(tmp_path, HURRIED))) as running:
        until("it is well", lambda: running.problems_told() == [])
        for policy in (WITHOUT_BAN, POLICY, WITHOUT_BAN):
            running.write(policy)
            answer = present(ask(running.confdir, ControlRequest.RELOAD))
            assert answer["ok"], answer
            assert running.passes()
        assert "ended with signal" not in running.narrated()
