"""Which process keeps the gateway of this network namespace: one alone, or two would undo each other's work.

The lock is a listening socket with an abstract name. Each network namespace has names of its own, and a name is free as
soon as its holder has died (unix(7)).
"""

import errno
import re
import socket
import struct
from pathlib import Path
from typing import Final

from tokgate.gateway import GatewayError

_NAME: Final = "\0tokgate-gateway"
_ASKING: Final = 64
"""Who asks between two calls of `answer`; who comes beyond learns that the lock is held, and not by whom."""


class GatewayLock:
    """The lock of the network namespace in which it is taken."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def take(self) -> None:
        """Take it, and hold it until this process ends. Raises GatewayError, which says who has it."""
        if self._socket is not None:
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.bind(_NAME)
            made.listen(_ASKING)
        except OSError as error:
            made.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise GatewayError(f"{holder() or 'another process'} keeps the gateway here: stop that first") from error
        self._socket = made

    def answer(self) -> None:
        """Make room for who asks next who has it. To be called now and then."""
        if self._socket is None:
            return
        try:
            while True:
                self._socket.accept()[0].close()
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give it up. In a child this leaves it to the parent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def holder() -> str | None:
    """The process that has the lock, with its unit where that can be seen; None where nobody has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(_NAME)
        except ConnectionRefusedError:
            return None
        except BlockingIOError:
            return "another process"
        pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"process {pid}{_unit(pid)}" if pid else "a process of another container"


def _unit(pid: int) -> str:
    """Its unit of systemd, or its container, in parentheses: the last part of its control group (cgroups(7))."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:  # it has ended, or is hidden (hidepid)
        return ""
    named = re.findall(r"/([^/\n]+\.(?:service|scope))$", groups, re.MULTILINE)
    return f" ({named[-1]})" if named else ""
