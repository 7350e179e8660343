"""What is so where systemd restarts it, and the next process takes over what was left in the file-descriptor store."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.program_change import How, Restarting, Systemd, bequest_of
from labs.running_lab import DEADLINE, POLICY, children, runs, until
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service import program_change
from tokgate.service.children import Child, Role
from tokgate.service.service_manager import ServiceManager, name_of


@pytest.fixture
def service(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Restarting]:
    """One that systemd restarts."""
    started = Restarting(tmp_path, How.STORE)
    yield started
    started.close_all()
    check_lines(started.log)


def test_no_valid_policy(service: Restarting) -> None:
    """Where none is kept either, the gates of the program before serve on until the policy is valid again."""
    service.stop()
    service.write({"version": 1, "bans": {"ban": {"title": "no services"}}})
    for kept in service.confdir.glob("enforced-*"):
        kept.unlink()
    service.go_on()
    until("it says so", lambda: "no valid policy to start with" in service.narrated())
    until("systemd gives it time", lambda: b"EXTEND_TIMEOUT_USEC=60000000" in service.manager.told)
    assert service.passes()
    assert service.refuses()
    assert all(map(runs, service.before))
    service.write(POLICY)
    service.wait_until_ready()
    assert service.refuses()
    service.wait_for_end_of([*service.before])


def test_options_that_changed(service: Restarting) -> None:
    """Nothing is taken over: what is open ends in order, and nobody is refused."""
    status, held = service.connect("127.0.0.1", service.origin.getsockname()[1])
    assert " 200 " in status
    service.stop()
    service.go_on("--workers", "1")
    with held:
        assert held.recv(1) == b""
    service.wait_until_ready()
    service.wait_for_end_of([*service.before])
    assert service.passes()
    until("it answers", lambda: ask(service.confdir, ControlRequest.STATUS) is not None)
    assert "the options or the user have changed" in service.narrated()
    actions = [record["event"]["action"] for record in service.records()]
    assert actions[:5] == ["started", "log-checkpoint", "coverage-counted", "stopped", "log-checkpoint"], (
        "it was killed"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to start tokgate as another user")
def test_another_user(check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """After a changed `User=` all of before has ended, and written its last, when the owner of its files changes."""
    folder = Path(tempfile.mkdtemp(prefix="tokgate-users-"))  # where another user than root can reach it
    folder.chmod(0o755)
    service = Restarting(folder, How.STORE)
    try:
        status, held = service.connect("127.0.0.1", service.origin.getsockname()[1])
        assert " 200 " in status
        service.manager.starts_as("nobody")
        service.stop()
        assert not any(map(runs, service.before))
        with held, socket.create_connection(("127.0.0.1", service.port)) as waiting:  # systemd keeps the listener
            assert held.recv(1) == b""
            for each in (folder, *folder.rglob("*")):  # as systemd does with LogsDirectory= and the like
                shutil.chown(each, "nobody")
            service.go_on("--user", "nobody")
            service.wait_until_ready()
            waiting.settimeout(DEADLINE)
            waiting.sendall(b"GET /proxy.pac HTTP/1.1\r\nHost: proxy\r\n\r\n")
            assert waiting.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert service.passes()
        assert {Path(f"/proc/{pid}").owner() for pid in children(service.process.pid)} == {"nobody"}
        service.end()
        check_lines(service.log)
    finally:
        service.close_all()
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_processes_of_another_user() -> None:
    """Signals that the kernel forbids are none: such a process ends with its lifeline."""
    child = Child(Role.GATE, 0, 1, 0.0, "x", process=os.pidfd_open(os.getpid()))
    ended = os.fork()
    if not ended:
        os.setresuid(65534, 65534, 65534)
        try:
            child.signal(signal.SIGTERM)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(ended, 0)[1] == 0


def test_stopped_before_it_was_ready(service: Restarting) -> None:
    """What systemd keeps until then does not keep the collector from ending in order, after all others."""
    service.stop()
    changed = service.addons / "tokgate" / "service" / "processes.py"
    source = changed.read_text()
    changed.write_text(source.replace("return bool(gates) and all(child.report for child in gates)", "return False", 1))
    service.go_on()
    until("it answers", lambda: ask(service.confdir, ControlRequest.STATUS) is not None)
    assert program_change.NAME in service.manager.names()
    family = children(service.process.pid)
    service.end()
    assert service.process.returncode == 0
    assert not any(map(runs, (*service.before, *family)))
    assert [record["event"]["action"] for record in service.records()][-2:] == ["stopped", "log-checkpoint"]


def test_a_crash(service: Restarting) -> None:
    """systemd hands back what it was given: who connected while nobody ran is served; stale listeners are closed."""
    family = children(service.process.pid)
    service.process.kill()
    service.process.wait()
    service.wait_for_end_of(family)
    with socket.create_server(("127.0.0.1", 0)) as stale:
        name = name_of(stale)
        ServiceManager(service.manager.environment()).keep(name, stale)
        until("systemd has it", lambda: name in service.manager.names())
    with socket.create_connection(("127.0.0.1", service.port), DEADLINE) as early:
        service.go_on()
        service.wait_until_ready()
        early.sendall(b"CONNECT www.clips.example.org:443 HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n")
        assert early.recv(12).startswith(b"HTTP/1.1 4")
    until("nothing else is kept", lambda: service.manager.names() == {f"tokgate-127.0.0.1-{service.port}"})


def test_another_versions(service: Restarting) -> None:
    """What another version left and this one can't read is closed, so that its processes end; it starts anew."""
    service.stop()
    source = service.module.read_text()
    service.module.write_text(source.replace("    program: str\n", "    program: str\n    another: str\n", 1))
    service.go_on()
    service.wait_until_ready()
    service.wait_for_end_of([*service.before])
    assert "nothing is taken over" in service.narrated()
    assert service.passes()


