"""The child processes of the supervisor: their role, deaths and latest report, and the channels that they share."""

import contextlib
import ctypes
import json
import math
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, ValidationInfo

from tokgate.blocklog.write import channel
from tokgate.gate import handoff
from tokgate.service.status import WorkerStatus, worker_of
from tokgate.traffic.counters import Counters

_LONGEST_REPORT: Final = 1 << 16
"""Octets."""
ORDERS: Final = (signal.SIGUSR1, signal.SIGUSR2)
"""The signals of the supervisor that have another meaning in each role: blocked until a child has handlers for them."""


def _numbered(number: int, info: ValidationInfo) -> int:
    return number if info.context is None else int(info.context(number))


type Descriptor = Annotated[int, AfterValidator(_numbered)]
"""The number of a descriptor: another one in a process to which it was passed, which pydantic's context tells."""


class Role(StrEnum):
    """The kinds of child processes, by what they do."""

    GATE = "gate"
    OPENER = "opener"
    COLLECTOR = "collector"
    METRICS = "metrics"


@dataclass(slots=True)
class Child:
    """A running process. `slot` numbers the processes of a role; `started` is monotonic seconds.

    `version` is that of the policy that it was started with.
    """

    role: Role
    slot: int
    pid: int
    started: float
    version: str
    backlog: Descriptor | None = None
    """The records that the collector hasn't taken from it."""
    process: Descriptor | None = None
    """The process (pidfd_open(2)) where it is no child of this one: a program before started it."""
    retired: bool = False
    report: dict[str, Any] = field(default_factory=dict)
    heard: float = 0.0
    """When the latest report came, in monotonic seconds; 0.0 before the first."""
    hung: bool = False
    """Whether it was killed because no report came."""
    drains: bool = False
    """Whether it was told to drain."""

    @property
    def name(self) -> str:
        """Role and slot, such as `gate-0`."""
        return f"{self.role.value}-{self.slot}"

    def as_worker(self) -> WorkerStatus:
        """The process as `tokgate status` shows it. A gate keeps its policy; an opener reports which it has."""
        version = self.version if self.role is Role.GATE else None
        if self.role is Role.OPENER:
            version = self.report.get("version", self.version)
        now = time.monotonic()
        silent = self.silence(now) if self.heard else 0.0
        return worker_of(
            self.name, self.pid, now - self.started, version, self.report, retired=self.retired, silent=silent
        )

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has exited, or is another user's, who was tokgate's before."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self.process is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(self.process, number)

    def drain(self) -> None:
        """Tell it to drain, once: told again it would end at once."""
        if not self.drains:
            self.drains = True
            self.signal(signal.SIGTERM)

    @property
    def lives(self) -> bool:
        """Whether the process is there, or has exited and was not waited for."""
        if self.process is not None:
            return not readable([self.process], 0.0)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def silence(self, now: float) -> float:
        """Seconds without a report, at `now` in monotonic seconds; since the start if there was none."""
        return max(0.0, now - (self.heard or self.started))


@dataclass(frozen=True, slots=True)
class Channels:
    """Both ends of all channels; `…_in` is to write or to ask, `…_out` to read or to answer."""

    records_in: socket.socket
    records_out: socket.socket
    reports_in: socket.socket
    reports_out: socket.socket
    openers_in: socket.socket
    openers_out: socket.socket
    transfers_in: socket.socket
    """Where a retired gate hands connections over, to `transfers_out` in new gates."""
    transfers_out: socket.socket
    lifeline_in: int
    """A pipe that ends with the supervisor; nothing is ever written."""
    lifeline_out: int

    @classmethod
    def made(cls) -> Self:
        lifeline_out, lifeline_in = os.pipe2(os.O_CLOEXEC)
        return cls(
            *channel.channel(),
            *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET),
            *handoff.channel(),
            *handoff.channel(),
            lifeline_in,
            lifeline_out,
        )

    @classmethod
    def inherited(cls, descriptors: Mapping[str, int]) -> Self:
        """The channels from the numbers that `descriptors` gave. Raises KeyError if one is missing."""
        numbers = {each.name: descriptors[each.name] for each in fields(cls)}
        return cls(**{name: n if "lifeline" in name else socket.socket(fileno=n) for name, n in numbers.items()})  # type: ignore[arg-type]

    def descriptors(self) -> dict[str, int]:
        """The descriptor of each end by its name, for `inherited`."""
        ends = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: end if isinstance(end, int) else end.fileno() for name, end in ends.items()}


def fork() -> int:
    """Fork a child that takes the supervisor's signals once it has handlers for them, instead of ending by them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ORDERS)
    pid = -1
    try:
        pid = os.fork()
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ORDERS)
    return pid


def readable(watched: Iterable[Any], seconds: float) -> list[int]:
    """The descriptors of those that can be read or have ended, waiting for that at most so long.

    By poll(2): select(2) takes no descriptor from 1,024 on, and with many gates there are more.
    """
    poller = select.poll()
    for each in watched:
        poller.register(each, select.POLLIN)
    return [found for found, _ in poller.poll(None if math.isinf(seconds) else math.ceil(seconds * 1000))]


def tell_supervisor(reports: socket.socket, **said: Any) -> None:
    """In a child: send its report, one a datagram. It is dropped where the buffer has no space for it."""
    with contextlib.suppress(OSError):
        reports.send(json.dumps({"pid": os.getpid(), **said}).encode(), socket.MSG_DONTWAIT)


def counted_in(counters: Counters) -> dict[str, Any]:
    """What each process that carries traffic reports: what it has counted, and its descriptors."""
    return {
        "descriptors": descriptors(),
        "errors": dict(counters.errors),
        "last_error": counters.last_error,
        "loops": counters.loops,
        "timeouts": counters.timeouts,
        "unfinished": counters.unfinished,
        "cuts": counters.cuts,
        "refused_at_limit": counters.at_limit,
    }


def told_by_children(reports: socket.socket) -> Iterator[dict[str, Any]]:
    """The reports that have come, each with the `pid` of its sender."""
    while True:
        try:
            yield json.loads(reports.recv(_LONGEST_REPORT, socket.MSG_DONTWAIT))
        except (BlockingIOError, ValueError):
            return


def descriptors() -> tuple[int, int]:
    """About how many descriptors this process has open, and how many it may have.

    The lowest free one tells, since the kernel gives that out first.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return limit, limit
    os.close(lowest)
    return lowest, limit


_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
MARGIN: Final = 10
"""Seconds that it has beyond its drain."""


def end_with_supervisor(lifeline: int, drain: float) -> None:
    """In a child: have the kernel wake it when the supervisor dies, and kill it where it then doesn't drain in time.

    `lifeline` as `lifeline_out` of `Channels`, `drain` in seconds. Nobody else may use SIGALRM in this process.
    """

    def died(*_: object) -> None:
        if readable([lifeline], 0.0):  # else another program holds it open, or it was stopped for another reason
            signal.alarm(round(drain) + MARGIN)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGCONT, died)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
