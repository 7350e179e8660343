"""A new program takes the supervisor's place, without refusing or ending a connection.

What the supervisor leaves is a `Bequest`: descriptors and child processes, which serve on until the new program's own
have taken their connections, as after a reload. It reaches the new program in one of two ways:

- `Exec` (`tokgate restart`): the program that is on disk now takes the place of this one in its process, after a trial.
- `Store` (`systemctl restart`): the next program is another process, to which systemd's file-descriptor store brings
  it (sd_notify(3), FDSTORE=1). It takes `KillMode=process`, so that systemd leaves the children alone.

Either brings queues, in which all lies that is named; `taken` takes it out of them.
"""

import array
import errno
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from tokgate.gateway import capabilities
from tokgate.runtime.control_socket import Caller
from tokgate.service.children import Child, Descriptor, readable
from tokgate.service.service_manager import ServiceManager, control_group

VARIABLE: Final = "TOKGATE_REPLACES"
"""The environment variable with the numbers of queues, with commas between them."""
TRIAL_VARIABLE: Final = "TOKGATE_TRIES"
"""The environment variable that makes a run a trial; its standard input is a memory file that holds a `Bequest`."""
NAME: Final = "tokgate-bequest"
"""The name of what is left in systemd's store."""
ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""The signals that end tokgate: blocked while a program replaces itself, else one that comes then would be lost."""
_AT_ONCE: Final = 250
"""Most descriptors in a message: the kernel takes 253 (SCM_MAX_FD)."""
_LONGEST_MESSAGE: Final = 1 << 16
_ENDED: Final = 2.0
"""Seconds that killed processes have to be gone."""
_LONGEST_ERROR: Final = 4096
"""Octets of what a program said about why it can't take over: the last ones, which are those of the error."""
_PROGRAMS: Final = ("tokgate.service.opener_process", "tokgate.gateway.canary.process")
"""The modules that a run executes in interpreters of their own."""
_METRICS: Final = "tokgate.service.metrics.http_server"


# -- what is left


@dataclass(frozen=True, slots=True)
class Survivor:
    """A child process that stays, the descriptor of its counters, and what it had counted, by key."""

    child: Child
    shared: Descriptor
    told: list[tuple[tuple[str, ...], int]]