def _pid_of(process: int) -> int:
    """Of a descriptor of a process, proc_pid_fdinfo(5)."""
    lines = Path(f"/proc/self/fdinfo/{process}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def test_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else is in the unit is killed, but not who is known; elsewhere than in a service nobody is."""
    killed: list[int] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda process, number: killed.append(_pid_of(process)))
    monkeypatch.setattr(program_change, "_ENDED", 0.0)  # since nobody is killed here, nobody ends
    groups = Path("/proc/self/cgroup").read_text()
    parent, here = os.getppid(), {"SYSTEMD_EXEC_PID": str(os.getpid())}
    for unit, environment in (("", here), ("tokgate.service", {"SYSTEMD_EXEC_PID": str(parent)})):
        monkeypatch.setattr(program_change, "control_group", lambda unit=unit: (groups, unit))
        program_change.end_strays((), environment)
    assert killed == []
    monkeypatch.setattr(program_change, "control_group", lambda: (groups, "tokgate.service"))
    child, ended = os.fork(), os.fork()
    if not ended:
        os._exit(0)
    if not child:
        signal.pause()
    try:
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        before = _open()
        program_change.end_strays((), here)
        assert child in killed
        assert not {os.getpid(), ended} & {*killed}
        killed.clear()
        program_change.end_strays((child,), here)
        assert child not in killed
        assert _open() == before
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.waitpid(ended, 0)


def test_a_stray_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked again until nobody is left; each has ended then."""
    strays = [[_sleeper()], [_sleeper()], []]
    pids = [_pid_of(process) for found in strays for process in found]
    monkeypatch.setattr(program_change, "control_group", lambda: ("0::/tokgate.service", "tokgate.service"))
    monkeypatch.setattr(program_change, "_members", lambda groups, but: strays.pop(0))
    program_change.end_strays((), {"SYSTEMD_EXEC_PID": str(os.getpid())})
    assert strays == []
    assert [os.waitpid(pid, os.WNOHANG)[0] for pid in pids] == pids


def _sleeper() -> int:
    """A descriptor of a child that waits."""
    pid = os.fork()
    if not pid:
        signal.pause()
    return os.pidfd_open(pid)


def _open() -> set[int]:
    """The descriptors of this process, but the one by which they are listed."""
    numbers = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    return {each for each in numbers if Path(f"/proc/self/fd/{each}").exists()}


def _queue(said: bytes, *descriptors: int) -> socket.socket:
    """A queue as `leave` makes it."""
    queue, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with queue:
        socket.send_fds(queue, [said], descriptors)
    return kept


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b'{"memory": 7, "numbers": [7], "of": 2}', "left 2 descriptors, of which 1 came"),
        (b'{"memory": 7, "numbers": [7, 8], "of": 2}', "left 2 descriptors, of which 1 came"),
        (b'{"memory": 8, "numbers": [7], "of": 1}', "can't read"),
        (b'{"memory": 7, "numbers": [7], "of": 1}', "can't read"),
        (b'{"anything": 1}', "can't read"),
        (b"[]", "can't read"),
        (b"no JSON", "Expecting value"),
    ],
)
def test_what_is_not_whole(said: bytes, why: str) -> None:
    """Nothing is read of what did not come whole, or what another version left, and nothing of it stays open."""
    with os.fdopen(os.memfd_create("another's"), "wb") as memory:
        kept = _queue(said, memory.fileno())
        before = _open() - {kept.fileno()}
        with pytest.raises(ValueError, match=why):
            program_change.taken([kept])
        assert _open() == before
    assert program_change.taken([]) is None


def test_no_space_for_all() -> None:
    """Where systemd would drop a part nothing is kept."""
    own = [os.eventfd(0) for _ in range(300)]
    systemd, before = Systemd(), _open()
    with pytest.raises(OSError, match="space for 1 sockets of 2"):
        program_change.Store(systemd, 1).leave(bequest_of(own))
    assert (systemd.kept, _open()) == ([], before)
    for each in own:
        os.close(each)


def test_systemd_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it may have is not left: nobody takes over, and this program ends in order."""
    forgotten: list[str] = []
    systemd = Systemd()
    monkeypatch.setattr(systemd, "forget", forgotten.append)
    monkeypatch.setattr(systemd, "has_read", lambda: False)
    own = [os.eventfd(0) for _ in range(15)]
    with pytest.raises(OSError, match="does not read"):
        program_change.Store(systemd, 1).leave(bequest_of(own))
    assert forgotten == [program_change.NAME] * 2
    for each in (*own, *(sock.detach() for sock in systemd.kept)):
        os.close(each)
