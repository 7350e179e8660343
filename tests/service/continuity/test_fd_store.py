"""systemd restarts it: the next process takes over what the one before left in the file-descriptor store."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.load import Load, tallied, upgrade
from labs.running_lab import DEADLINE, POLICY, ROOT, Scraped, children, until
from labs.service_manager import ServiceManager
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service.children import Child, Role
from tokgate.service.continuity import fd_store
from tokgate.service.continuity.replacement import Bequest
from tokgate.service.continuity.service_manager import ServiceManager as UnitManager

RESTARTS, UPGRADES = 10, 3


class Service(Scraped):
    """A tokgate that a service manager starts, at a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.manager = ServiceManager(folder)
        super().__init__(
            folder,
            ("--mode", f"gate:explicit@127.0.0.1:{port}"),
            workers=2,
            addons=folder / "program",
            python=str(self.manager.python),
            environment=self.manager.environment(),
        )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """New gates accept, and what was left for this program is no longer kept."""
        until("it is ready", self._is_ready)
        until("nothing is left", lambda: fd_store.NAME not in self.manager.names())

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.narrated()
        return b"READY=1" in self.manager.told

    def stop(self) -> list[int]:
        """As systemd stops it for a restart; the processes that are left behind."""
        family = children(self.process.pid)
        self.process.terminate()
        assert self.process.wait(60) == 0, self.narrated()
        return family

    def go_on(self, *options: str) -> None:
        """As systemd starts it again."""
        self.manager.told.clear()
        self.start(self.manager.environment(), self.manager.descriptors(), options)

    def end(self) -> None:
        """As systemd stops it for good."""
        self.manager.stops()
        if self.process.poll() is None:
            self.close()


@pytest.fixture
def service(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Service]:
    """One whose program can be changed: its package is a copy."""
    shutil.copytree(ROOT / "addons" / "tokgate", tmp_path / "program" / "tokgate")
    started = Service(tmp_path)
    until("it is well", lambda: started.problems() == [])
    yield started
    started.end()
    started.manager.close()
    check_lines(started.log)


def _gone(pids: list[int]) -> bool:
    return not any(_runs(pid) for pid in pids)


def _all_but_one_gone(pids: list[int]) -> bool:
    """The first opener serves the download to its end."""
    return sum(map(_runs, pids)) <= 1