@dataclass(frozen=True, slots=True)
class QuicBequest:
    """For QUIC: of each gate its fronts and the channel to its successor; raw sockets by family."""

    fronts: list[list[Descriptor]]
    raw: dict[int, list[Descriptor]]
    channels: list[tuple[Descriptor, Descriptor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bequest:
    """What a program leaves to the next. Its descriptors stay open."""

    program: str
    """The version of tokgate."""
    takeover: str
    """`gate.takeover.FORMAT`: in another format connections can't be passed on."""
    channels: dict[str, Descriptor]
    listeners: list[tuple[Descriptor, str]]
    """With the entry of each."""
    metrics: Descriptor | None
    control: Descriptor | None
    quic: QuicBequest | None
    warned: Descriptor
    caller: Descriptor | None
    """Who asked for it, and waits for an answer."""
    children: list[Survivor]
    options: str = ""
    """The options that listeners and channels were made by."""

    def descriptors(self) -> list[int]:
        """All that it names."""
        found: dict[int, int] = {}
        _FORM.validate_json(_FORM.dump_json(self), context=lambda number: found.setdefault(number, number))
        return [*found]


_FORM: Final = TypeAdapter(Bequest)


def written(bequest: Bequest) -> int:
    """The descriptor of a memory file that holds a bequest; programs that are executed don't get it. Raises OSError."""
    memory = os.memfd_create(NAME)
    try:
        os.write(memory, _FORM.dump_json(bequest))
    except OSError:
        os.close(memory)
        raise
    return memory


def read(descriptor: int, now: Callable[[int], int] | None = None) -> Bequest:
    """The bequest in a memory file, which is closed; `now` gives the number of each of its descriptors in this process.

    Raises OSError, or ValueError if it is another version's.
    """
    with os.fdopen(descriptor, "rb") as memory:
        memory.seek(0)
        try:
            return _FORM.validate_json(memory.read(), context=now)
        except ValidationError as error:
            raise ValueError(f"the program before left what this one can't read: {error}") from error


def _queued(bequest: Bequest, room: int | None = None) -> list[socket.socket]:
    """Queues with all that a bequest names, as many as there is `room` for. Raises OSError.

    Each is the one end of a pair of sockets: of a descriptor that systemd has already, such as a listener's, it would
    keep no second one.
    """
    memory, queues = written(bequest), list[socket.socket]()
    numbers = [memory, *bequest.descriptors()]
    pieces = [numbers[first : first + _AT_ONCE] for first in range(0, len(numbers), _AT_ONCE)]
    try:
        if room is not None and len(pieces) > room:  # systemd would drop the rest, and tell only its journal
            why = f"FileDescriptorStoreMax leaves space for {room} sockets of {len(pieces)}"
            raise OSError(errno.ENOSPC, why)
        for some in pieces:
            write, queue = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            queues.append(queue)
            with write:
                said = {"memory": memory, "numbers": some, "of": len(numbers)}
                socket.send_fds(write, [json.dumps(said).encode()], some)
    except OSError:
        for queue in queues:
            queue.close()
        raise
    finally:
        os.close(memory)
    return queues


class Exec:
    """Brings a bequest to the program that is on disk now, in this process."""

    def __init__(self, came: Collection[int] = ()) -> None:
        """`came`: signals that were not followed any more. Those of ENDS wait for the next program's handlers."""
        self._came: Final = came
        self._queues: list[socket.socket] = []

    def leave(self, bequest: Bequest) -> None:
        """Make ready for `go`. Raises OSError."""
        self._queues = _queued(bequest)

    def go(self) -> None:
        """Go on as that program; this does not return. Raises OSError."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        for number in ENDS.intersection(self._came):
            os.kill(os.getpid(), number)
        for queue in self._queues:
            os.set_inheritable(queue.fileno(), True)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited through exec, until there is a handler
        if os.geteuid() != 0:
            capabilities.pass_on()
        sys.stderr.flush()
        environment = os.environ | {VARIABLE: ",".join(str(queue.fileno()) for queue in self._queues)}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def inherited(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The queues that the program before has left by `Exec`; the variable is taken out of the environment."""
    numbers = environment.pop(VARIABLE, "")
    queues = [socket.socket(fileno=int(number)) for number in numbers.split(",") if number]
    for queue in queues:
        queue.set_inheritable(False)
    return queues


class Store:
    """Brings a bequest to the program that systemd starts next, once this one has exited."""

    def __init__(self, manager: ServiceManager, free: int) -> None:
        """`free`: how many more sockets systemd keeps."""
        self._manager: Final = manager
        self._free: Final = free

    def leave(self, bequest: Bequest) -> None:
        """Have systemd keep all that a bequest names. Raises OSError: it keeps nothing of it."""
        manager = self._manager
        manager.forget(NAME)
        for queue in _queued(bequest, self._free):
            with queue:
                manager.keep(NAME, queue)
        if not manager.has_read():
            manager.forget(NAME)
            raise OSError(errno.ETIMEDOUT, "systemd does not read what it is told")

    def go(self) -> None:
        """Nothing: the next program begins after the end of this one."""


def taken(queues: Sequence[socket.socket]) -> Bequest | None:
    """What the program before has left; None if nothing. The queues are closed; systemd has its copies.

    Raises:
        OSError: it can't be taken.
        ValueError: part of it is missing, or another version left it.
    """
    now: dict[int, int] = {}
    received: list[int] = []
    said: dict[str, Any] = {}
    try:
        for queue in queues:
            descriptors = array.array("i")
            space = socket.CMSG_LEN(_AT_ONCE * descriptors.itemsize)
            # The message stays there: who starts after this one failed finds it as well.
            flags = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            with queue:
                message, ancillary, _, _ = queue.recvmsg(_LONGEST_MESSAGE, space, flags)
            for _, _, data in ancillary:
                descriptors.frombytes(data)
            received += descriptors
            said = json.loads(message)
            now |= zip(said["numbers"], descriptors, strict=False)
        if not queues:
            return None
        if len(now) != said["of"]:
            raise ValueError(f"the program before left {said['of']} descriptors, of which {len(now)} came")
        memory = now[said["memory"]]
        received.remove(memory)  # which reading closes
        return read(memory, now.__getitem__)
    except BaseException as error:
        for descriptor in received:
            os.close(descriptor)
        if isinstance(error, (KeyError, TypeError)):
            raise ValueError(f"the program before left what this one can't read: {error!r}") from error
        raise


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


# -- the trial


class ProgramChange:
    """Has the program on disk tried, and knows when it can take over.

    Two commands have to succeed: `check` of the policies, and the running program's own command line, which in a trial
    loads and reads all that a run needs, and then exits without having bound, written or started anything.
    """

    def __init__(
        self, policies: Path, others: dict[int, Callable[[int], None]], bequest: Callable[[Caller], Bequest]
    ) -> None:
        """`others`: what the supervisor calls with the exit code of a child process, by process id.

        `bequest` returns what the new program would find.
        """
        self.tried: Caller | None = None
        """Who asked for a new program, which can take over now."""
        self._policies: Final = policies
        self._others: Final = others
        self._bequest: Final = bequest

    def ask(self, caller: Caller) -> None:
        """Start the trial; the caller is answered if it fails."""
        caller.tell("trying the program on disk")
        arguments = sys.orig_argv[1:]
        program = arguments[: len(arguments) - len(sys.argv[1:])]  # a script, or `-m` and a module
        commands = [[*program, "check", str(self._policies)], arguments]
        try:
            said = os.memfd_create("tokgate-trial")
        except OSError as error:
            not_started(caller, error)
        else:
            self._start(caller, said, commands)

    def _start(self, caller: Caller, said: int, commands: Sequence[list[str]]) -> None:
        memory = None
        try:
            memory = written(self._bequest(caller))
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *commands[0]],
                os.environ | {TRIAL_VARIABLE: "1"},
                file_actions=[(os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate((memory, said, said))],
                setpgroup=0,  # signals from the terminal are not for it
            )
        except OSError as error:
            os.close(said)
            not_started(caller, error)
            return
        finally:
            if memory is not None:
                os.close(memory)
        self._others[pid] = partial(self._ended, caller, said, commands[1:])

    def _ended(self, caller: Caller, said: int, remaining: Sequence[list[str]], code: int) -> None:
        if not code and remaining:
            self._start(caller, said, remaining)
            return
        with os.fdopen(said, "rb") as file:
            file.seek(max(0, os.fstat(said).st_size - _LONGEST_ERROR))
            words = file.read().decode(errors="replace").strip()
        if code:
            caller.answer({"ok": False, "problems": words or f"the program on disk ended with {code}"})
        else:
            self.tried = caller


def not_started(caller: Caller, error: OSError) -> None:
    """Tell who asked for a new program what keeps it from starting."""
    caller.answer({"ok": False, "problems": f"the program can't be started: {error.strerror}"})


def is_trial(environment: MutableMapping[str, str]) -> bool:
    """Whether this run is a trial; the variable is taken out of the environment."""
    return environment.pop(TRIAL_VARIABLE, None) is not None


def load_programs(*, metrics: bool) -> None:
    """Import what a run executes, and read what the running program would leave. Raises whatever is wrong with it."""
    read(sys.stdin.fileno())
    for name in (*_PROGRAMS, *((_METRICS,) if metrics else ())):
        importlib.import_module(name)
