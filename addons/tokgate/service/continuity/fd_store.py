"""Brings a bequest over a restart by systemd, in its file-descriptor store: the next program is another process.

The supervisor exits and leaves its children behind, which serve on. It takes `KillMode=process`, so that systemd leaves
them, too. See sd_notify(3), FDSTORE=1.
"""

import array
import errno
import json
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tokgate.service.children import readable
from tokgate.service.continuity.replacement import Bequest, read, written
from tokgate.service.continuity.service_manager import ServiceManager, control_group

NAME: Final = "tokgate-bequest"
"""The name of what is left in the store."""
_AT_ONCE: Final = 250
"""Most descriptors in a message: the kernel takes 253 (SCM_MAX_FD)."""
_LONGEST: Final = 1 << 16
_ENDED: Final = 2.0
"""Seconds that killed processes have to be gone."""


def leave(bequest: Bequest, manager: ServiceManager, room: int) -> bool:
    """Have systemd keep all that a bequest names, in at most `room` sockets; whether it does. Raises OSError.

    Descriptors are put into the queues of socket pairs, and systemd keeps these: of a descriptor that it has already,
    such as a listener's, it would keep no second one.
    """
    memory = written(bequest)
    numbers = [memory, *bequest.descriptors()]
    manager.forget(NAME)
    pieces = [numbers[first : first + _AT_ONCE] for first in range(0, len(numbers), _AT_ONCE)]
    try:
        if len(pieces) > room:  # it would drop the rest, and tell only its journal
            raise OSError(errno.ENOSPC, f"FileDescriptorStoreMax leaves room for {room} sockets of {len(pieces)}")
        for some in pieces:
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
    received: list[int] = []
    said: dict[str, Any] = {}
    try:
        for queue in queues:
            with queue:
                message, descriptors = _peek(queue)
            received += descriptors
            said = json.loads(message)
            now |= zip(said["numbers"], descriptors, strict=False)
        if not queues:
            return None
        if len(now) != said["of"]:
            raise ValueError(f"the program before left {said['of']} descriptors, of which {len(now)} came")
        memory = now[said["memory"]]
        received.remove(memory)  # which reading closes
        return read(memory).renumbered(now)
    except BaseException as error:
        for descriptor in received:
            os.close(descriptor)
        if isinstance(error, (KeyError, TypeError)):
            raise ValueError(f"the program before left what this one can't read: {error!r}") from error
        raise


def _peek(queue: socket.socket) -> tuple[bytes, list[int]]:
    """The message in a queue, which stays there: who starts after this one failed finds it as well."""
    descriptors = array.array("i")
    space = socket.CMSG_LEN(_AT_ONCE * descriptors.itemsize)
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    message, ancillary, _, _ = queue.recvmsg(_LONGEST, space, flags)
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    return message, [*descriptors]


def end_strays(known: Collection[int], environment: Mapping[str, str] = os.environ) -> None:
    """Kill the processes of this unit that nobody supervises, but the `known`; wait until they have ended.

    `KillMode=process` leaves them when a supervisor dies: they would go on with an old policy. Nothing is done in a
    process that systemd did not start as a service.
    """
    if environment.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return
    groups, name = control_group()
    if not name:
        return
    give_up = time.monotonic() + _ENDED
    while strays := _members(groups, {os.getpid(), *known}):  # anew: one may have forked meanwhile
        for process in strays:
            with suppress(OSError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            readable([process], max(0.0, give_up - time.monotonic()))
            os.close(process)
        if time.monotonic() >= give_up:
            return


def _members(groups: str, but: Collection[int]) -> list[int]:
    """Descriptors (pidfd_open(2)) of the processes that run in these control groups, but of those with these ids."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if (pid := int(entry.name)) in but:
            continue
        with suppress(OSError):
            process = os.pidfd_open(pid)  # first: what the number leads to after that is this process, or nothing
            if _is_in(entry, groups) and not readable([process], 0.0):
                found.append(process)
            else:
                os.close(process)
    return found


def _is_in(entry: Path, groups: str) -> bool:
    try:
        return (entry / "cgroup").read_text() == groups
    except OSError:
        return False