def _runs(pid: int) -> bool:
    """Whether it does; one that nobody waits for, its parent having gone, has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ten_restarts_under_load(service: Service) -> None:
    """None of those who come, stay or download notices any; each restart is told, each connection counted once."""
    until("an opener answers", service.refuses)
    with Load(service) as load:
        for _ in range(RESTARTS):
            left = service.stop()
            load.goes_on()
            service.go_on()
            service.wait_until_ready()
            load.goes_on()
            until("the gates have passed all on", partial(_all_but_one_gone, left))
    assert load.failures == []
    until("it is well", lambda: service.problems() == [])
    assert service.passes()
    service.end()
    actions = [record["event"]["action"] for record in service.records()]
    assert (actions.count("started"), actions.count("stopped")) == (RESTARTS + 1, RESTARTS + 1)
    assert tallied(service) == load.served + 2 + 1 + 1 + 1


def test_upgrades_under_load(service: Service) -> None:
    """What the new version can't take over the old gates serve to its end; new clients are the new version's."""
    until("an opener answers", service.refuses)
    with Load(service) as load:
        for number in range(UPGRADES):
            upgrade(service, number)
            service.stop()
            service.go_on()
            service.wait_until_ready()
            load.goes_on()
        until(
            "only what stays is with old gates", lambda: service.metric("connections", role="gate", state="ending") == 2
        )
    assert load.failures == []
    until("it is well", lambda: service.problems() == [])


def test_who_dies(service: Service) -> None:
    """A process that the program before started is replaced; a supervisor that dies leaves nobody behind."""
    status, held = service.connect("127.0.0.1", service.origin.getsockname()[1])
    assert " 200 " in status
    answer = ask(service.confdir, ControlRequest.STATUS)
    assert answer is not None
    left = service.stop()
    os.kill(next(worker["pid"] for worker in answer["workers"] if worker["name"] == "gate-0"), signal.SIGKILL)
    service.go_on()
    service.wait_until_ready()
    until("it is well", lambda: service.problems() == [])
    assert service.passes()
    family = children(service.process.pid)
    held.close()
    service.process.kill()
    service.process.wait()
    until("nobody is left", partial(_gone, [*left, *family]))


def test_no_valid_policy(service: Service) -> None:
    """The gates of the program before serve on until the policy is valid again."""
    left = service.stop()
    service.write({"version": 1, "bans": {"ban": {"title": "no services"}}})
    service.go_on()
    until("it says so", lambda: "no valid policy to start with" in service.narrated())
    assert service.passes()
    assert service.refuses()
    assert all(map(_runs, left))
    service.write(POLICY)
    service.wait_until_ready()
    assert service.refuses()


def test_options_that_changed(service: Service) -> None:
    """Nothing is taken over: what is open ends in order, and nobody is refused."""
    status, held = service.connect("127.0.0.1", service.origin.getsockname()[1])
    assert " 200 " in status
    left = service.stop()
    service.go_on("--workers", "1")
    with held:
        assert held.recv(1) == b""
    service.wait_until_ready()
    until("they have ended", partial(_gone, left))
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
    shutil.copytree(ROOT / "addons" / "tokgate", folder / "program" / "tokgate")
    service = Service(folder)
    try:
        until("it is well", lambda: service.problems() == [])
        status, held = service.connect("127.0.0.1", service.origin.getsockname()[1])
        assert " 200 " in status
        service.manager.starts_as("nobody")
        assert _gone(service.stop())
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
        service.end()
        service.manager.close()
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


def test_stopped_before_it_was_ready(service: Service) -> None:
    """What systemd keeps until then does not keep the collector from ending in order, after all others."""
    left = service.stop()
    changed = service.addons / "tokgate" / "service" / "processes.py"
    source = changed.read_text()
    changed.write_text(source.replace("return bool(gates) and all(child.report for child in gates)", "return False", 1))
    service.go_on()
    until("it answers", lambda: ask(service.confdir, ControlRequest.STATUS) is not None)
    assert fd_store.NAME in service.manager.names()
    family = children(service.process.pid)
    service.end()
    assert service.process.returncode == 0
    assert _gone([*left, *family])
    assert [record["event"]["action"] for record in service.records()][-2:] == ["stopped", "log-checkpoint"]


def test_another_versions(service: Service) -> None:
    """What another version left and this one can't read is closed, so that its processes end; it starts anew."""
    left = service.stop()
    changed = service.addons / "tokgate" / "service" / "continuity" / "replacement.py"
    source = changed.read_text()
    changed.write_text(source.replace("    program: str\n", "    program: str\n    another: str\n", 1))
    service.go_on()
    service.wait_until_ready()
    until("they have ended", partial(_gone, left))
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
    monkeypatch.setattr(fd_store, "_ENDED", 0.0)  # since nobody is killed here, nobody ends
    groups = Path("/proc/self/cgroup").read_text()
    parent, here = os.getppid(), {"SYSTEMD_EXEC_PID": str(os.getpid())}
    for unit, environment in (("", here), ("tokgate.service", {"SYSTEMD_EXEC_PID": str(parent)})):
        monkeypatch.setattr(fd_store, "control_group", lambda unit=unit: (groups, unit))
        fd_store.end_strays((), environment)
    assert killed == []
    monkeypatch.setattr(fd_store, "control_group", lambda: (groups, "tokgate.service"))
    child, ended = os.fork(), os.fork()
    if not ended:
        os._exit(0)
    if not child:
        signal.pause()
    try:
        os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
        before = _open()
        fd_store.end_strays((), here)
        assert child in killed
        assert not {os.getpid(), ended} & {*killed}
        killed.clear()
        fd_store.end_strays((child,), here)
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
    monkeypatch.setattr(fd_store, "control_group", lambda: ("0::/tokgate.service", "tokgate.service"))
    monkeypatch.setattr(fd_store, "_members", lambda groups, but: strays.pop(0))
    fd_store.end_strays((), {"SYSTEMD_EXEC_PID": str(os.getpid())})
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
            fd_store.left([kept])
        assert _open() == before


class Store(UnitManager):
    """Keeps what it is given, and has always read."""

    def __init__(self) -> None:
        super().__init__({})
        self.kept: list[socket.socket] = []

    def keep(self, name: str, sock: socket.socket) -> None:
        self.kept.append(sock.dup())

    def has_read(self) -> bool:
        return True


def test_more_than_a_message_takes() -> None:
    """All arrive under other numbers, in each of the queues; without room for all nothing is kept."""
    own = [os.eventfd(number) for number in range(300)]
    bequest = Bequest(
        program="",
        takeover="",
        channels={str(number): each for number, each in enumerate(own[:-1])},
        listeners=[],
        metrics=None,
        control=None,
        quic=None,
        warned=own[-1],
        caller=None,
        children=[],
    )
    store, before = Store(), _open()
    with pytest.raises(OSError, match="room for 1 sockets of 2"):
        fd_store.leave(bequest, store, 1)
    assert (store.kept, _open()) == ([], before)
    assert fd_store.leave(bequest, store, 2)
    for each in own:
        os.close(each)
    found = fd_store.left(store.kept)
    assert found is not None
    numbers = [*found.descriptors()]
    assert [os.eventfd_read(each) if place else 0 for place, each in enumerate(numbers)] == [*range(300)]
    for each in numbers:
        os.close(each)


def test_nothing_is_left() -> None:
    assert fd_store.left([]) is None


def test_programs_inherit_nothing_that_was_left() -> None:
    """What came is not for the programs that are executed, such as openers."""
    with socket.socket() as sock, _queue(b"{}", sock.fileno()) as queue:
        _, descriptors = fd_store._peek(queue)
    assert [os.get_inheritable(each) for each in descriptors] == [False]
    os.close(descriptors[0])
