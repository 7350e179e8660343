"""Replaces the supervisor's program by the one that is on disk now, without refusing or ending a connection.

The supervisor calls exec: its process, its children, its listeners and its channels stay. (Where systemd restarts it,
the process is another one, and `fd_store` brings it all the rest.) The new program reads the policy, starts gates and
openers of its own, and has the old gates pass their open connections on, as after a reload. Until then the old ones
serve.
"""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from pydantic import TypeAdapter, ValidationError

from tokgate.gateway import capabilities
from tokgate.service.children import Child, Role

VARIABLE: Final = "TOKGATE_REPLACES"
"""The environment variable with the number of the memory file that holds a `Bequest`."""


ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
"""The signals that end tokgate: blocked while a program replaces itself, else one that comes then would be lost."""


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
    process: int | None = None
    """A descriptor of the process, which is no child of the next program."""

    @classmethod
    def of(cls, child: Child, shared: int, told: Mapping[tuple[str, ...], int]) -> "Survivor":
        """A child; `shared` is the descriptor of its counters. Raises OSError."""
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
            process=child.process,
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
            self.process,
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
    caller: int | None
    """Who asked for it, and waits for an answer."""
    children: list[Survivor]
    options: str = ""
    """The options that listeners and channels were made by."""

    def descriptors(self) -> Iterator[int]:
        yield from self.channels.values()
        yield from (descriptor for descriptor, _ in self.listeners)
        yield from (each for each in (self.metrics, self.control) if each is not None)
        if self.quic is not None:
            yield from self.quic.descriptors()
        yield from (each for each in (self.warned, self.caller) if each is not None)
        for child in self.children:
            yield from (each for each in (child.shared, child.backlog, child.process) if each is not None)

    def renumbered(self, now: Mapping[int, int]) -> "Bequest":
        """The same where its descriptors have other numbers: `now` has those by the ones before. Raises KeyError."""

        def of(number: int | None) -> int | None:
            return None if number is None else now[number]

        return replace(
            self,
            channels={name: now[number] for name, number in self.channels.items()},
            listeners=[(now[number], entry) for number, entry in self.listeners],
            metrics=of(self.metrics),
            control=of(self.control),
            quic=None if self.quic is None else self.quic.renumbered(now),
            warned=now[self.warned],
            caller=of(self.caller),
            children=[
                replace(each, shared=now[each.shared], backlog=of(each.backlog), process=of(each.process))
                for each in self.children
            ],
        )


@dataclass(frozen=True, slots=True)
class QuicBequest:
    """Descriptors for QUIC: of each gate its fronts and the channel to its successor; raw sockets by family."""

    fronts: list[list[int]]
    raw: dict[int, list[int]]
    channels: list[tuple[int, int]]

    def descriptors(self) -> Iterator[int]:
        yield from (each for fronts in (*self.fronts, *self.raw.values(), *self.channels) for each in fronts)

    def renumbered(self, now: Mapping[int, int]) -> "QuicBequest":
        return QuicBequest(
            [[now[each] for each in fronts] for fronts in self.fronts],
            {family: [now[each] for each in raw] for family, raw in self.raw.items()},
            [(now[write], now[read]) for write, read in self.channels],
        )


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
        bequest = read(int(number))
        for descriptor in bequest.descriptors():
            os.set_inheritable(descriptor, False)
    except OSError as error:
        raise ValueError(f"the program before left what this one can't open: {error}") from error
    return bequest


def written(bequest: Bequest) -> int:
    """The descriptor of a memory file that holds a bequest; programs that are executed don't get it. Raises OSError."""
    memory = os.memfd_create("tokgate-bequest")
    try:
        os.write(memory, _FORM.dump_json(bequest))
    except OSError:
        os.close(memory)
        raise
    return memory


def read(descriptor: int) -> Bequest:
    """The bequest in a memory file, which is closed. Raises OSError, or ValueError if it is another version's."""
    with os.fdopen(descriptor, "rb") as memory:
        memory.seek(0)
        try:
            return _FORM.validate_json(memory.read())
        except ValidationError as error:
            raise ValueError(f"the program before left what this one can't read: {error}") from error


def execute(bequest: Bequest, memory: int, came: Iterable[int] = ()) -> NoReturn:
    """Go on as the program on disk, which finds the bequest in the `memory` where it is `written`. Raises OSError.

    `came`: signals that this one has not followed any more. Those of `ENDS` wait for the next one's handlers.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    for number in ENDS.intersection(came):
        os.kill(os.getpid(), number)
    for descriptor in (memory, *bequest.descriptors()):
        os.set_inheritable(descriptor, True)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited through exec, until there is a handler
    if os.geteuid() != 0:
        capabilities.pass_on()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: str(memory)})
