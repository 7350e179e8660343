"""What systemd is told, at a socket as it would open it."""

import os
import pwd
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.netns import Namespace
from labs.running_lab import Running, python_for, until
from labs.service_manager import ServiceManager as Systemd
from tokgate.service import service_manager
from tokgate.service.service_manager import LONGEST, ServiceManager, kept_sockets, status_line

STATE: dict[str, Any] = {
    "problems": [],
    "policy": {"version": "0c2bfe1dd0f4", "bans": [{"ban": "a", "idle": None}, {"ban": "b", "idle": "expired"}]},
    "workers": [{"report": {"connections": 2}}, {"report": {}}],
}


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ServiceManager, socket.socket]]:
    """One that is listened to, at a path or an abstract name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = str(tmp_path / "notify") if request.param == "path" else f"@tokgate-test-{os.getpid()}"
        listening.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        listening.settimeout(60)
        yield ServiceManager({"NOTIFY_SOCKET": name}), listening


def test_messages(manager: tuple[ServiceManager, socket.socket]) -> None:
    """systemd reads assignments, one a line."""
    told, listening = manager
    told.tell("READY=1", "STATUS=well")
    assert listening.recv(4096) == b"READY=1\nSTATUS=well"


def test_sockets_are_kept(manager: tuple[ServiceManager, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd gets the same open file; without FDPOLL=0 it would drop one whose other end is closed (sd_notify(3)).

    It comes back open to the programs that tokgate starts, and is closed to them.
    """
    told, listening = manager
    with socket.create_server(("127.0.0.1", 0)) as kept:
        told.keep("a-name", kept)
        message, (descriptor,), _, _ = socket.recv_fds(listening, 4096, 1)
        monkeypatch.setattr(service_manager, "_FIRST", descriptor)
        os.set_inheritable(descriptor, True)
        (same,), others = kept_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
        with same:
            assert (same.getsockname(), same.get_inheritable(), others) == (kept.getsockname(), False, [])
    assert message.split() == [b"FDSTORE=1", b"FDPOLL=0", b"FDNAME=a-name"]
    told.forget("a-name")
    assert listening.recv(4096).split() == [b"FDSTOREREMOVE=1", b"FDNAME=a-name"]


