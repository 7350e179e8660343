"""The image that `make image` builds, as Docker would run it."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
import yaml

from labs.requirements import lacking
from labs.running_lab import children
from labs.waiting import until

ROOT = Path(__file__).parents[2]
NAME = os.environ.get("TOKGATE_IMAGE", "")
MOST = 250_000_000
"""Octets."""
DOCKERS_TEN: Final = 10.0
"""Seconds that `docker stop` waits before it kills (docker stop --timeout)."""
_NAMESPACES: Final = ("unshare", "--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child")
_START: Final = """\
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
for device in null zero urandom random; do
  [ -e "$ROOT/dev/$device" ] || : > "$ROOT/dev/$device"
  mount --bind "/dev/$device" "$ROOT/dev/$device"
done
for volume in $VOLUMES; do mount --bind "${volume%%:*}" "$ROOT${volume#*:}"; done
mount -o remount,bind,ro "$ROOT"
mount --bind "$ROOT/proc/sys" "$ROOT/proc/sys"
for family in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > "$ROOT/proc/sys/net/$family"; done
mount -o remount,bind,ro "$ROOT/proc/sys"
ip link set lo up
"""


def buildah(*words: str) -> str:
    return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()


class Image:
    """An image in buildah's store, mounted."""

    def __init__(self, name: str) -> None:
        self.config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
        self._container = buildah("from", "--pull-never", name)
        self.root = Path(buildah("mount", self._container))

    def close(self) -> None:
        buildah("rm", self._container)

    @property
    def size(self) -> int:
        """The octets of its files."""
        return sum(path.lstat().st_size for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())


