"""Brings a bequest over a restart by systemd, in its file-descriptor store: the next program is another process.

The supervisor exits and leaves its children behind, which serve on. It takes `KillMode=process`, so that systemd leaves
them, too. See sd_notify(3), FDSTORE=1.
"""

import array
import json
import os
import signal
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tokgate.service.continuity.replacement import Bequest, read, written
from tokgate.service.continuity.service_manager import ServiceManager, control_group

NAME: Final = "tokgate-bequest"
"""The name of what is left in the store."""
_AT_ONCE: Final = 250
"""Most descriptors in a message: the kernel takes 253 (SCM_MAX_FD)."""
_LONGEST: Final = 1 << 16


def leave(bequest: Bequest, manager: ServiceManager) -> bool:
    """Have systemd keep all that a bequest names; whether it does. Raises OSError.

    Descriptors are put into the queues of socket pairs, and systemd keeps these: of a descriptor that it has already,
    such as a listener's, it would keep no second one.
    """
    memory = written(bequest)
    numbers = [memory, *bequest.descriptors()]
    manager.forget(NAME)
    try:
        for first in range(0, len(numbers), _AT_ONCE):
            some = numbers[first : first + _AT_ONCE]
            queue, kept = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with queue, kept:
                said = {"memory": memory, "numbers": some, "of": len(numbers)}
                socket.send_fds(queue, [json.dumps(said).encode()], some)
                manager.keep(NAME, kept)
    except OSError:
        manager.forget(NAME)
        raise
    finally:
        os.close(memory)
    if not manager.has_read():
        manager.forget(NAME)
        return False
    return True


def left(queues: Sequence[socket.socket]) -> Bequest | None:
    """What the supervisor before left; None if it left nothing. The queues are closed; systemd keeps its copies.

    Raises:
        ValueError: part of it is missing, or another version left it.
    """
    now: dict[int, int] = {}
    said: dict[str, Any] = {}
    for queue in queues:
        with queue:
            said, descriptors = _peek(queue)
        now |= zip(said["numbers"], descriptors, strict=True)
    if not queues:
        return None
    try:
        if len(now) != said["of"]:
            raise ValueError(f"the program before left {said['of']} descriptors, of which {len(now)} came")
        return read(now[said["memory"]]).renumbered(now)
    except ValueError:
        for descriptor in now.values():
            with suppress(OSError):
                os.close(descriptor)
        raise


def _peek(queue: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The message in a queue, which stays there: who starts after this one failed finds it as well."""
    descriptors = array.array("i")
    space = socket.CMSG_LEN(_AT_ONCE * descriptors.itemsize)
    message, ancillary, _, _ = queue.recvmsg(_LONGEST, space, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    said: dict[str, Any] = json.loads(message)
    return said, [*descriptors]


def end_strays(known: Collection[int], environment: Mapping[str, str] = os.environ) -> None:
    """Kill the processes of this unit that nobody supervises, but the `known`, by their ids.

    `KillMode=process` leaves them when a supervisor dies: they would go on by the policy of then. Nothing is done
    in a process that systemd did not start as a service.
    """
    if environment.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return
    own, name = control_group()
    if not name:
        return
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(process.name)
            if (process / "cgroup").read_text() == own and pid != os.getpid() and pid not in known:
                os.kill(pid, signal.SIGKILL)
