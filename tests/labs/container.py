"""Runs an image of buildah's as a container engine does: as process 1, as its user, with a read-only root, by itself.

Namespaces and chroot are made here, so that it also works where an engine finds no cgroups of its kind.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from labs.running_lab import children
from labs.waiting import until

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


def what_lacks() -> str | None:
    """Why no container can be run here; None where one can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [program for program in ("buildah", "unshare", "nsenter") if shutil.which(program) is None]
    return f"needs {', '.join(missing)}" if missing else None
