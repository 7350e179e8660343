"""Notifies systemd of a run's readiness, state and liveness; see sd_notify(3) and systemd.service(5).

Without systemd, nothing is told.
"""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.records.record import counted
from tokgate.policy.values import text
from tokgate.service.children import readable

EVERY: Final = 1.0
"""Seconds between two messages."""
_FIRST: Final = 3
"""The first descriptor that systemd passes, SD_LISTEN_FDS_START."""
_PATIENCE: Final = 2.0
"""Seconds in which systemd has to answer."""
LONGEST: Final = 512
"""Most characters of a state; systemd shows one line."""


class ServiceManager:
    """Sends messages to systemd. Errors are ignored: traffic is filtered whether systemd listens or not."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """`environment` has NOTIFY_SOCKET, a path or an abstract name, where systemd wants to be told."""
        address = environment.get("NOTIFY_SOCKET", "")
        self._address: Final = f"\0{address[1:]}" if address.startswith("@") else address
        self._told = ""
        self._next = 0.0

    def tell(self, *assignments: str, descriptors: Sequence[int] = ()) -> None:
        """Send a message of these assignments, such as `READY=1`, with open descriptors."""
        if not self._address:
            return
        message = "\n".join(assignments).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(self._address)
                if descriptors:
                    socket.send_fds(sock, [message], descriptors)
                else:
                    sock.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return

    def keep(self, name: str, sock: socket.socket) -> None:
        """Have systemd keep a socket open over a restart of this unit."""
        self.tell("FDSTORE=1", "FDPOLL=0", f"FDNAME={name}", descriptors=[sock.fileno()])

    def forget(self, name: str) -> None:
        """Have systemd close its copies of the sockets of this name."""
        self.tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def has_read(self) -> bool:
        """Wait until systemd has read all that it was told; whether it has. See sd_notify_barrier(3)."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self.tell("BARRIER=1", descriptors=[write])
        finally:
            os.close(write)
        try:
            return bool(self._address) and bool(readable([read], _PATIENCE))
        finally:
            os.close(read)

    def restarts(self) -> bool:
        """Whether systemd stops this unit in order to start it again; False if that can't be found out."""
        jobs = self._asked("list-jobs", "--no-legend", "--")
        return any(job.split()[2:3] == ["restart"] for job in jobs.splitlines())

    def free_places(self) -> int:
        """How many more sockets systemd keeps for a program that can take over from this one.

        0 if it ends the other processes of this unit when this one exits, or starts the next one as another user, who
        could neither signal them nor read what they write meanwhile.
        """
        said = self._asked("show", "--property=KillMode,FileDescriptorStoreMax,NFileDescriptorStore,User", "--")
        found = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        if found.get("KillMode") != "process" or _is_another(found.get("User", "")):
            return 0
        most, kept = (int(found.get(name, "0")) for name in ("FileDescriptorStoreMax", "NFileDescriptorStore"))
        return max(0, most - kept)

    def _asked(self, *question: str) -> str:
        """What systemctl says about this unit; nothing without systemd, or if it can't be asked."""
        if not self._address:
            return ""
        command = ("systemctl", *question, control_group()[1])
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False).stdout
        except (OSError, subprocess.SubprocessError):
            return ""

    def keep_alive(self, state: Callable[[], Mapping[str, Any]] | None) -> None:
        """Tell systemd at most once a second that this process lives, and its state, as of `tokgate status`.

        None while it starts: it may take longer than TimeoutStartSec, unless systemd hears nothing for a minute.
        """
        now = time.monotonic()
        if not self._address or now < self._next:
            return
        self._next = now + EVERY
        if state is None:
            self.tell("EXTEND_TIMEOUT_USEC=60000000")
            return
        said = status_line(state())
        self.tell("WATCHDOG=1", *([f"STATUS={said}"] if said != self._told else ()))
        self._told = said


def _is_another(user: str) -> bool:
    """Whether a unit's `User=`, a name or number, is another user than this process's; root may become any."""
    try:
        return bool(user) and (int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid) != os.geteuid()
    except KeyError:
        return True


def kept_sockets(environment: MutableMapping[str, str]) -> tuple[list[socket.socket], list[socket.socket]]:
    """What systemd kept over a restart, or opened itself: listening sockets, and others. See sd_listen_fds(3).

    The variables are taken out of the environment: they are for this process alone.
    """
    listeners, others = list[socket.socket](), list[socket.socket]()
    pid, number = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS"))
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not number.isdecimal():
        return listeners, others
    for descriptor in range(_FIRST, _FIRST + int(number)):
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.setblocking(False)
            listeners.append(sock)
        else:
            others.append(sock)
    return listeners, others


def control_group() -> tuple[str, str]:
    """The control groups of this process (cgroups(7)), and the service that they are of; nothing if there is none."""
    try:
        groups = Path("/proc/self/cgroup").read_text()
    except OSError:
        return "", ""
    units = (line.rpartition("/")[2] for line in groups.splitlines())  # of several in the manner of before: v1
    return groups, next((unit for unit in units if unit.endswith(".service")), "")


def name_of(sock: socket.socket) -> str:
    """A name for a listening socket in systemd's store (FDNAME of sd_notify(3)), by its address."""
    host, port = sock.getsockname()[:2]
    return f"tokgate-{host.replace(':', '.')}-{port}"


def status_line(state: Mapping[str, Any]) -> str:
    """The status in a line, for `systemctl status`; problems alone if there are any."""
    if state["problems"]:
        said = f"needs attention: {'; '.join(state['problems'])}"
    else:
        bans = {ban["ban"] for ban in state["policy"]["bans"] if not ban["idle"]}
        carried = sum(worker["report"].get("connections", 0) for worker in state["workers"])
        in_force = f"{counted(len(bans), 'ban')} in force"
        said = f"policy {state['policy']['version']}, {in_force}, {counted(carried, 'connection')}"
    return " ".join(text.readable(said).split())[:LONGEST]