class Container:
    """An image that runs in namespaces of its own, without any network but loopback."""

    def __init__(
        self, image: Image, output: Path, volumes: Mapping[str, Path], service: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """`volumes`: folders of this machine by their places in the container.

        `service`: as in a compose file, whose `command`, `user` and `cap_add` take the places of the image's.
        """
        self._image = image
        self._user = service.get("user", image.config["User"])
        self._environment = [*image.config["Env"], f"HOME={'/root' if self._user == '0:0' else '/var/lib/tokgate'}"]
        command = [*image.config["Entrypoint"], *service.get("command", image.config["Cmd"])]
        held = ",".join(f"+{each.lower()}" for each in ("SYS_CHROOT", "SETUID", "SETGID", *service.get("cap_add", ())))
        inside = ["env", "-i", *self._environment, f"--chdir={image.config['WorkingDir']}", *command]
        enter = f'exec setpriv --bounding-set=-all,{held} chroot --userspec={self._user} "$ROOT" '
        script = _START + enter + shlex.join(inside)
        folders = " ".join(f"{there}:{here}" for here, there in volumes.items())
        with output.open("wb") as file:
            self._unshare = subprocess.Popen(
                [*_NAMESPACES, "sh", "-c", script],
                env=os.environ | {"ROOT": str(image.root), "VOLUMES": folders},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self.pid: int = until("process 1 is there", lambda: children(self._unshare.pid))[0]

    def run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What `docker exec` does, as the same user."""
        uid, _, gid = self._user.partition(":")
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--root", "--wd"]
        line = [*enter, "--setuid", uid, "--setgid", gid, "env", "-i", *self._environment, *command]
        return subprocess.run(line, check=False, capture_output=True, text=True)

    def beside(self, *command: str) -> list[str]:
        """A command line that runs a program of this machine on the container's loopback."""
        return ["nsenter", "--target", str(self.pid), "--net", *command]

    def stop(self) -> int:
        """What `docker stop` does; the exit code, -9 if it had to be killed."""
        if self._unshare.poll() is None:
            os.kill(self.pid, getattr(signal, self._image.config["StopSignal"]))
        try:
            return self._unshare.wait(DOCKERS_TEN)
        except subprocess.TimeoutExpired:
            self._unshare.kill()
            return self._unshare.wait()


LACKS = lacking("root", "buildah", "unshare", "nsenter") or ("" if NAME else "needs an image: make image")
pytestmark = pytest.mark.skipif(bool(LACKS), reason=LACKS)
USER = 10451


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image."""
    found = Image(NAME)
    yield found
    found.close()


class Started:
    """A container with empty volumes."""

    def __init__(
        self,
        image: Image,
        folder: Path,
        *,
        log_owner: int = USER,
        service: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.log, self.output = folder / "log", folder / "output"
        for each, owner in ((self.log, log_owner), (folder / "state", USER), (folder / "tmp", USER)):
            each.mkdir(mode=0o750 if owner else 0o755)
            os.chown(each, owner, owner)
        folder.chmod(0o755)
        volumes = {"/var/log/tokgate": self.log, "/var/lib/tokgate": folder / "state", "/tmp": folder / "tmp"}  # noqa: S108
        self.container = Container(image, self.output, volumes, service)
        self.health = image.config["Healthcheck"]["Test"][1:]

    def healthy(self) -> bool:
        return self.container.run(self.health).returncode == 0

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.log / "block.ndjson").read_text().splitlines()]


@pytest.fixture
def started(image: Image, tmp_path: Path) -> Iterator[Started]:
    """The image's own command, healthy."""
    running = Started(image, tmp_path)
    try:
        until("it is healthy", running.healthy, every=0.5)
        yield running
    finally:
        running.container.stop()


def test_it_is_small(image: Image) -> None:
    """It can be fetched by many."""
    assert image.size < MOST


def test_what_it_says_of_itself(image: Image) -> None:
    """A user without privileges, folders that outlive it, a health check and a signal to stop."""
    config = image.config
    assert (config["User"], config["StopSignal"], set(config["ExposedPorts"])) == (
        "10451:10451",
        "SIGTERM",
        {"8080/tcp"},
    )
    assert set(config["Volumes"]) == {"/etc/tokgate/policies", "/var/log/tokgate", "/var/lib/tokgate"}
    assert config["Healthcheck"]["Test"] == ["CMD", "tokgate", "status", "--probe"]


ASK = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", 8080), 30)
sock.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\\r\\nHost: {sys.argv[1]}\\r\\n\\r\\n".encode())
print(sock.recv(4096).decode().partition("\\r\\n")[0], flush=True)
sys.stdin.read()
"""
"""Asks for a tunnel, prints the answer, and keeps the connection until its input ends."""


def test_gates_run(started: Started) -> None:
    """The command runs gates, one a core, which refuse what is banned."""
    state = json.loads(started.container.run(["tokgate", "status", "--json"]).stdout)
    names = [worker["name"] for worker in state["workers"]]
    assert sum(name.startswith("gate-") for name in names) == len(os.sched_getaffinity(0))
    assert {place["host"] for place in state["listening"]} >= {"0.0.0.0"}
    asked = started.container.beside(sys.executable, "-c", ASK, "www.tiktok.com:443")
    said = subprocess.run(asked, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    assert said.startswith("HTTP/1.1 451 ")


def test_health_asks_the_proxy(started: Started) -> None:
    """Gates that are stopped make it unhealthy, and healthy again when they go on."""
    state = json.loads(started.container.run(["tokgate", "status", "--json"]).stdout)
    gates = [str(worker["pid"]) for worker in state["workers"] if worker["name"].startswith("gate-")]
    stop = "import os, signal, sys; [os.kill(int(pid), signal.SIGSTOP) for pid in sys.argv[1:]]"
    done = started.container.run(["python3.13", "-c", stop, *gates])
    assert done.returncode == 0, done.stderr
    assert not started.healthy()
    until("the supervisor has replaced them", started.healthy, every=0.5)


def test_it_stops_in_dockers_time(started: Started) -> None:
    """With a tunnel that stays open, the log has its end and is signed when Docker would kill."""
    with subprocess.Popen(
        started.container.beside(sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "9000"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as origin:
        try:
            asked = started.container.beside(sys.executable, "-c", ASK, "127.0.0.1:9000")

            def tunnel() -> subprocess.Popen[str] | None:
                client = subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                assert client.stdout is not None
                if " 200 " in client.stdout.readline():
                    return client
                client.communicate()
                return None

            with until("a tunnel is open", tunnel) as client:
                code = started.container.stop()
                client.communicate()
        finally:
            origin.kill()
    assert code == 0, started.output.read_text()
    actions = [record["event"]["action"] for record in started.records()]
    assert actions[-2:] == ["stopped", "log-checkpoint"], actions
    assert "draining for at most 5 s" in started.output.read_text()


def test_a_log_that_it_may_not_write(image: Image, tmp_path: Path) -> None:
    """A volume of root's is said in the container's own output, with what helps, and is unhealthy; traffic goes on."""
    running = Started(image, tmp_path, log_owner=0)
    try:
        until("it is said", lambda: "can't be written: " in running.output.read_text())
        text = running.output.read_text()
        assert f"this is user {USER}: chown -R {USER} /var/log/tokgate" in text
        answer = until("the state is told", lambda: running.container.run(running.health).stdout)
        assert not running.healthy(), answer
    finally:
        running.container.stop()


def test_a_gateway(image: Image, tmp_path: Path) -> None:
    """As in the compose file: it loads the kernel's part, gives root up, and is healthy behind its own rules."""
    compose = yaml.safe_load((ROOT / "deploy/compose/gateway.yaml").read_text())
    running = Started(image, tmp_path, service=compose["services"]["tokgate"])
    try:
        until("it is healthy", running.healthy, every=0.5)
        rules = running.container.beside("nft", "list", "table", "inet", "tokgate")
        assert "tproxy" in subprocess.run(rules, check=True, capture_output=True, text=True).stdout
        uids = Path(f"/proc/{running.container.pid}/status").read_text().partition("\nUid:")[2].split()[:4]
        assert set(uids) == {str(USER)}
        subprocess.run(running.container.beside("nft", "delete", "table", "inet", "tokgate"), check=True)
        until("somebody is to see that its rules were taken away", lambda: not running.healthy(), every=0.5)
        assert running.container.stop() == 0, running.output.read_text()
    finally:
        running.container.stop()
    assert [record["event"]["action"] for record in running.records()][-2:] == ["stopped", "log-checkpoint"]
