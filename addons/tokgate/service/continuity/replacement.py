"""Replaces the supervisor's program by the one that is on disk now, without refusing or ending a connection.

The supervisor calls exec: its process, its children, its listeners and its channels stay. The new program reads the
policy, starts gates and openers of its own, and has the old gates pass their open connections on, as after a reload.
Until then the old ones serve.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from pydantic import TypeAdapter, ValidationError

from tokgate.runtime.control_socket import Caller
from tokgate.service import capabilities
from tokgate.service.children import Child, Role

VARIABLE: Final = "TOKGATE_REPLACES"
"""The environment variable with the number of the memory file that holds a `Bequest`."""
_LONGEST: Final = 4096
"""Octets of what a program said about why it can't take over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A child process that stays. `started` in monotonic seconds; `told`: what it had counted, by key."""

    role: Role
    slot: int
    pid: int
    started: float
    version: str
    retired: bool
    shared: int
    told: list[tuple[tuple[str, ...], int]]
    backlog: int | None = None
    """Where it keeps the records that it could not send."""

    @classmethod
    def of(cls, child: Child, shared: int, told: Mapping[tuple[str, ...], int]) -> "Survivor":
        """A child; `shared` is the descriptor of its counters."""
        return cls(
            role=child.role,
            slot=child.slot,
            pid=child.pid,
            started=child.started,
            version=child.version,
            retired=child.retired,
            shared=shared,
            told=[*told.items()],
            backlog=child.backlog,
        )

    def as_child(self, now: float) -> Child:
        """The child in the next program, which counts as heard at `now` (monotonic seconds)."""
        return Child(
            self.role,
            self.slot,
            self.pid,
            self.started,
            self.version,
            self.backlog,
            retired=self.retired,
            heard=now,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bequest:
    """What a program leaves to the next. Numbers are those of descriptors, which stay open."""

    program: str
    """The version of tokgate."""
    takeover: str
    """`gate.takeover.FORMAT`: in another format connections can't be passed on."""
    channels: dict[str, int]
    listeners: list[tuple[int, str]]
    """Descriptor and entry of each listener."""
    metrics: int | None
    control: int | None
    quic: "QuicBequest | None"
    warned: int
    caller: int
    """Who asked for it, and waits for an answer."""
    children: list[Survivor]

    def descriptors(self) -> Iterator[int]:
        yield from self.channels.values()
        yield from (descriptor for descriptor, _ in self.listeners)
        yield from (each for each in (self.metrics, self.control) if each is not None)
        if self.quic is not None:
            yield from self.quic.descriptors()
        yield from (self.warned, self.caller)
        yield from (child.shared for child in self.children)
        yield from (child.backlog for child in self.children if child.backlog is not None)


@dataclass(frozen=True, slots=True)
class QuicBequest:
    """Descriptors for QUIC: of each gate its fronts and the channel to its successor; raw sockets by family."""

    fronts: list[list[int]]
    raw: dict[int, list[int]]
    channels: list[tuple[int, int]]

    def descriptors(self) -> Iterator[int]:
        yield from (each for fronts in (*self.fronts, *self.raw.values(), *self.channels) for each in fronts)


_FORM: Final = TypeAdapter(Bequest)


def inherited(environment: MutableMapping[str, str]) -> Bequest | None:
    """What the program before has left to this one; None if there was none.

    Raises:
        ValueError: it was another version, whose bequest this one does not understand.
    """
    number = environment.pop(VARIABLE, None)
    if number is None:
        return None
    try:
        with os.fdopen(int(number), "rb") as memory:
            memory.seek(0)
            bequest = _FORM.validate_json(memory.read())
        for descriptor in bequest.descriptors():
            os.set_inheritable(descriptor, False)
    except (OSError, ValidationError) as error:
        raise ValueError(f"the program before left what this one can't read: {error}") from error
    return bequest


class ProgramChange:
    """Tries the program on disk before it takes over: it has to run at all, and to find no error in the policy."""

    def __init__(self, policies: Path, others: dict[int, Callable[[int], None]]) -> None:
        """`others`: what the supervisor calls with the exit code of a child process, by process id."""
        self.tried: Caller | None = None
        """Who asked for a new program, which can take over now."""
        self._policies: Final = policies
        self._others: Final = others

    def ask(self, caller: Caller) -> None:
        """Start the trial; the caller is answered if it fails."""
        caller.tell("trying the program on disk")
        said = os.memfd_create("tokgate-trial")
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *_interpreter_arguments(), "check", "--quiet", str(self._policies)],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)],
                setpgroup=0,  # signals from the terminal are not for it
            )
        except OSError as error:
            os.close(said)
            caller.answer({"ok": False, "problems": f"the program can't be started: {error.strerror}"})
            return
        self._others[pid] = partial(self._ended, caller, said)

    def _ended(self, caller: Caller, said: int, code: int) -> None:
        with os.fdopen(said, "rb") as file:
            file.seek(0)
            words = file.read(_LONGEST).decode(errors="replace").strip()
        if code:
            caller.answer({"ok": False, "problems": words or f"the program on disk ended with {code}"})
        else:
            self.tried = caller


def execute(bequest: Bequest) -> NoReturn:
    """Go on as the program on disk, which finds the bequest. Raises OSError."""
    memory = os.memfd_create("tokgate-bequest", 0)
    os.write(memory, _FORM.dump_json(bequest))
    for descriptor in bequest.descriptors():
        os.set_inheritable(descriptor, True)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited through exec, until there is a handler
    if os.geteuid() != 0:
        capabilities.pass_on()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: str(memory)})


def _interpreter_arguments() -> list[str]:
    """What stands before the program's own arguments: a script, or `-m` and a module."""
    given = sys.orig_argv[1:]
    return given[: len(given) - len(sys.argv[1:])]