def test_it_lives(manager: tuple[ServiceManager, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second at most; the state only when it changes, and while it starts that it does."""
    told, listening = manager
    clock = [100.0]
    monkeypatch.setattr("tokgate.service.service_manager.time.monotonic", lambda: clock[0])
    for seconds in (0.0, 0.5, 0.6):
        clock[0] += seconds
        told.keep_alive(lambda: STATE)
    line = b"STATUS=policy 0c2bfe1dd0f4, 1 ban in force, 2 connections"
    assert [listening.recv(4096), listening.recv(4096)] == [b"WATCHDOG=1\n" + line, b"WATCHDOG=1"]
    clock[0] += 1
    told.keep_alive(None)
    assert listening.recv(4096) == b"EXTEND_TIMEOUT_USEC=60000000"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all"], ids=["without systemd", "nobody listens"])
def test_nobody_is_told(address: str) -> None:
    """Nothing fails, and without systemd nothing is even made up."""
    manager = ServiceManager({"NOTIFY_SOCKET": address} if address else {})
    manager.tell("READY=1")
    never: Callable[[], dict[str, Any]] = lambda: pytest.fail("nobody asked")  # noqa: E731
    manager.keep_alive((lambda: STATE) if address else never)


def test_problems_in_a_line() -> None:
    """`systemctl status` shows them in place of the rest; a line break in an error would end the message."""
    said = status_line(STATE | {"problems": ["no gate serves", "the newest policy is\nwrong"]})
    assert said == r"needs attention: no gate serves; the newest policy is\nwrong"
    assert len(status_line(STATE | {"problems": ["x" * 4096]})) == LONGEST


SYSTEMCTL: dict[str, dict[str, int]] = {
    "list-jobs": {
        "  73 tokgate.service restart running": True,
        "  69 tokgate.service stop    running": False,
        "": False,
    },
    "show": {
        "KillMode=process FileDescriptorStoreMax=64 NFileDescriptorStore=3": 61,
        "KillMode=process FileDescriptorStoreMax=0 NFileDescriptorStore=0": 0,
        "KillMode=process FileDescriptorStoreMax=2 NFileDescriptorStore=3": 0,
        "KillMode=mixed FileDescriptorStoreMax=64 NFileDescriptorStore=3": 0,
        # Another user takes nothing over: its processes could not even signal those of the one before.
        **{
            f"KillMode=process FileDescriptorStoreMax=64 NFileDescriptorStore=2 User={user}": free
            for user, free in {
                "": 62,
                os.geteuid(): 62,
                pwd.getpwuid(os.geteuid()).pw_name: 62,
                54321: 0,
                "no-such-user": 0,
            }.items()
        },
    },
}
"""What it prints, and what that says: whether systemd restarts the unit, and how much it keeps for the next program."""


@pytest.mark.parametrize(("asked", "said"), [(asked, said) for asked, table in SYSTEMCTL.items() for said in table])
def test_what_systemd_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, said: str) -> None:
    """A stop and an empty store are what is taken for so without systemd, and where it does not say."""
    manager = ServiceManager({"NOTIFY_SOCKET": "/nowhere/at/all"})
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n[ $1 = {asked} ] && echo '{said}' | sed 's/ \\([A-Z]\\)/\\n\\1/g'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    expected = SYSTEMCTL[asked][said]
    assert (manager.restarts(), manager.free_places()) == ((expected, 0) if asked == "list-jobs" else (False, expected))
    assert (ServiceManager({}).restarts(), ServiceManager({}).free_places()) == (False, 0)
    program.unlink()
    monkeypatch.setenv("PATH", "/nowhere/at/all")
    assert (manager.restarts(), manager.free_places()) == (False, 0)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """What stands for it, and ends other processes of the unit with the first one."""
    made = Systemd(tmp_path, kill_mode="mixed")
    yield made
    made.close()


@pytest.mark.parametrize("job", ["restart", "stop"])
def test_a_restart_is_short(tmp_path: Path, systemd: Systemd, job: str) -> None:
    """While systemd restarts it, new clients wait for what is open: that is cut short. At a stop they are refused.

    Before, systemd learns when gates accept, that the supervisor lives, and how it is.
    """
    running = Running(tmp_path, 1, environment=systemd.environment(), drain=3600)
    listener = f"tokgate-127.0.0.1-{running.port}"
    _, held = running.connect("127.0.0.1", running.origin.getsockname()[1])
    with held:
        until("it lives", lambda: any(b"WATCHDOG=1\nSTATUS=policy" in each for each in systemd.told))
        assert (b"READY=1" in systemd.told, listener in systemd.names()) == (True, True)
        if job == "stop":
            systemd.stops()
        running.process.terminate()
        until("it stops", lambda: any(b"STOPPING=1" in each for each in systemd.told))
        if job == "stop":
            until("clients are refused", lambda: listener not in systemd.names())
            held.sendall(b"\x00ping")
            assert held.recv(5) == b"\x00ping"
            running.process.terminate()  # nobody waits for an hour
        assert running.process.wait(60) == 0, running.narrated()
        assert held.recv(5) == b""
    running.origin.close()
    assert (listener in systemd.names()) == (job == "restart")
    assert [record["event"]["action"] for record in running.records()][-2:] == ["stopped", "log-checkpoint"]


SLOW = """
import os, sys, time
from pathlib import Path
from tokgate.cli.main import main
from tokgate.gateway.kernel import Kernel

up = Kernel.up

def slowly(kernel, rules):
    while not Path("goes-on").exists():
        time.sleep(0.01)
    return up(kernel, rules)

Kernel.up = slowly
sys.exit(main(sys.argv[1:]))
"""
"""A tokgate whose kernel takes its time for the table, as for a hundred thousand prefixes."""


def test_a_start_that_takes_long(tmp_path: Path, namespace: Namespace, systemd: Systemd) -> None:
    """systemd is asked for more time again and again, until gates accept: else it would kill what only takes long."""

    class Patient(Running):
        def _announced(self) -> re.Match[str] | None:
            if systemd.told.count(b"EXTEND_TIMEOUT_USEC=60000000") > 1:
                (tmp_path / "goes-on").touch()
            return super()._announced()

    python = Path(python_for(tmp_path, SLOW))
    python.write_text(python.read_text().replace("exec ", f"exec ip netns exec {namespace.name} "))
    mode = ("--gateway", "--mode", "gate:explicit@127.0.0.1:0")
    running = Patient(tmp_path, 1, mode, python=str(python), environment=systemd.environment())
    until("it is ready", lambda: b"READY=1" in systemd.told)
    systemd.stops()
    running.close()
