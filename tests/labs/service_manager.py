"""What systemd does for a service: keeps descriptors in a store, hands them to the next start, says what it is at."""

import os
import selectors
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

STARTS: Final = """
import fcntl, os, sys
given = [int(number) for number in os.environ.pop("STORED").split()]
high = [fcntl.fcntl(number, fcntl.F_DUPFD, 1 << 9) for number in given]  # out of the way of those that they shall have
for place, number in enumerate(high, 3):
    os.dup2(number, place)
if given:
    os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(len(given))
os.closerange(3 + len(given), 1 << 12)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Puts the descriptors where a service finds them, sd_listen_fds(3)."""


class ServiceManager:
    """Reads what a service tells it, in a thread."""

    def __init__(self, folder: Path, *, kill_mode: str = "process") -> None:
        self.told: list[bytes] = []
        self.store: list[tuple[str, int]] = []
        """Names and descriptors, as the service may have them."""
        (folder / "bin").mkdir()
        self._systemctl: Final = folder / "bin" / "systemctl"
        jobs = "echo '  73 tokgate.service restart running'"
        shown = f"KillMode={kill_mode} FileDescriptorStoreMax=64 NFileDescriptorStore=2"
        answers = f"list-jobs) {jobs};; show) printf '%s\\n' {shown};;"
        self._systemctl.write_text(f"#!/bin/sh\ncase $1 in {answers} esac\n")
        self._systemctl.chmod(0o755)
        driver, self.python = folder / "starts.py", folder / "python"
        driver.write_text(STARTS)
        self.python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{driver}" "$@"\n')
        self.python.chmod(0o755)
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))
        self._environment: Final = {
            "NOTIFY_SOCKET": str(folder / "notify"),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        }
        self._ended, self._ends = os.pipe2(os.O_CLOEXEC)
        self._lock: Final = threading.Lock()
        self._thread: Final = threading.Thread(target=self._read)
        self._thread.start()

    def stops(self) -> None:
        """From now on it stops the service, instead of restarting it."""
        self._systemctl.write_text("#!/bin/sh\n")

    def starts_as(self, user: str) -> None:
        """From now on its `User=` is this one, which systemd takes at the next start."""
        self._systemctl.write_text(self._systemctl.read_text().replace(" NFile", f" User={user} NFile"))

    def close(self) -> None:
        os.close(self._ends)
        self._thread.join()
        self._socket.close()
        os.close(self._ended)
        for _, descriptor in self.store:
            os.close(descriptor)

    def environment(self) -> Mapping[str, str]:
        """What the next start finds in its environment."""
        return {**self._environment, "STORED": " ".join(map(str, self.descriptors()))}

    def descriptors(self) -> list[int]:
        with self._lock:
            return [descriptor for _, descriptor in self.store]

    def names(self) -> set[str]:
        with self._lock:
            return {name for name, _ in self.store}

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._ended, selectors.EVENT_READ)
            while all(key.fd != self._ended for key, _ in selector.select()):
                message, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, 16)
                with self._lock:
                    self._take(message, descriptors)

    def _take(self, message: bytes, descriptors: list[int]) -> None:
        self.told.append(message)
        said = dict(line.split("=", 1) for line in message.decode().splitlines())
        name = said.get("FDNAME", "")
        if "FDSTOREREMOVE" in said:
            for stored in [each for each in self.store if each[0] == name]:
                self.store.remove(stored)
                os.close(stored[1])
        new = [each for each in descriptors if "FDSTORE" in said and not self._has(each)]
        self.store += [(name, each) for each in new]
        for each in descriptors:
            if each not in new:
                os.close(each)

    def _has(self, descriptor: int) -> bool:
        """Whether the same socket is there already: systemd keeps one copy."""
        return any(os.path.sameopenfile(descriptor, kept) for _, kept in self.store)
