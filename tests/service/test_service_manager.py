"""What systemd is told, at a socket as it would open it."""

import os
import pwd
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import Running
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


JOBS = {
    "restart": "  73 tokgate.service restart running\n",
    "stop": "  69 tokgate.service stop    running\n",
    "none": "",
}


@pytest.mark.parametrize("job", JOBS)
def test_what_systemd_is_at(
    manager: tuple[ServiceManager, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    """A restart is told from a stop by systemd's job."""
    _systemctl(tmp_path, JOBS[job], monkeypatch.setenv)
    assert manager[0].restarts() == (job == "restart")
    assert not ServiceManager({}).restarts()


@pytest.mark.parametrize(
    ("mode", "most", "kept", "free"),
    [("process", 64, 3, 61), ("process", 0, 0, 0), ("process", 2, 3, 0), ("mixed", 64, 3, 0)],
)
def test_free_places(
    manager: tuple[ServiceManager, socket.socket],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    most: int,
    kept: int,
    free: int,
) -> None:
    """What systemd still keeps; nothing is to be left where it ends the processes that would need it."""
    shown = f"KillMode={mode}\nFileDescriptorStoreMax={most}\nNFileDescriptorStore={kept}\n"
    _systemctl(tmp_path, shown, monkeypatch.setenv)
    assert manager[0].free_places() == free
    assert ServiceManager({}).free_places() == 0


@pytest.mark.parametrize(
    ("user", "free"),
    [("", 62), (str(os.geteuid()), 62), (pwd.getpwuid(os.geteuid()).pw_name, 62), ("54321", 0), ("no-such-user", 0)],
)
def test_another_user(
    manager: tuple[ServiceManager, socket.socket],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    free: int,
) -> None:
    """A `User=` that was changed takes nothing over: its processes could not even signal those of the one before."""
    shown = f"KillMode=process\nFileDescriptorStoreMax=64\nNFileDescriptorStore=2\nUser={user}\n"
    _systemctl(tmp_path, shown, monkeypatch.setenv)
    assert manager[0].free_places() == free


def test_it_does_not_say(manager: tuple[ServiceManager, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its program a stop is a stop."""
    monkeypatch.setenv("PATH", "/nowhere/at/all")
    assert not manager[0].restarts()


def _systemctl(folder: Path, prints: str, setenv: Callable[[str, str], None]) -> None:
    """Put a program in its place."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "systemctl"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{prints}'\n")
    program.chmod(0o755)
    setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


@pytest.mark.parametrize("job", ["restart", "stop"])
def test_a_restart_is_short(tmp_path: Path, job: str) -> None:
    """While systemd restarts it, new clients wait for what is open: that is cut short. At a stop they are refused.

    Before, systemd learns when gates accept, that the supervisor lives, and how it is.
    """
    environment: dict[str, str] = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    _systemctl(tmp_path, JOBS[job], environment.__setitem__)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.settimeout(60)
        running = Running(tmp_path, workers=1, environment=environment, drain=3600)
        name = f"FDNAME=tokgate-127.0.0.1-{running.port}".encode()
        status, held = running.connect("127.0.0.1", running.origin.getsockname()[1])
        assert " 200 " in status
        with held:
            told = b""
            for said in (b"READY=1", b"WATCHDOG=1\nSTATUS=policy", b"STOPPING=1"):
                if said == b"STOPPING=1":
                    running.process.terminate()
                while said not in told:
                    told = manager.recv(4096)
            if job == "stop":
                assert manager.recv(4096) == b"FDSTOREREMOVE=1\n" + name
                held.sendall(b"\x00ping")
                assert held.recv(5) == b"\x00ping"
                running.process.terminate()  # nobody waits for an hour
            assert running.process.wait(60) == 0, running.narrated()
            assert held.recv(5) == b""
        running.origin.close()
    assert [record["event"]["action"] for record in running.records()][-2:] == ["stopped", "log-checkpoint"]


START = """
import os, sys
from tokgate.cli.main import main
os.environ["LISTEN_PID"] = str(os.getpid())
sys.exit(main(sys.argv[1:]))
"""


def test_listeners_are_kept(tmp_path: Path) -> None:
    """systemd hands back what it was given: who connected while nobody ran is served; stale listeners are closed."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as kept,
        socket.create_server(("127.0.0.1", 0)) as stale,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        driver, python = tmp_path / "driver.py", tmp_path / "python"
        driver.write_text(START)
        number = kept.getsockname()[1]
        redirect = f"3<&{kept.fileno()} 4<&{stale.fileno()}"
        python.write_text(f'#!/bin/bash\nshift 2\nexec "{sys.executable}" "{driver}" "$@" {redirect}\n')
        python.chmod(0o755)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "2"}
        early = socket.create_connection(kept.getsockname(), 60)
        kept.set_inheritable(True)
        stale.set_inheritable(True)
        running = Running(
            tmp_path,
            workers=1,
            mode=("--mode", f"gate:explicit@127.0.0.1:{number}"),
            python=str(python),
            environment=environment,
            pass_fds=(kept.fileno(), stale.fileno()),
        )
        try:
            assert running.port == number
            with early:
                early.sendall(b"CONNECT www.clips.example.org:443 HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n")
                assert early.recv(12).startswith(b"HTTP/1.1 4")
            told: list[bytes] = []
            while not any(message.startswith(b"FDSTORE=1") for message in told):
                told.append(manager.recv(4096))
            assert f"FDSTOREREMOVE=1\nFDNAME=tokgate-127.0.0.1-{stale.getsockname()[1]}".encode() in told
            assert told[-1].endswith(f"FDNAME=tokgate-127.0.0.1-{number}".encode())
        finally:
            running.close()
